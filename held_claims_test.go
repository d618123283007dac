package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testworker"
)

// A job is told of by the same events whether it is held or locked, and they carry
// its lock: what is written for a locked job, and would be for a held one.
func TestEventsOfHeldJobs(t *testing.T) {
	t.Parallel()
	var told [2]map[int64][]string
	for i, hold := range []time.Duration{0, 10 * time.Second} {
		pool := migrated(t)
		client := newClient(t, pool)
		var locked atomic.Int32
		var specs []gworker.JobSpec
		for n, ends := range []string{"done", "failed", "failed for good", "panicked", "snoozed"} {
			specs = append(specs, gworker.JobSpec{Task: "a", Payload: ends, Queue: fmt.Sprint("queue ", n%2)})
		}
		specs[2].MaxAttempts = 1
		handler := func(ctx context.Context, j *gworker.Job[string]) error {
			var written bool
			if err := pool.QueryRow(ctx, "select locked_at is not null from graphile_worker._private_jobs where id = $1", j.ID).Scan(&written); err != nil {
				return err
			}
			if written {
				locked.Add(1)
			}
			switch j.Payload {
			case "failed", "failed for good":
				return errors.New(j.Payload)
			case "panicked":
				panic("!")
			case "snoozed":
				return gworker.Snooze(time.Hour)
			}
			return nil
		}
		told[i] = map[int64][]string{}
		w := start(t, gworker.Config{Pool: pool, HoldTime: &hold, Concurrency: 1, Tasks: []gworker.Task{gworker.NewTask("a", handler)}})
		run := func(spec gworker.JobSpec) (id int64) {
			id = add(t, client, spec).ID
			waitFor(t, w.Events, func(e event.Event) bool {
				switch e := e.(type) {
				case event.JobCompleted:
					return e.Job.ID == id
				case event.JobFailed:
					return e.Job.ID == id
				case event.JobPermanentlyFailed:
					return e.Job.ID == id
				case event.JobSnoozed:
					return e.Job.ID == id
				}
				return false
			})
			return id
		}
		// The first job of a task is not held, nor is any before there is a connection to.
		warm := run(gworker.JobSpec{Task: "a", Payload: "warm"})
		for patient := time.Now().Add(patience); hold != 0 && locked.Swap(0) > 0; {
			if time.Now().After(patient) {
				t.Fatal("no job was held")
			}
			warm = run(gworker.JobSpec{Task: "a", Payload: "warm"})
		}
		locked.Store(0)
		for _, spec := range specs {
			run(spec)
		}
		if err := w.Stop(); err != nil {
			t.Fatal(err)
		}
		if n := locked.Load(); hold == 0 && n != int32(len(specs)) || hold != 0 && n != 0 {
			t.Errorf("with a hold time of %s %d of %d jobs were locked", hold, n, len(specs))
		}
		seen, _ := w.Events.Seen()
		for _, e := range seen {
			note := func(worker string, c *event.Job, more ...any) {
				if c.ID <= warm {
					return
				}
				at, n := c.LockedAt, c.ID-warm
				told[i][n] = append(told[i][n], fmt.Sprintf("%T: attempt %d, by this worker %t, at a time %t, %v",
					e, c.Attempts, c.LockedBy == w.ID() && worker == w.ID(), !at.Before(c.RunAt), more))
			}
			switch e := e.(type) {
			case event.JobStarted:
				note(e.WorkerID, e.Job)
			case event.JobEnded:
				note(e.WorkerID, e.Job, e.Result)
			case event.JobCompleted:
				note(e.WorkerID, e.Job)
			case event.JobFailed:
				note(e.WorkerID, e.Job, e.Err.Error()[:1], e.NextRunAt.After(e.Job.RunAt))
			case event.JobPermanentlyFailed:
				note(e.WorkerID, e.Job, e.Err)
			case event.JobSnoozed:
				note(e.WorkerID, e.Job, e.For, e.Retired)
			}
		}
	}
	if diff := cmp.Diff(told[0], told[1]); diff != "" {
		t.Errorf("the events (-locked +held):\n%s", diff)
	}
	if len(told[1]) != 5 {
		t.Errorf("events came of %d jobs", len(told[1]))
	}
	for id, lines := range told[1] {
		if len(lines) != 3 {
			t.Errorf("of job %d: %q", id, lines)
		}
	}
}

