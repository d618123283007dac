package gworker_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testworker"
)

// queueRuns notes in which order the jobs of each queue run, and fails the test
// when two of one queue run at once.
type queueRuns struct {
	t     *testing.T
	mu    sync.Mutex
	order map[string][]int
	busy  map[string]bool
}

func newQueueRuns(t *testing.T) *queueRuns {
	return &queueRuns{t: t, order: map[string][]int{}, busy: map[string]bool{}}
}

func (q *queueRuns) task(name string) gworker.Task {
	return gworker.NewTask(name, func(_ context.Context, job *gworker.Job[int]) error {
		q.mu.Lock()
		if q.busy[job.Queue] {
			q.t.Errorf("two jobs of queue %s at once", job.Queue)
		}
		q.busy[job.Queue] = true
		q.order[job.Queue] = append(q.order[job.Queue], job.Payload)
		q.mu.Unlock()
		runtime.Gosched()
		q.mu.Lock()
		defer q.mu.Unlock()
		q.busy[job.Queue] = false
		return nil
	})
}

// TestQueueOrder: by priority, then by run_at, then by the order of adding,
// whichever of several workers' batches the jobs are in, and wherever in the
// table their rows are.
func TestQueueOrder(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	// Rows come to lie where others were.
	exec(t, pool, "select graphile_worker.add_job('gone', json_build_object('n', n)) from generate_series(1, 400) n")
	exec(t, pool, "delete from graphile_worker._private_jobs where id % 7 < 4")
	exec(t, pool, "vacuum graphile_worker._private_jobs")
	exec(t, pool, "delete from graphile_worker._private_jobs")

	const perQueue = 40
	queues := []string{"a", "b", "c"}
	hourAgo := time.Now().Add(-time.Hour)
	want := map[string][]gworker.JobSpec{}
	spec := func(queue string, n int) gworker.JobSpec {
		s := gworker.JobSpec{Task: "x", Queue: queue, Payload: n, Priority: n * 7 % 3}
		if n%5 == 0 {
			s.RunAt = hourAgo.Add(time.Duration(n*11%13) * time.Minute)
		}
		want[queue] = append(want[queue], s)
		return s
	}
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		var together []gworker.JobSpec
		for n := range perQueue {
			for _, queue := range queues {
				if n < perQueue/2 { // one statement each, of one transaction
					if _, err := client.WithTx(tx).AddJob(t.Context(), spec(queue, n)); err != nil {
						return err
					}
					continue
				}
				together = append(together, spec(queue, n))
			}
		}
		_, err := client.WithTx(tx).AddJobs(t.Context(), together)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	runs := newQueueRuns(t)
	var wg sync.WaitGroup
	for _, slots := range []int{1, 4, 9} {
		wg.Go(func() { runOnceQuietly(t, pool, slots, runs.task("x")) })
	}
	wg.Wait()
	// A worker returns when it finds nothing to do, while another's job may hold
	// its queue: the last one that looks drains the rest.
	runOnceQuietly(t, pool, 1, runs.task("x"))
	for _, queue := range queues {
		sorted := slices.Clone(want[queue])
		slices.SortStableFunc(sorted, func(a, b gworker.JobSpec) int {
			at := func(s gworker.JobSpec) time.Time {
				if s.RunAt.IsZero() {
					return hourAgo.Add(time.Hour)
				}
				return s.RunAt
			}
			return cmp.Or(cmp.Compare(a.Priority, b.Priority), at(a).Compare(at(b)))
		})
		var order []int
		for _, s := range sorted {
			order = append(order, s.Payload.(int))
		}
		if !slices.Equal(runs.order[queue], order) {
			t.Errorf("queue %s ran in the order\n%v, want\n%v", queue, runs.order[queue], order)
		}
	}
}

