package scheduler_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/testdb"
)

// TestTaskLimitHolds with many short jobs of tasks with and without a limit,
// some in named queues, with and without a local queue: as many run at once as
// the limits let in, and never more.
func TestTaskLimitHolds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	limits := map[string]int{"one": 1, "three": 3}
	for _, size := range []int{0, 7} {
		t.Run(fmt.Sprintf("local queue of %d", size), func(t *testing.T) {
			var mu sync.Mutex
			now, most, total := map[string]int{}, map[string]int{}, 0
			// The first runs wait for one another: as many as are let in, in slots
			// that are there for all of them.
			together := map[string]int{"three": 3, "free": 4}
			met := map[string]chan struct{}{"three": make(chan struct{}), "free": make(chan struct{})}
			handle := func(_ context.Context, j *job.Claimed) job.Outcome {
				mu.Lock()
				now[j.Task]++
				most[j.Task] = max(most[j.Task], now[j.Task])
				total++
				if now[j.Task] == together[j.Task] {
					together[j.Task] = -1
					close(met[j.Task])
				}
				mu.Unlock()
				if c := met[j.Task]; c != nil {
					<-c
				}
				time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond) // some overlap
				mu.Lock()
				now[j.Task]--
				mu.Unlock()
				return job.Outcome{Kind: job.Completed}
			}
			f := newFixture(t, map[string]scheduler.Handler{"one": handle, "three": handle, "free": handle})
			f.config.TaskLimits = limits
			f.config.Concurrency = 8
			f.config.LocalQueue = scheduler.LocalQueue{Size: size, TTL: patience}
			f.config.PollInterval = 10 * patience // whatever is left when a job ends is found at once
			f.exec(t, `select graphile_worker.add_job((array['one', 'three', 'free'])[1 + n % 3], priority => n % 5,
				queue_name => case when n % 7 = 0 then 'q' || n % 2 end) from generate_series(1, 300) n`)
			stop := run(t, scheduler.New(f.config))
			for range 300 {
				wait[event.JobCompleted](t, f)
			}
			stop()
			if most["one"] != 1 || most["three"] != 3 || most["free"] < 4 || total != 300 {
				t.Errorf("%d runs, at once %v", total, most)
			}
		})
	}
}

// TestTaskAtItsLimitHoldsUpNoOther: jobs of the task stand before all others,
// and the others are still claimed many at a time.
func TestTaskAtItsLimitHoldsUpNoOther(t *testing.T) {
	var sample testdb.Sample
	for _, size := range []int{0, 20} {
		t.Run(fmt.Sprintf("local queue of %d", size), func(t *testing.T) {
			sample.Take(t)
			started, finish := make(chan struct{}, 10), make(chan struct{})
			f := newFixture(t, map[string]scheduler.Handler{
				"slow": func(context.Context, *job.Claimed) job.Outcome {
					started <- struct{}{}
					<-finish
					return job.Outcome{Kind: job.Completed}
				},
				"x": completes,
			})
			f.config.TaskLimits = map[string]int{"slow": 2}
			f.config.Concurrency = 10
			f.config.LocalQueue = scheduler.LocalQueue{Size: size, TTL: patience}
			f.exec(t, "select graphile_worker.add_job('slow', priority => -5) from generate_series(1, 5)")
			f.exec(t, "select graphile_worker.add_job('x') from generate_series(1, 40)")
			stop := run(t, scheduler.New(f.config))
			claimed := wait[event.JobsClaimed](t, f)
			if want := max(10, size); claimed.Count != want {
				t.Errorf("the first claim took %d jobs, want %d", claimed.Count, want)
			}
			for range 40 {
				if done := wait[event.JobCompleted](t, f); done.Job.Task != "x" {
					t.Errorf("%q completed", done.Job.Task)
				}
			}
			var locked int
			if err := f.pool.QueryRow(t.Context(), "select count(*) from graphile_worker._private_jobs where locked_by is not null").Scan(&locked); err != nil || locked != 2 || len(started) != 2 {
				t.Errorf("%d jobs of the limited task are locked, %d started (%v)", locked, len(started), err)
			}
			close(finish)
			for range 5 {
				wait[event.JobCompleted](t, f)
			}
			stop()
		})
	}
}

// TestLimitOfTaskThatIsAlone: each end of a job lets the next one in, without a
// poll, also when every task is at its limit.
func TestLimitOfTaskThatIsAlone(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"x": completes})
	f.config.TaskLimits = map[string]int{"x": 1}
	f.config.PollInterval = 10 * patience
	f.exec(t, "select graphile_worker.add_job('x') from generate_series(1, 20)")
	stop := run(t, scheduler.New(f.config))
	for range 20 {
		wait[event.JobCompleted](t, f)
	}
	stop()
}

// TestLimitedClaimsKeepTheOrder: one job at a time, so no limit holds a job back.
func TestLimitedClaimsKeepTheOrder(t *testing.T) {
	var ran seen
	f := newFixture(t, map[string]scheduler.Handler{"a": ran.handler, "b": ran.handler, "c": ran.handler})
	f.config.TaskLimits = map[string]int{"a": 2, "b": 1}
	f.config.Concurrency = 1
	f.exec(t, `select graphile_worker.add_job((array['a', 'b', 'c', 'a'])[1 + n % 4], priority => n / 6,
		run_at => now() - make_interval(mins => n % 6)) from generate_series(0, 59) n`)
	rows, err := f.pool.Query(t.Context(), "select id from graphile_worker._private_jobs order by priority, run_at, id")
	if err != nil {
		t.Fatal(err)
	}
	want, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	if err := scheduler.New(f.config).RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(ran.ids, want) {
		t.Errorf("started in the order\n%v, want\n%v", ran.ids, want)
	}
}

// TestLimitCountsWhatALostAnswerHasTaken: the claim after it must not take
// another job of the task.
func TestLimitCountsWhatALostAnswerHasTaken(t *testing.T) {
	g := newGated()
	f := newFixture(t, map[string]scheduler.Handler{"slow": g.handler, "x": g.handler})
	f.config.TaskLimits = map[string]int{"slow": 1}
	f.exec(t, "select graphile_worker.add_job('slow', priority => -1) from generate_series(1, 3)")
	f.db.lose["ClaimSelectedJobs"] = 1
	f.exec(t, "select graphile_worker.add_job('x')")
	stop := run(t, scheduler.New(f.config))
	wait[event.LostClaimRecovered](t, f)
	wait[event.JobsClaimed](t, f)
	var locked int
	if err := f.pool.QueryRow(t.Context(), "select count(*) from graphile_worker.jobs where task_identifier = 'slow' and locked_by is not null").Scan(&locked); err != nil || locked != 1 {
		t.Errorf("%d jobs of the task are claimed, want 1 (%v)", locked, err)
	}
	for range 4 {
		g.pass <- struct{}{}
		wait[event.JobCompleted](t, f)
	}
	stop()
}
