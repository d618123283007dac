package scheduler_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

// TestOneBadOutcomeDoesNotHoldUpOthers: a trigger of the operator's refuses one
// row of a group.
func TestOneBadOutcomeDoesNotHoldUpOthers(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"x": completes})
	f.config.Concurrency = 10
	f.exec(t, `create function refuse() returns trigger language plpgsql as $$ begin
		if old.priority = 5 then raise exception 'not this one'; end if; return old; end $$`)
	f.exec(t, `create trigger refuse before delete on graphile_worker._private_jobs for each row execute function refuse()`)
	f.exec(t, "select graphile_worker.add_job('x', priority => n) from generate_series(1, 9) n")
	stop := run(t, scheduler.New(f.config))
	for completed, failed := 0, 0; completed < 8 || failed < 1; {
		switch e := wait[event.Event](t, f).(type) {
		case event.JobCompleted:
			completed++
		case event.JobFailed:
			failed++
			if e.Job.Priority != 5 || !strings.Contains(e.Err.Error(), "not this one") {
				t.Errorf("job with priority %d: %v", e.Job.Priority, e.Err)
			}
		}
	}
	stop()
	if n := f.jobs(t); n != 1 {
		t.Errorf("%d jobs left, want the refused one", n)
	}
}

// TestOutcomeThatIsRefusedInEveryForm: it holds up no other, not even those of its
// queue; it is written when it can be, and no shutdown waits for it.
func TestOutcomeThatIsRefusedInEveryForm(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"x": completes})
	f.exec(t, `create function refuse() returns trigger language plpgsql as $$ begin
		if old.priority = 5 and (tg_op = 'DELETE' or new.locked_at is null) then raise exception 'not this one'; end if;
		return coalesce(new, old); end $$`)
	f.exec(t, `create trigger refuse before update or delete on graphile_worker._private_jobs for each row execute function refuse()`)
	f.exec(t, "select graphile_worker.add_job('x', priority => 5, queue_name => 'q')")
	f.config.StatementTimeout = time.Hour
	s := scheduler.New(f.config)
	stop := run(t, s)
	if refused := wait[event.OutcomeRefused](t, f); refused.Stored != event.StoredQueueFreed {
		t.Errorf("stored %s", refused.Stored)
	}
	f.exec(t, "select graphile_worker.add_job('x', priority => n, queue_name => case when n = 1 then 'q' end) from generate_series(1, 4) n")
	s.Wake()
	for range 4 {
		wait[event.JobCompleted](t, f)
	}
	// The queue is another job's when the first outcome is written at last.
	f.exec(t, `update graphile_worker._private_job_queues set locked_by = 'gworker_test', locked_at = now() where queue_name = 'q'`)
	f.exec(t, "drop trigger refuse on graphile_worker._private_jobs")
	s.DatabaseBack()
	wait[event.JobCompleted](t, f)
	var locked bool
	if err := f.pool.QueryRow(t.Context(), "select locked_by is not null from graphile_worker._private_job_queues where queue_name = 'q'").Scan(&locked); err != nil || !locked {
		t.Errorf("the lock of the queue, which was another job's, is gone (%v)", err)
	}
	f.exec(t, `create trigger refuse before update or delete on graphile_worker._private_jobs for each row execute function refuse()`)
	f.exec(t, "select graphile_worker.add_job('x', priority => 5)")
	s.Wake()
	wait[event.OutcomeRefused](t, f)
	stop() // within less than a statement time-out
	if abandoned := wait[event.OutcomesAbandoned](t, f); len(abandoned.JobIDs) != 1 || !strings.Contains(abandoned.Err.Error(), "not this one") {
		t.Errorf("abandoned %v: %v", abandoned.JobIDs, abandoned.Err)
	}
}

// TestJobClaimedAgainDuringItsLostRun: its lock was taken away, and this same
// worker claims it again while the first run goes on.
func TestJobClaimedAgainDuringItsLostRun(t *testing.T) {
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