// runOnceQuietly may be called from any goroutine.
func runOnceQuietly(t *testing.T, pool *pgxpool.Pool, slots int, task gworker.Task) {
	worker, err := gworker.NewWorker(gworker.Config{Pool: pool, Concurrency: slots, Tasks: []gworker.Task{task}})
	if err != nil {
		t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := worker.RunOnce(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("RunOnce: %v, %v", err, ctx.Err())
	}
}

// TestBacklogOfAQueueDoesNotHoldUpOtherJobs: the claim meets many jobs of one
// queue before it meets the others.
func TestBacklogOfAQueueDoesNotHoldUpOtherJobs(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	var specs []gworker.JobSpec
	for n := range 60 {
		specs = append(specs, gworker.JobSpec{Task: "long", Queue: "long", Priority: -1, Payload: n})
	}
	for n := range 40 {
		specs = append(specs, gworker.JobSpec{Task: "short", Payload: n})
	}
	specs = append(specs, gworker.JobSpec{Task: "short", Queue: "another", Priority: 1, Payload: 40})
	if _, err := client.AddJobs(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{})
	var once sync.Once
	open := func() { once.Do(func() { close(gate) }) }
	defer open()
	runs := newQueueRuns(t)
	first := true
	worker := start(t, gworker.Config{Pool: pool, Concurrency: 5, PollInterval: time.Hour, Tasks: []gworker.Task{
		gworker.NewRawTask("short", nothing),
		gworker.NewTask("long", func(ctx context.Context, job *gworker.Job[int]) error {
			if first { // jobs of this queue are one after another
				first = false
				<-gate
			}
			runs.mu.Lock()
			defer runs.mu.Unlock()
			runs.order[job.Queue] = append(runs.order[job.Queue], job.Payload)
			return nil
		}),
	}})
	testworker.WaitForN[event.JobCompleted](t, worker.Events, 41, nil)
	if len(runs.order["long"]) != 0 {
		t.Error("the gate is open")
	}
	open()
	testworker.WaitForN[event.JobCompleted](t, worker.Events, 101, nil)
	if !slices.IsSorted(runs.order["long"]) {
		t.Errorf("the queue ran in the order %v", runs.order["long"])
	}
}

// TestFailedJobLetsItsQueueGoOn: it goes to the place that its new run_at gives
// it.
func TestFailedJobLetsItsQueueGoOn(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	var order []string
	config := gworker.Config{Pool: pool, Tasks: []gworker.Task{
		gworker.NewTask("x", func(_ context.Context, job *gworker.Job[int]) error {
			order = append(order, fmt.Sprintf("%d.%d", job.Payload, job.Attempts))
			if job.Payload == 0 && job.Attempts < 3 || job.LastAttempt() {
				return errors.New("no")
			}
			return nil
		}),
	}}
	for n := range 4 {
		spec := gworker.JobSpec{Task: "x", Queue: "q", Payload: n}
		if n == 2 {
			spec.MaxAttempts = 1 // fails for good
		}
		add(t, client, spec)
	}
	runOnce(t, config)
	add(t, client, gworker.JobSpec{Task: "x", Queue: "q", Payload: 4, RunAt: time.Now().Add(time.Hour)})
	add(t, client, gworker.JobSpec{Task: "x", Queue: "q", Payload: 5, Priority: -1, RunAt: time.Now().Add(time.Hour)})
	exec(t, pool, "update graphile_worker._private_jobs set run_at = now() - make_interval(mins => 10 - id::int) where attempts < max_attempts")
	runOnce(t, config)
	exec(t, pool, "update graphile_worker._private_jobs set run_at = now() where attempts < max_attempts")
	runOnce(t, config)
	want := []string{"0.1", "1.1", "2.1", "3.1", "5.1", "0.2", "4.1", "0.3"}
	if !slices.Equal(order, want) {
		t.Errorf("runs (job.attempt) were %v, want %v", order, want)
	}
}

// TestQueueIsFreeAfterEveryOutcome: the next job of the queue runs, and nothing of
// the lock stays.
func TestQueueIsFreeAfterEveryOutcome(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	fails := func(context.Context, *gworker.RawJob) error { return errors.New("no") }
	for name, c := range map[string]struct {
		task gworker.Task
		spec gworker.JobSpec
	}{
		"completed":          {task: gworker.NewRawTask("x", nothing)},
		"failed":             {task: gworker.NewRawTask("x", fails)},
		"failed permanently": {task: gworker.NewRawTask("x", fails), spec: gworker.JobSpec{MaxAttempts: 1}},
		"undecodable":        {task: gworker.NewTask("x", func(context.Context, *gworker.Job[int]) error { return nil })},
		"panic":              {task: gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error { panic("no") })},
		"goexit":             {task: gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error { runtime.Goexit(); return nil })},
		"replaced while it runs": {
			task: gworker.NewRawTask("x", func(ctx context.Context, job *gworker.RawJob) error {
				_, err := job.Client().AddJob(ctx, gworker.JobSpec{Task: "elsewhere", Key: job.Key})
				return err
			}),
			spec: gworker.JobSpec{Key: "k"},
		},
		"removed while it runs": {
			task: gworker.NewRawTask("x", func(ctx context.Context, job *gworker.RawJob) error {
				_, err := job.Client().RemoveJob(ctx, job.Key)
				return errors.Join(err, errors.New("no"))
			}),
			spec: gworker.JobSpec{Key: "k"},
		},
		"a SQL task":            {task: sqlTask(t, "select 1")},
		"a SQL task that fails": {task: sqlTask(t, "select 1/0")},
	} {
		t.Run(name, func(t *testing.T) {
			pool := migrated(t)
			client := newClient(t, pool)
			c.spec.Task, c.spec.Queue = "x", "q"
			add(t, client, c.spec)
			next := add(t, client, gworker.JobSpec{Task: "next", Queue: "q"})
			// The freed queue wakes the worker by itself.
			worker := start(t, gworker.Config{
				Pool: pool, PollInterval: time.Hour, Tasks: []gworker.Task{c.task, gworker.NewRawTask("next", nothing)},
			})
			waitFor(t, worker.Events, func(e event.JobCompleted) bool { return e.Job.ID == next.ID })
			wantQueueLockedBy(t, pool, "")
		})
	}
	t.Run("returned at a shutdown", func(t *testing.T) {
		pool := migrated(t)
		client := newClient(t, pool)
		first := add(t, client, gworker.JobSpec{Task: "x", Queue: "q"})
		add(t, client, gworker.JobSpec{Task: "x", Queue: "q"})
		started := make(chan struct{})
		worker := start(t, gworker.Config{Pool: pool, GracefulShutdownAbortTimeout: time.Millisecond, Tasks: []gworker.Task{
			gworker.NewRawTask("x", func(ctx context.Context, _ *gworker.RawJob) error { close(started); <-ctx.Done(); return ctx.Err() }),
		}})
		<-started
		if err := worker.Stop(); err != nil {
			t.Error(err)
		}
		wantQueueLockedBy(t, pool, "")
		// It is the first of its queue still.
		var order []int64
		runOnce(t, gworker.Config{Pool: pool, Concurrency: 1, Tasks: []gworker.Task{
			gworker.NewRawTask("x", func(_ context.Context, job *gworker.RawJob) error { order = append(order, job.ID); return nil }),
		}})
		if len(order) != 2 || order[0] != first.ID {
			t.Errorf("ran in the order %v", order)
		}
	})
	for name, taken := range map[string]string{
		"lost":             "update graphile_worker._private_jobs set locked_by = 'other'; update graphile_worker._private_job_queues set locked_by = 'other'",
		"ended by another": "delete from graphile_worker._private_jobs; update graphile_worker._private_job_queues set locked_by = 'other'",
		"its queue lost":   "update graphile_worker._private_job_queues set locked_by = 'other'",
	} {
		for outcome, failure := range map[string]error{"completed": nil, "failed": errors.New("no")} {
			t.Run(name+", "+outcome, func(t *testing.T) {
				pool := migrated(t)
				add(t, newClient(t, pool), gworker.JobSpec{Task: "x", Queue: "q"})
				runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
					gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error { exec(t, pool, taken); return failure }),
				}})
				wantQueueLockedBy(t, pool, "other") // whose it is now
			})
		}
	}
}

func sqlTask(t *testing.T, statements string) gworker.Task {
	t.Helper()
	files, err := gworker.LoadTasksFS(fstest.MapFS{"x.sql": {Data: []byte(statements)}})
	if err != nil {
		t.Fatal(err)
	}
	return files.Tasks[0]
}

func wantQueueLockedBy(t *testing.T, pool *pgxpool.Pool, want string) {
	t.Helper()
	var by string
	var locked, available bool
	scan(t, pool, `select coalesce(locked_by, ''), locked_at is not null, is_available
		from graphile_worker._private_job_queues where queue_name = 'q'`, nil, &by, &locked, &available)
	if by != want || locked != (want != "") || available != (want == "") {
		t.Errorf("the queue is locked by %q (locked %v, available %v), want %q", by, locked, available, want)
	}
}
