package gworker_test

import (
	"context"
	"testing"
	"time"

	"github.com/gworker/gworker"
)

// TestWhatIsNoAnswerIsWaitedOut: the server may be unable to store the end of a held
// claim for now, as with a full disk: that is no answer to its jobs, and is waited out.
func TestWhatIsNoAnswerIsWaitedOut(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	exec(t, pool, "create table gate (); "+poisonTrigger("update or delete", "true", "lock table gate in share mode nowait"))
	client := newClient(t, pool)
	running, goOn := make(chan struct{}, 100), make(chan struct{})
	w := start(t, gworker.Config{Pool: pool, HoldTime: new(5 * time.Second), Concurrency: 2, Tasks: []gworker.Task{
		gworker.NewRawTask("x", func(ctx context.Context, job *gworker.RawJob) error {
			if string(job.Payload) == `{"bad":true}` {
				running <- struct{}{}
				select {
				case <-goOn:
				case <-ctx.Done():
				}
			}
			return nil
		}),
	}})
	for count[gworker.JobsClaimed](w.events) < 3 { // until jobs of the task are known to be short
		before := add(t, client, gworker.JobSpec{Task: "x"})
		waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == before.ID })
	}
	gate, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer gate.Rollback(context.Background())
	if _, err := gate.Exec(t.Context(), "lock table gate in exclusive mode"); err != nil {
		t.Fatal(err)
	}
	job := add(t, client, gworker.JobSpec{Task: "x", Payload: map[string]bool{"bad": true}})
	<-running
	close(goOn)
	waitFor[gworker.OutcomesDelayed](t, w.events, nil)
	if err := gate.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == job.ID })
	if n := count[gworker.OutcomeRefused](w.events); n > 0 {
		t.Errorf("%d outcomes were refused", n)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}
