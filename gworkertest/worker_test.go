package gworkertest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/gworkertest"
)

func TestWaitForJobsThatEndBeforeAndAfter(t *testing.T) {
	gate := make(chan struct{})
	worker := gworkertest.StartWorker(t, gworker.Config{Concurrency: 2, Tasks: []gworker.Task{
		gworker.NewRawTask("quick", nothing),
		gworker.NewRawTask("slow", func(context.Context, *gworker.RawJob) error { <-gate; return nil }),
	}})
	slow := add(t, worker.Client(), gworker.JobSpec{Task: "slow"})
	quick := []*gworker.JobRow{add(t, worker.Client(), gworker.JobSpec{Task: "quick"}), add(t, worker.Client(), gworker.JobSpec{Task: "quick"})}
	for _, job := range []*gworker.JobRow{quick[1], quick[0]} { // one of them has ended before
		if r := worker.WaitRun(t.Context(), job.ID); r.Outcome != gworkertest.Completed || r.Job.ID != job.ID || r.Job.LockedBy != worker.ID() {
			t.Error(r)
		}
	}
	close(gate)
	if r := worker.WaitJob(t.Context(), slow.ID); r.Outcome != gworkertest.Completed || r.Err != nil {
		t.Error(r)
	}
}

func TestWaitForEachRunOfAJob(t *testing.T) {
	pool := gworkertest.Pool(t)
	worker := gworkertest.StartWorker(t, gworker.Config{
		Pool: pool,
		Tasks: []gworker.Task{gworker.NewRawTask("x", func(_ context.Context, job *gworker.RawJob) error {
			if job.Attempts < 3 || job.LastAttempt() {
				return errors.New("not yet")
			}
			return nil
		})},
		Observers: []func(event.Event){func(e event.Event) {
			if _, failed := e.(event.JobFailed); failed { // try again at once
				if _, err := pool.Exec(context.Background(), "update graphile_worker._private_jobs set run_at = now()"); err != nil {
					t.Error(err)
				}
			}
		}},
	})
	job := add(t, worker.Client(), gworker.JobSpec{Task: "x"})
	for attempt := 1; attempt <= 3; attempt++ {
		r := worker.WaitRun(t.Context(), job.ID)
		failed := attempt < 3
		if r.Job.Attempts != attempt || (r.Outcome == gworkertest.Failed) != failed || (r.Err != nil) != failed || r.NextRunAt.IsZero() == failed {
			t.Errorf("%v, next at %s", r, r.NextRunAt)
		}
	}
	// Waiting for the job passes over the runs before its last.
	job = add(t, worker.Client(), gworker.JobSpec{Task: "x", MaxAttempts: 2})
	if r := worker.WaitJob(t.Context(), job.ID); r.Outcome != gworkertest.PermanentlyFailed || r.Job.Attempts != 2 || r.Err == nil {
		t.Error(r)
	}
}

func TestWaitForJobsThatDecideTheirEnd(t *testing.T) {
	no := errors.New("no ink")
	worker := gworkertest.StartWorker(t, gworker.Config{Tasks: []gworker.Task{
		gworker.NewRawTask("snoozes", func(_ context.Context, job *gworker.RawJob) error {
			if job.Priority == 0 {
				return gworker.Snooze(time.Hour)
			}
			return nil
		}),
		gworker.NewRawTask("cancels", func(context.Context, *gworker.RawJob) error { return gworker.Discard(no) }),
		gworker.NewRawTask("removed", func(ctx context.Context, job *gworker.RawJob) error {
			if _, err := job.Client().RemoveJob(ctx, job.Key); err != nil {
				return err
			}
			return gworker.Snooze(time.Hour)
		}),
	}})
	client := worker.Client()
	id := add(t, client, gworker.JobSpec{Task: "snoozes"}).ID
	r := worker.WaitRun(t.Context(), id)
	if r.Outcome != gworkertest.Snoozed || r.Delay == nil || *r.Delay != time.Hour || r.Err == nil || r.Job.Attempts != 1 {
		t.Errorf("%v, waits for %v", r, r.Delay)
	}
	// A snoozed job is not over.
	one := 1
	if _, err := client.RescheduleJobs(t.Context(), []int64{id}, gworker.RescheduleOptions{RunAt: new(time.Time), Priority: &one}); err != nil {
		t.Fatal(err)
	}
	if r := worker.WaitJob(t.Context(), id); r.Outcome != gworkertest.Completed || r.Job.Attempts != 1 {
		t.Error(r)
	}
	id = add(t, client, gworker.JobSpec{Task: "cancels"}).ID
	if r := worker.WaitRun(t.Context(), id); r.Outcome != gworkertest.PermanentlyFailed || !errors.Is(r.Err, no) || r.Job.Attempts != 1 {
		t.Error(r)
	}
	// What goes back and was removed meanwhile is over.
	id = add(t, client, gworker.JobSpec{Task: "removed", Key: "k"}).ID
	if r := worker.WaitJob(t.Context(), id); r.Outcome != gworkertest.Snoozed {
		t.Error(r)
	}
}

