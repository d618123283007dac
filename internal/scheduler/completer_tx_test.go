package scheduler_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// TestTransactionThatTheServerDoesNotKnow, as after a failover that lost it: the
// row is still there, so nothing is complete. It holds up no other outcome.
func TestTransactionThatTheServerDoesNotKnow(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"x": func(_ context.Context, j *job.Claimed) job.Outcome {
		j.SetCompletion(1 << 40) // far in the future
		return job.Outcome{Kind: job.Completed}
	}, "y": completes})
	f.exec(t, "select graphile_worker.add_job('x') from generate_series(1, 2)")
	f.exec(t, "select graphile_worker.add_job('y')")
	stop := run(t, scheduler.New(f.config))
	completed, failed := 0, 0
	for completed < 1 || failed < 2 {
		switch e := wait[event.Event](t, f).(type) {
		case event.JobCompleted:
			completed++
			if e.Job.Task != "y" {
				t.Fatalf("%q is reported as completed", e.Job.Task)
			}
		case event.JobFailed:
			failed++
			if !errors.Is(e.Err, completer.ErrNotCommitted) {
				t.Errorf("failed with %v", e.Err)
			}
		}
	}
	stop()
	if n := f.jobs(t); n != 2 {
		t.Errorf("%d jobs left, want 2", n)
	}
}

// TestCompletionUnderWay: the run has ended before the completion's answer came,
// so nobody knows the transaction yet.
func TestCompletionUnderWay(t *testing.T) {
	ran := make(chan *job.Claimed, 1)
	f := newFixture(t, map[string]scheduler.Handler{"x": func(_ context.Context, j *job.Claimed) job.Outcome {
		j.SetCompletion(job.Completing)
		ran <- j
		return job.Outcome{Kind: job.Completed}
	}})
	f.exec(t, "select graphile_worker.add_job('x')")
	s := scheduler.New(f.config)
	stop := run(t, s)
	if delayed := wait[event.OutcomesDelayed](t, f); !strings.Contains(delayed.Err.Error(), "still open") {
		t.Errorf("delayed because of %v", delayed.Err)
	}
	(<-ran).SetCompletion(0)
	s.DatabaseBack()
	wait[event.JobCompleted](t, f)
	stop()
	if n := f.jobs(t); n != 0 {
		t.Errorf("%d jobs left", n)
	}
}
