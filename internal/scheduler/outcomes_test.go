package scheduler_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

// TestOneBadOutcomeDoesNotHoldUpOthers: a trigger of the operator's refuses one
// row of a group.
func TestOneBadOutcomeDoesNotHoldUpOthers(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"x": completes})
	f.config.StatementTimeout = 10 * time.Millisecond // what the shutdown gives to the last outcomes
	f.config.Concurrency = 10
	f.exec(t, `create function refuse() returns trigger language plpgsql as $$ begin
		if old.priority = 5 then raise exception 'not this one'; end if; return old; end $$`)
	f.exec(t, `create trigger refuse before delete on graphile_worker._private_jobs for each row execute function refuse()`)
	f.exec(t, "select graphile_worker.add_job('x', priority => n) from generate_series(1, 9) n")
	stop := run(t, scheduler.New(f.config))
	// The refusal is known before the shutdown, which may end in the midst of the
	// last try.
	for completed, delayed := 0, false; completed < 8 || !delayed; {
		switch wait[event.Event](t, f).(type) {
		case event.JobCompleted:
			completed++
		case event.OutcomesDelayed:
			delayed = true
		}
	}
	stop()
	abandoned := wait[event.OutcomesAbandoned](t, f)
	if len(abandoned.JobIDs) != 1 || !strings.Contains(abandoned.Err.Error(), "not this one") {
		t.Errorf("abandoned %v: %v", abandoned.JobIDs, abandoned.Err)
	}
	if n := f.jobs(t); n != 1 {
		t.Errorf("%d jobs left, want the refused one", n)
	}
}

// TestRefusedOutcomeDoesNotHoldUpLaterOnes: the refused one is alone in its
// group and waits for its next try when the others end.
func TestRefusedOutcomeDoesNotHoldUpLaterOnes(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"x": completes})
	f.config.StatementTimeout = 10 * time.Millisecond
	f.exec(t, `create function refuse() returns trigger language plpgsql as $$ begin
		if old.priority = 5 then raise exception 'not this one'; end if; return old; end $$`)
	f.exec(t, `create trigger refuse before delete on graphile_worker._private_jobs for each row execute function refuse()`)
	f.exec(t, "select graphile_worker.add_job('x', priority => 5)")
	s := scheduler.New(f.config)
	stop := run(t, s)
	wait[event.OutcomesDelayed](t, f)
	f.exec(t, "select graphile_worker.add_job('x', priority => n) from generate_series(1, 4) n")
	s.Wake()
	for range 4 {
		wait[event.JobCompleted](t, f)
	}
	f.exec(t, "drop trigger refuse on graphile_worker._private_jobs")
	s.DatabaseBack()
	wait[event.JobCompleted](t, f)
	stop()
	if n := f.jobs(t); n != 0 {
		t.Errorf("%d jobs left", n)
	}
}

// TestJobClaimedAgainBesideItsLostRun: its lock was taken away, and this same
// worker claims it again while the first run goes on.
func TestJobClaimedAgainBesideItsLostRun(t *testing.T) {
	var runs atomic.Int32
	started, release, told := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	f := newFixture(t, map[string]scheduler.Handler{"x": func(ctx context.Context, _ *job.Claimed) job.Outcome {
		if runs.Add(1) == 1 {
			close(started)
			<-ctx.Done()
			told <- context.Cause(ctx)
			<-release
		}
		return job.Outcome{Kind: job.Completed}
	}})
	f.config.Concurrency = 2
	f.exec(t, "select graphile_worker.add_job('x')")
	s := scheduler.New(f.config)
	stop := run(t, s)
	<-started
	f.exec(t, "select graphile_worker.force_unlock_workers(array[(select locked_by from graphile_worker._private_jobs)])")
	s.Wake()
	if err := <-told; err == nil || !strings.Contains(err.Error(), "claimed again") {
		t.Errorf("the lost run was told %v", err)
	}
	wait[event.JobCompleted](t, f)
	close(release)
	lost := wait[event.JobLost](t, f)
	stop()
	if n := len(s.Running()); n != 0 || lost.Unsure || runs.Load() != 2 || f.jobs(t) != 0 {
		t.Errorf("%d running, %d runs, %d jobs left, %+v", n, runs.Load(), f.jobs(t), lost)
	}
}