func TestWaitInVainSaysWhatIsKnown(t *testing.T) {
	tasks := []gworker.Task{gworker.NewRawTask("fails", func(context.Context, *gworker.RawJob) error { return errors.New("no ink") })}
	worker := gworkertest.StartWorker(t, gworker.Config{Tasks: tasks})
	job := add(t, worker.Client(), gworker.JobSpec{Task: "fails"})
	worker.WaitRun(t.Context(), job.ID)
	other := add(t, worker.Client(), gworker.JobSpec{Task: "unknown", Queue: "q"})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	// A worker's own test is the one that fails: this one asks by another.
	for says, id := range map[string]int64{
		"Seen: attempt 1 of job 1 (fails) failed: no ink.": job.ID,
		`task "unknown", attempt 0 of 25`:                  other.ID,
		"It is not in the database":                        1 << 40,
	} {
		wantFailure(t, func(t testing.TB) { worker.For(t).WaitJob(ended, id) }, "has not ended job", says)
	}
	worker.Stop()
	wantFailure(t, func(t testing.TB) { worker.For(t).WaitJob(context.Background(), other.ID) }, "the worker has stopped (error: <nil>)", `task "unknown"`)
}

func TestWorkerThatCannotStart(t *testing.T) {
	wantFailure(t, func(t testing.TB) { gworkertest.StartWorker(t, gworker.Config{}) }, "Config.Tasks is empty")
	f := watch(t, func(t testing.TB) {
		gworkertest.StartWorker(t, gworker.Config{
			DatabaseURL: "postgres://127.0.0.1:1/none", ConnectTimeout: time.Millisecond,
			Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)},
		})
	})
	if len(f.said) == 0 || !strings.Contains(f.said[0], "the worker did not start: connecting to the database") {
		t.Errorf("it said %q", f.said)
	}
}

func TestHandlerThatIgnoresItsContext(t *testing.T) {
	defer gworkertest.Impatient(10 * time.Millisecond)()
	started, release, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	wantFailure(t, func(t testing.TB) {
		worker := gworkertest.StartWorker(t, gworker.Config{
			GracefulShutdownAbortTimeout: time.Millisecond,
			Tasks: []gworker.Task{gworker.NewRawTask("x", func(_ context.Context, job *gworker.RawJob) error {
				close(started)
				<-release
				job.Logger().Info("after the end of the test")
				close(ended)
				return nil
			})},
		})
		add(t, worker.Client(), gworker.JobSpec{Task: "x"})
		<-started
	}, "a handler ignores that its context has ended")
	close(release)
	<-ended
}

func TestWorkerInAnotherSchema(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	worker := gworkertest.StartWorker(t, gworker.Config{Schema: "elsewhere", Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	if r := worker.WaitJob(t.Context(), add(t, worker.Client(), gworker.JobSpec{Task: "x"}).ID); r.Outcome != gworkertest.Completed {
		t.Error(r)
	}
}
