package scheduler_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

func fails(context.Context, *job.Claimed) job.Outcome {
	return job.Outcome{Kind: job.Failed, Err: errors.New("no")}
}

// TestOutcomesLinger: completions wait longer than this test lasts, and
// failures do not wait; a shutdown writes what waits, in one statement.
func TestOutcomesLinger(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"done": completes, "fail": fails})
	f.config.CompletionDelay = patience
	f.config.Concurrency = 1 // so the ends do not come together
	f.exec(t, "select graphile_worker.add_job('done', priority => n) from generate_series(1, 5) n")
	f.exec(t, "select graphile_worker.add_job('fail', priority => n) from generate_series(6, 7) n")
	stop := run(t, scheduler.New(f.config))
	for range 2 {
		wait[event.JobFailed](t, f)
	}
	if n := f.jobs(t); n != 7 {
		t.Errorf("%d jobs left: completions did not wait", n)
	}
	stop()
	for range 5 {
		wait[event.JobCompleted](t, f)
	}
	if n := f.db.count("CompleteJobs"); n != 1 || f.jobs(t) != 2 {
		t.Errorf("5 completions took %d statements; %d jobs left", n, f.jobs(t))
	}
}

func TestFailuresLinger(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"done": completes, "fail": fails})
	f.config.FailureDelay = patience
	f.config.Concurrency = 1
	f.exec(t, "select graphile_worker.add_job('fail', priority => n) from generate_series(1, 3) n")
	f.exec(t, "select graphile_worker.add_job('done', priority => 4)")
	stop := run(t, scheduler.New(f.config))
	wait[event.JobCompleted](t, f)
	if n := f.db.count("FailJobs"); n != 0 {
		t.Errorf("%d statements for failures that should wait", n)
	}
	stop()
	if n := f.db.count("FailJobs"); n != 1 {
		t.Errorf("3 failures took %d statements", n)
	}
}

// TestLingeringEnds: the delay is over while the worker runs,
// and a named queue goes on after it.
func TestLingeringEnds(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"done": completes, "fail": fails})
	f.config.CompletionDelay, f.config.FailureDelay = time.Millisecond, 2*time.Millisecond
	f.config.PollInterval = patience
	f.exec(t, "select graphile_worker.add_job('done', queue_name => 'q') from generate_series(1, 10)")
	f.exec(t, "select graphile_worker.add_job('fail', max_attempts => 1) from generate_series(1, 3)")
	stop := run(t, scheduler.New(f.config))
	for completed, failed := 0, 0; completed < 10 || failed < 3; {
		select {
		case e := <-f.events:
			switch e.(type) {
			case event.JobCompleted:
				completed++
			case event.JobPermanentlyFailed:
				failed++
			}
		case <-time.After(patience):
			t.Fatalf("%d completed, %d failed", completed, failed)
		}
	}
	stop()
}

// TestRunOnceDoesNotLinger where no further outcome can come, with a delay longer
// than its own patience.
func TestRunOnceDoesNotLinger(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"done": completes, "fail": fails})
	f.config.CompletionDelay, f.config.FailureDelay, f.config.PollInterval = 2*patience, 2*patience, 2*patience
	f.exec(t, "select graphile_worker.add_job('done', queue_name => 'q' || n % 2) from generate_series(1, 6) n")
	f.exec(t, "select graphile_worker.add_job('fail')")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := scheduler.New(f.config).RunOnce(ctx); err != nil || ctx.Err() != nil {
		t.Fatal(err, ctx.Err())
	}
	if n := f.jobs(t); n != 1 {
		t.Errorf("%d jobs left, want the one that failed", n)
	}
}

// TestOutcomeThatWaitedIsTriedAgainAtItsTime: once it was due, it waits for the
// database alone.
func TestOutcomeThatWaitedIsTriedAgainAtItsTime(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"done": completes})
	f.config.CompletionDelay = 10 * time.Millisecond
	f.db.lose["CompleteJobs"] = 1
	f.exec(t, "select graphile_worker.add_job('done')")
	s := scheduler.New(f.config)
	stop := run(t, s)
	wait[event.OutcomesDelayed](t, f)
	s.DatabaseBack()
	if lost := wait[event.JobLost](t, f); !lost.Unsure {
		t.Errorf("%+v", lost)
	}
	stop()
}
