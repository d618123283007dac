package scheduler

import (
	"context"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
)

// TestTheLoopDoesNotWaitForFlags: while user code says which flags are forbidden, the loop
// goes on, as it is what ends held claims. The job that waits is decided about then.
func TestTheLoopDoesNotWaitForFlags(t *testing.T) {
	release := make(chan struct{})
	s := New(Config{
		Concurrency: 1, Handlers: map[string]Handler{"x": nil}, Events: eventstream.New(), StatementTimeout: time.Hour,
		Flags: Flags{Ask: func(context.Context) ([]string, error) {
			<-release
			return []string{"f"}, nil
		}},
	})
	s.local.put([]*job.Claimed{{Row: job.Row{ID: 1, Task: "x", Flags: []string{"f"}}}})
	l, goesOn := &loop{Scheduler: s}, make(chan struct{})
	go func() {
		l.startWaiting(t.Context())
		close(goesOn)
	}()
	select {
	case <-goesOn:
	case <-time.After(30 * time.Second):
		close(release)
		t.Fatal("the loop waits for user code")
	}
	if s.local.len() != 1 || l.mayLock() {
		t.Error("the job is not kept until its flags are decided about")
	}
	close(release)
	s.background.ended(<-s.background.done)
	if s.local.len() != 0 || s.completer.Pending() != 1 || s.pool.running() != 0 {
		t.Error("a job with a flag that is forbidden by now does not go back")
	}
}
