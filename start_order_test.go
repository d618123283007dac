package gworker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
)

// TestStartOrder: jobs start in their order, whatever a worker has claimed ahead. The
// jobs become a hundred times slower and quicker again on the way, so that what was
// claimed for soon goes back unstarted.
func TestStartOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for name, config := range map[string]gworker.Config{
		"held":                {},
		"held shortly":        {HoldTime: new(2 * time.Millisecond)},
		"locked":              {HoldTime: new(time.Duration)},
		"in the local queue":  {LocalQueue: gworker.LocalQueueConfig{Size: 50}},
		"with a limited task": {HoldTime: new(time.Duration)},
	} {
		for _, slots := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s, %d slots", name, slots), func(t *testing.T) {
				pool, jobs := migrated(t), 3000
				if name == "with a limited task" {
					jobs = 600 // each claim takes what can start at once
				}
				addOrdered(t, pool, jobs)
				o := &startOrder{}
				config.Pool, config.Concurrency = pool, slots
				config.Tasks = []gworker.Task{o.task("a", jobs), o.task("b", jobs)}
				if name == "with a limited task" {
					config.Tasks[1] = config.Tasks[1].With(gworker.TaskOptions{Concurrency: slots})
				}
				runOnce(t, config)
				o.check(t, slots, jobs)
			})
		}
	}
}

// TestStartOrderWithFirstRuns: a task's first jobs, whose locks are written before
// they start, and jobs whose task completes them in its own transaction keep their
// places before those that are held.
func TestStartOrderWithFirstRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for _, slots := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d slots", slots), func(t *testing.T) {
			pool := migrated(t)
			const jobs = 900
			addOrdered(t, pool, jobs)
			exec(t, pool, `
				insert into graphile_worker._private_tasks (identifier) select 't' || n from generate_series(0, 29) n;
				update graphile_worker._private_jobs j set task_id = t.id
				from graphile_worker._private_tasks t where t.identifier = 't' || (j.id % 30)`)
			o := &startOrder{}
			config := gworker.Config{Pool: pool, Concurrency: slots}
			for n := range 30 {
				task := o.task(fmt.Sprintf("t%d", n), jobs)
				if n%10 == 0 {
					task = gworker.NewTask(fmt.Sprintf("t%d", n), func(ctx context.Context, job *gworker.Job[place]) error {
						o.started(job.Payload)
						tx, err := pool.Begin(ctx)
						if err != nil {
							return err
						}
						defer tx.Rollback(context.WithoutCancel(ctx))
						if err := job.CompleteTx(ctx, tx); err != nil {
							return err
						}
						return tx.Commit(ctx)
					})
				}
				config.Tasks = append(config.Tasks, task)
			}
			runOnce(t, config)
			o.check(t, slots, jobs)
		})
	}
}

// place is a job's payload: where it stands, and its priority.
type place struct{ Place, Priority int }

// addOrdered adds jobs of five priorities in an order of their own, all of them
// runnable.
func addOrdered(t *testing.T, pool *pgxpool.Pool, jobs int) {
	t.Helper()
	exec(t, pool, `
		select graphile_worker.add_job('a', run_at => now() + interval '1 day');
		select graphile_worker.add_job('b', run_at => now() + interval '1 day');
		delete from graphile_worker._private_jobs`)
	exec(t, pool, `
		insert into graphile_worker._private_jobs (task_id, payload, priority, run_at)
		select t.id, json_build_object('place', n, 'priority', n * 5 / $1), n * 5 / $1, now() - interval '1 hour' + n * interval '1 ms'
		from (select n from generate_series(0, $1 - 1) n order by (n * 7919) % $1) n
		join graphile_worker._private_tasks t on t.identifier = case n % 2 when 0 then 'a' else 'b' end
		`, jobs)
	exec(t, pool, "vacuum analyze graphile_worker._private_jobs")
}

// startOrder records in which order jobs start.
type startOrder struct {
	mu   sync.Mutex
	seen []place
}

func (o *startOrder) started(p place) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, p)
}

// task is quick, but for two stretches of jobs of some milliseconds each.
func (o *startOrder) task(name string, jobs int) gworker.Task {
	return gworker.NewTask(name, func(_ context.Context, job *gworker.Job[place]) error {
		o.started(job.Payload)
		if n := job.Payload.Place * 10 / jobs; n%5 == 3 && job.Payload.Place%8 == 0 {
			time.Sleep(3 * time.Millisecond)
		}
		return nil
	})
}

// check: with one slot the order is strict; with more no job starts before all those
// of better priorities have, but for what the other slots have taken and not recorded.
func (o *startOrder) check(t *testing.T, slots, jobs int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.seen) != jobs {
		t.Fatalf("%d runs of %d jobs", len(o.seen), jobs)
	}
	wrong, worst, late := 0, 0, make(map[int]int)
	for i, p := range o.seen {
		if slots == 1 && p.Place != i {
			wrong++
			worst = max(worst, p.Place-i, i-p.Place)
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d jobs started out of order, one by %d places", wrong, jobs, worst)
	}
	reached := 0
	for _, p := range o.seen {
		if p.Priority < reached {
			late[p.Priority]++
		}
		reached = max(reached, p.Priority)
	}
	for priority, count := range late {
		if count > slots-1 {
			t.Errorf("%d jobs of priority %d started after one of a worse priority", count, priority)
		}
	}
}
