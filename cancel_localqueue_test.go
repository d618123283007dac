package gworker_test

import (
	"context"
	"testing"

	"github.com/gworker/gworker"
)

// TestCancelJobOfTheLocalQueue: a job that was claimed ahead of its slot never
// starts, and nothing behind it waits for it.
func TestCancelJobOfTheLocalQueue(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	var jobs []*gworker.JobRow
	for range 3 {
		jobs = append(jobs, add(t, client, gworker.JobSpec{Task: "slow"}))
	}
	pass := make(chan struct{}, len(jobs))
	w := start(t, gworker.Config{
		Pool: pool, Concurrency: 1, LocalQueue: gworker.LocalQueueConfig{Size: 10}, Recovery: deaf,
		Tasks: []gworker.Task{gworker.NewTask("slow", func(context.Context, *gworker.Job[any]) error {
			<-pass
			return nil
		})},
	})
	waitFor(t, w.events, func(e gworker.JobStarted) bool { return e.Job.ID == jobs[0].ID })
	waitFor[gworker.ListenerConnected](t, w.events, nil)

	cancelJob(t, client, jobs[1].ID, "not wanted", gworker.CancelRequested)
	failed := waitFor[gworker.JobPermanentlyFailed](t, w.events, nil)
	if failed.Job.ID != jobs[1].ID {
		t.Errorf("job %d failed, want %d", failed.Job.ID, jobs[1].ID)
	}
	for range jobs {
		pass <- struct{}{}
	}
	waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == jobs[2].ID })
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if n := count[gworker.JobStarted](w.events); n != 2 {
		t.Errorf("%d jobs started, want 2", n)
	}
	var lastError string
	scan(t, pool, `select last_error from graphile_worker._private_jobs
		where attempts >= max_attempts and locked_at is null and flags is null`, nil, &lastError)
	if lastError != "not wanted" {
		t.Errorf("the last error is %q", lastError)
	}
}
