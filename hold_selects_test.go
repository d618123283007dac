package gworker_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testworker"
)

// holds adds jobs until one runs that is held.
type holds struct {
	pool *pgxpool.Pool
	held sync.Map // tasks of which a job was held
}

// task is a task whose jobs note whether they are held, and then run handle.
func (h *holds) task(t *testing.T, name string, options gworker.TaskOptions, handle func(*gworker.RawJob) error) gworker.Task {
	return gworker.NewRawTask(name, func(_ context.Context, job *gworker.RawJob) error {
		if !testworker.IsLocked(t, h.pool, job.ID) {
			h.held.Store(name, true)
		}
		if handle == nil {
			return nil
		}
		return handle(job)
	}).With(options)
}

func (h *holds) until(t *testing.T, w *testworker.Worker, client *gworker.Client, spec gworker.JobSpec) {
	t.Helper()
	for patient := time.Now().Add(patience); ; {
		job := add(t, client, spec)
		waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
		if _, held := h.held.Load(spec.Task); held {
			return
		}
		if time.Now().After(patient) {
			t.Fatalf("no job of %s was held", spec.Task)
		}
	}
}

// TestTaskLimitsHoldJobs: a Concurrency of one task's own holds with held claims, of that
// task and of others, in claims that overlap.
func TestTaskLimitsHoldJobs(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	h := &holds{pool: pool}
	var now, most, ran atomic.Int32
	w := start(t, gworker.Config{Pool: pool, Concurrency: 8, PollInterval: time.Hour, Tasks: []gworker.Task{
		h.task(t, "free", gworker.TaskOptions{}, nil),
		h.task(t, "limited", gworker.TaskOptions{Concurrency: 2}, func(*gworker.RawJob) error {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Millisecond) // so that runs overlap
			ran.Add(1)
			return nil
		}),
	}})
	h.until(t, w, client, gworker.JobSpec{Task: "free"})
	h.until(t, w, client, gworker.JobSpec{Task: "limited"})
	before := ran.Load()
	var specs []gworker.JobSpec
	for i := range 300 {
		spec := gworker.JobSpec{Task: "limited", Payload: i}
		if i%3 == 0 {
			spec.Queue = fmt.Sprintf("q%d", i%10)
		}
		specs = append(specs, spec, gworker.JobSpec{Task: "free"}, gworker.JobSpec{Task: "free", Queue: fmt.Sprintf("p%d", i%7)})
	}
	if _, err := client.AddJobs(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	var left int
	for patient := time.Now().Add(patience); ; {
		scan(t, pool, "select count(*) from graphile_worker._private_jobs", nil, &left)
		if left == 0 {
			break
		}
		if time.Now().After(patient) {
			t.Fatalf("%d jobs are left", left)
		}
	}
	w.Stop()
	if most.Load() != 2 || ran.Load()-before != 300 {
		t.Errorf("%d jobs ran, at most %d at once", ran.Load()-before, most.Load())
	}
}

// TestFlagsHoldJobs: which flags are forbidden, or accepted, holds with held claims.
func TestFlagsHoldJobs(t *testing.T) {
	var forbidden atomic.Bool
	forbidden.Store(true)
	ask := func(context.Context) ([]string, error) {
		if forbidden.Load() {
			return []string{"f"}, nil
		}
		return nil, nil
	}
	for _, c := range []struct {
		name      string
		config    gworker.Config
		yes, no   []string // flags of jobs that run, and of those that do not
		asksAgain bool
	}{
		{"forbidden", gworker.Config{ForbiddenFlags: []string{"f"}}, []string{"g"}, []string{"f", "g"}, false},
		{"accepted", gworker.Config{AcceptedFlags: []string{"g"}}, []string{"f", "g"}, []string{"f"}, false},
		{"asked", gworker.Config{ForbiddenFlagsFunc: ask}, []string{"g"}, []string{"f"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := migrated(t)
			client := newClient(t, pool)
			h := &holds{pool: pool}
			config := c.config
			config.Pool, config.PollInterval = pool, time.Hour
			config.Tasks = []gworker.Task{h.task(t, "x", gworker.TaskOptions{}, func(job *gworker.RawJob) error {
				if slices.Equal(job.Flags, c.no) && (forbidden.Load() || !c.asksAgain) {
					t.Errorf("a job with the flags %v ran", job.Flags)
				}
				return nil
			})}
			w := start(t, config)
			no := add(t, client, gworker.JobSpec{Task: "x", Flags: c.no, Priority: -1})
			h.until(t, w, client, gworker.JobSpec{Task: "x", Flags: c.yes})
			if c.asksAgain {
				forbidden.Store(false)
				add(t, client, gworker.JobSpec{Task: "x"})
				waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == no.ID })
			}
			w.Stop()
			var left int
			scan(t, pool, "select count(*) from graphile_worker._private_jobs where id = $1", []any{no.ID}, &left)
			if (left == 1) == c.asksAgain {
				t.Errorf("%d jobs with the flags %v are left", left, c.no)
			}
		})
	}
}

// TestOwnClockHoldsJobs: the times of held jobs go by the worker's clock, here an hour
// ahead.
func TestOwnClockHoldsJobs(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	h := &holds{pool: pool}
	ahead := func() time.Time { return time.Now().Add(time.Hour) }
	release, spilled := make(chan struct{}), make(chan struct{})
	fails := true
	w := start(t, gworker.Config{Pool: pool, Now: ahead, Tasks: []gworker.Task{
		h.task(t, "x", gworker.TaskOptions{}, nil),
		h.task(t, "fails", gworker.TaskOptions{}, func(job *gworker.RawJob) error {
			if string(job.Payload) == `"now"` && fails {
				fails = false
				return fmt.Errorf("fails")
			}
			return nil
		}),
		h.task(t, "long", gworker.TaskOptions{}, func(job *gworker.RawJob) error {
			if string(job.Payload) == `"now"` {
				close(spilled)
				<-release
			}
			return nil
		}),
	}})
	for _, task := range []string{"x", "fails", "long"} {
		h.until(t, w, client, gworker.JobSpec{Task: task})
	}
	soon := add(t, client, gworker.JobSpec{Task: "x", RunAt: time.Now().Add(30 * time.Minute)})
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == soon.ID })

	failing := add(t, client, gworker.JobSpec{Task: "fails", Payload: "now"})
	failed := waitFor(t, w.Events, func(e event.JobFailed) bool { return e.Job.ID == failing.ID })
	if wait := time.Until(failed.NextRunAt); wait < 50*time.Minute || wait > 70*time.Minute {
		t.Errorf("the next run is in %s", wait)
	}

	long := add(t, client, gworker.JobSpec{Task: "long", Payload: "now"})
	<-spilled
	var locked time.Time
	for patient := time.Now().Add(patience); !testworker.IsLocked(t, pool, long.ID); {
		if time.Now().After(patient) {
			t.Fatal("the lock of a long job is not written")
		}
	}
	scan(t, pool, "select locked_at from graphile_worker._private_jobs where id = $1", []any{long.ID}, &locked)
	if age := time.Since(locked); age > -50*time.Minute || age < -70*time.Minute {
		t.Errorf("it counts as locked %s ago", age)
	}
	close(release)
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == long.ID })
	w.Stop()
}