// TestJobsAreHeldByDefault: sooner or later a job runs whose row shows no lock. On
// a busy machine one may run for longer than the hold time.
func TestJobsAreHeldByDefault(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	held := make(chan struct{}, 1)
	w := start(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask("x", func(_ context.Context, job *gworker.RawJob) error {
		if !testworker.IsLocked(t, pool, job.ID) {
			select {
			case held <- struct{}{}:
			default:
			}
		}
		return nil
	})}})
	timeout := time.After(patience)
	for {
		job := add(t, client, gworker.JobSpec{Task: "x"})
		waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
		select {
		case <-held:
			return
		case <-timeout:
			t.Fatal("no job was held")
		default:
		}
	}
}

// TestWhichJobsAreLockedFirst: those that take an outage better than a second run,
// and those whose worker has died before; all of them where each dead worker's job
// is to be decided about.
func TestWhichJobsAreLockedFirst(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	long := new(10 * time.Second)
	for _, c := range []struct {
		name   string
		config gworker.Config
		want   string
	}{
		{"default flags", gworker.Config{HoldTime: long}, "plain held, recovered locked, resilient locked"},
		{"no flags", gworker.Config{HoldTime: long, Recovery: gworker.RecoveryConfig{ResilientFlags: []string{}}},
			"plain held, recovered locked, resilient held"},
		{"off", gworker.Config{HoldTime: new(time.Duration)}, "plain locked, recovered locked, resilient locked"},
		{"decided about", gworker.Config{Recovery: gworker.RecoveryConfig{
			Decide: func(context.Context, gworker.RecoverableJob) (d gworker.RecoveryDecision) { return d },
		}}, "plain locked, recovered locked, resilient locked"},
		{"decided about another task", gworker.Config{HoldTime: long, Recovery: gworker.RecoveryConfig{
			Decide:      func(context.Context, gworker.RecoverableJob) (d gworker.RecoveryDecision) { return d },
			DecideTasks: []string{"y"},
		}}, "plain held, recovered locked, resilient locked"},
		{"decided about this task", gworker.Config{HoldTime: long, Recovery: gworker.RecoveryConfig{
			Decide:      func(context.Context, gworker.RecoverableJob) (d gworker.RecoveryDecision) { return d },
			DecideTasks: []string{"x"},
		}}, "plain locked, recovered locked, resilient locked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := migrated(t)
			client := newClient(t, pool)
			var seen []string
			config := c.config
			config.Pool, config.Concurrency = pool, 1 // the handler's writes come one after another
			config.PollInterval = time.Hour           // a claim of a poll locks
			config.Tasks = []gworker.Task{gworker.NewTask("x", func(_ context.Context, job *gworker.Job[string]) error {
				how := "held"
				if testworker.IsLocked(t, pool, job.ID) {
					how = "locked"
				}
				seen = append(seen, job.Payload+" "+how)
				return nil
			})}
			w := start(t, config)
			warm := func() string {
				first := add(t, client, gworker.JobSpec{Task: "x", Payload: "warm"})
				waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == first.ID })
				return seen[len(seen)-1]
			}
			if first := warm(); first != "warm locked" {
				t.Errorf("saw first %s", first)
			}
			// None is held before there is a connection to.
			for patient := time.Now().Add(patience); strings.Contains(c.want, "held") && warm() == "warm locked"; {
				if time.Now().After(patient) {
					t.Fatal("no job was held")
				}
			}
			seen = nil
			// One after another: a job that waits for its lock ends the claim of all.
			for _, spec := range []gworker.JobSpec{
				{Task: "x", Payload: "plain"},
				{Task: "x", Payload: "resilient", Flags: []string{gworker.DefaultResilientFlag}},
				{Task: "x", Payload: "recovered"},
			} {
				tx, err := pool.Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = tx.Rollback(context.Background()) }()
				job := add(t, client.WithTx(tx), spec)
				if _, err := tx.Exec(t.Context(), `update graphile_worker._private_jobs
					set last_error = 'Job recovered after worker interruption (1 time in a row)'
					where payload::text = '"recovered"'`); err != nil {
					t.Fatal(err)
				}
				if err := tx.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
				waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
			}
			if err := w.Stop(); err != nil {
				t.Fatal(err)
			}
			if strings.Join(slices.Sorted(slices.Values(seen)), ", ") != c.want {
				t.Errorf("saw %v, want %s", seen, c.want)
			}
		})
	}
}
