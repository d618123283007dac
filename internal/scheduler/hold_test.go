package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

// holdFor makes the fixture's scheduler hold jobs for so long.
func (f *fixture) holdFor(t time.Duration) {
	f.config.Hold = scheduler.Hold{
		Time: t, Statements: statement.NewSet(statement.Options{}),
		Connect: func(ctx context.Context) (*pgx.Conn, error) {
			return pgx.ConnectConfig(ctx, f.pool.Config().ConnConfig.Copy())
		},
	}
}

// warm has a job of each task run whose payload is "warm": the first job of a task
// is locked, and not held.
func (f *fixture) warm(t *testing.T) {
	t.Helper()
	var tasks []string
	for task, handler := range f.config.Handlers {
		tasks = append(tasks, task)
		f.config.Handlers[task] = func(ctx context.Context, j *job.Claimed) job.Outcome {
			if string(j.Payload) == `"warm"` {
				return job.Outcome{Kind: job.Completed}
			}
			return handler(ctx, j)
		}
	}
	f.exec(t, `select graphile_worker.add_job(task, '"warm"', priority => -1) from unnest($1::text[]) task`, tasks)
}

// warmed waits until those have run.
func (f *fixture) warmed(t *testing.T) {
	t.Helper()
	for range f.config.Handlers {
		wait[event.JobCompleted](t, f)
	}
	f.passed = nil
}

// locks tells how many jobs and queues have a lock written.
func (f *fixture) locks(t *testing.T) (n int) {
	t.Helper()
	if err := f.pool.QueryRow(t.Context(), `select (select count(*) from graphile_worker._private_jobs where locked_by is not null)
		+ (select count(*) from graphile_worker._private_job_queues where locked_by is not null)`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestHeldJobsOfEveryOutcome(t *testing.T) {
	hour := time.Hour
	f := newFixture(t, map[string]scheduler.Handler{
		"done": completes,
		"fail": func(context.Context, *job.Claimed) job.Outcome {
			return job.Outcome{Kind: job.Failed, Err: errors.New("no")}
		},
		"last": func(context.Context, *job.Claimed) job.Outcome {
			return job.Outcome{Kind: job.Failed, Err: errors.New("no"), Permanent: true, Payload: []byte(`[7]`)}
		},
		"wait": func(context.Context, *job.Claimed) job.Outcome {
			return job.Outcome{Kind: job.Snoozed, Err: errors.New("later"), Delay: &hour, Payload: []byte(`[8]`)}
		},
		"panic": func(context.Context, *job.Claimed) job.Outcome { panic("!") },
	})
	f.holdFor(time.Hour)
	f.config.PollInterval = time.Hour // a poll's claim is a locked one
	f.warm(t)                         // a claim with a task's first job ends at once
	s := scheduler.New(f.config)
	stop := run(t, s)
	f.warmed(t)
	f.exec(t, `select graphile_worker.add_job(task, queue_name => case when n = 1 then task end)
		from unnest(array['done', 'fail', 'last', 'wait', 'panic']) task, generate_series(1, 20) n`)
	s.Wake()
	completed := 0
	for ends := 0; ends < 100; {
		switch e := (<-f.events).(type) {
		case event.JobCompleted:
			ends, completed = ends+1, completed+1
		case event.JobFailed:
			ends++
			if wait := time.Until(e.NextRunAt); wait > 3*time.Second {
				t.Errorf("a first failure waits %s, want e seconds", wait)
			}
		case event.JobPermanentlyFailed, event.JobSnoozed:
			ends++
		case event.JobLost, event.HoldLost, event.JobsSpilled:
			t.Fatalf("%+v", e)
		}
	}
	stop()
	var left string
	if err := f.pool.QueryRow(t.Context(), `select string_agg(line, ', ' order by line) from (
		select concat_ws(' ', t.identifier, count(*), min(j.attempts), max(j.attempts), left(max(j.last_error), 8), max(j.payload::text),
			min(j.run_at) > now() + interval '59 minutes') as line
		from graphile_worker._private_jobs j join graphile_worker._private_tasks t on t.id = j.task_id group by t.identifier) x`).Scan(&left); err != nil {
		t.Fatal(err)
	}
	want := "fail 20 1 1 no {} f, last 20 25 25 no [7] f, panic 20 1 1 panic: ! {} f, wait 20 0 0 [8] t"
	if left != want || completed != 20 {
		t.Errorf("left are %q, want %q; %d completed", left, want, completed)
	}
	if n := f.locks(t); n != 0 {
		t.Errorf("%d locks are left", n)
	}
}

// TestHeldJobIsSpilled: what runs longer than the hold time gets its lock, and
// everything else of its claim is free or done.
func TestHeldJobIsSpilled(t *testing.T) {
	release := make(chan struct{})
	f := newFixture(t, map[string]scheduler.Handler{"long": func(context.Context, *job.Claimed) job.Outcome {
		<-release
		return job.Outcome{Kind: job.Completed}
	}, "short": completes})
	f.holdFor(20 * time.Millisecond)
	f.config.PollInterval = time.Hour // a poll's claim is a locked one
	f.warm(t)
	s := scheduler.New(f.config)
	stop := run(t, s)
	f.warmed(t)
	f.exec(t, "select graphile_worker.add_job('long', queue_name => 'q')")
	f.exec(t, "select graphile_worker.add_job('short')")
	s.Wake()
	wait[event.JobsSpilled](t, f)
	var row string
	if err := f.pool.QueryRow(t.Context(), `select concat_ws(' ', j.attempts, j.locked_by, q.locked_by, j.locked_at = q.locked_at)
		from graphile_worker._private_jobs j join graphile_worker._private_job_queues q on q.id = j.job_queue_id`).Scan(&row); err != nil {
		t.Fatal(err)
	}
	if row != "1 gworker_test gworker_test t" || len(s.Locked()) != 1 || len(s.Held()) != 0 {
		t.Errorf("the row is %q; %d locked, %d held", row, len(s.Locked()), len(s.Held()))
	}
	close(release)
	for done := 0; done < 1; {
		if e := wait[event.JobCompleted](t, f); e.Job.Task == "long" {
			done++
		}
	}
	stop()
	if f.jobs(t) != 0 || f.locks(t) != 0 {
		t.Errorf("%d jobs and %d locks are left", f.jobs(t), f.locks(t))
	}
}

// TestHeldJobIsNobodyElses: while it is held, nothing is written, and no claim of
// another finds the job or another one of its queue.
func TestHeldJobIsNobodyElses(t *testing.T) {
	release, started := make(chan struct{}), make(chan struct{}, 2)
	f := newFixture(t, map[string]scheduler.Handler{"x": func(context.Context, *job.Claimed) job.Outcome {
		started <- struct{}{}
		<-release
		return job.Outcome{Kind: job.Completed}
	}})
	f.holdFor(time.Hour)
	f.config.PollInterval = time.Hour
	f.warm(t)
	s := scheduler.New(f.config)
	stop := run(t, s)
	f.warmed(t)
	f.exec(t, "select graphile_worker.add_job('x', queue_name => 'q')")
	s.Wake()
	<-started
	f.exec(t, "select graphile_worker.add_job('x', queue_name => 'q')")
	if err := newOther(f).RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.Held()) != 1 || f.locks(t) != 0 || f.jobs(t) != 2 {
		t.Errorf("%d held, %d locks, %d jobs", len(s.Held()), f.locks(t), f.jobs(t))
	}
	close(release)
	wait[event.JobCompleted](t, f)
	stop()
	if err := newOther(f).RunOnce(t.Context()); err != nil || f.jobs(t) != 0 {
		t.Errorf("%d jobs are left (%v)", f.jobs(t), err)
	}
}

// newOther is another worker on the database, that locks its jobs.
func newOther(f *fixture) *scheduler.Scheduler {
	config := f.config
	config.Hold, config.WorkerID = scheduler.Hold{}, "gworker_other"
	config.Events = eventstream.New()
	config.Handlers = map[string]scheduler.Handler{"x": completes}
	return scheduler.New(config)
}

// TestLostHoldIsLockedAgain kills the connection of a held claim. A job that runs
// goes on, its end is written as always, and so is the end of one that had ended;
// one that another worker has taken meanwhile is lost.
func TestLostHoldIsLockedAgain(t *testing.T) {
	var sample testdb.Sample
	for _, taken := range []bool{false, true} {
		t.Run(fmt.Sprintf("taken=%t", taken), func(t *testing.T) {
			sample.Take(t)
			release, started, other, causes := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan error, 1)
			f := newFixture(t, map[string]scheduler.Handler{"x": func(ctx context.Context, _ *job.Claimed) job.Outcome {
				close(started)
				select {
				case <-release:
				case <-ctx.Done():
				}
				causes <- context.Cause(ctx)
				return job.Outcome{Kind: job.Completed}
			}, "y": func(context.Context, *job.Claimed) job.Outcome {
				close(other)
				return job.Outcome{Kind: job.Completed}
			}})
			f.holdFor(time.Hour)
			f.config.PollInterval = time.Hour
			f.warm(t)
			s := scheduler.New(f.config)
			stop := run(t, s)
			f.warmed(t)
			f.exec(t, "select graphile_worker.add_job('x'), graphile_worker.add_job('y')")
			s.Wake()
			<-started
			<-other
			f.exec(t, `select pg_terminate_backend(pid) from pg_stat_activity
				where datname = current_database() and state = 'idle in transaction'`)
			for n := 1; n > 0; {
				if err := f.pool.QueryRow(t.Context(), `select count(*) from pg_stat_activity
					where datname = current_database() and state = 'idle in transaction'`).Scan(&n); err != nil {
					t.Fatal(err)
				}
			}
			if taken {
				f.exec(t, `update graphile_worker._private_jobs set locked_by = 'gworker_other', locked_at = now(), attempts = 1
					where task_id = (select id from graphile_worker._private_tasks where identifier = 'x')`)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if _, err := s.Write(ctx, s.Held()[0]); err != nil {
				t.Fatal(err)
			}
			lost := wait[event.HoldLost](t, f)
			if taken {
				if cause := <-causes; !errors.Is(cause, job.ErrLost) {
					t.Errorf("the context ended with %v", cause)
				}
				wait[event.JobLost](t, f)
			}
			close(release)
			stop()
			if want := map[bool]int{false: 0, true: 1}[taken]; f.jobs(t) != want || lost.Lost != want || lost.Kept != 2-want || f.locks(t) != want {
				t.Errorf("%d jobs and %d locks are left; %+v", f.jobs(t), f.locks(t), lost)
			}
		})
	}
}

// What another process has in its hands is looked for again, also where this worker
// holds jobs of its own and may have been the one.
func TestHoldingWorkersLookAgainForQueuesOfOthers(t *testing.T) {
	started, free := make(chan struct{}), make(chan struct{})
	f := newFixture(t, map[string]scheduler.Handler{"x": completes, "long": func(context.Context, *job.Claimed) job.Outcome {
		close(started)
		<-free
		return job.Outcome{Kind: job.Completed}
	}})
	f.holdFor(time.Second)
	f.config.PollInterval = time.Hour
	f.warm(t)
	s := scheduler.New(f.config)
	stop := run(t, s)
	defer stop()
	defer close(free)
	f.warmed(t)
	f.exec(t, "select graphile_worker.add_job('long')")
	s.Wake()
	<-started
	f.exec(t, "select graphile_worker.add_job('x', queue_name => 'q')")
	tx, err := f.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select from graphile_worker._private_job_queues for update"); err != nil {
		t.Fatal(err)
	}
	for len(f.events) > 0 {
		<-f.events
	}
	f.passed = nil
	s.Wake()
	for range 2 { // the first finds that there are queues
		wait[event.ClaimEmpty](t, f)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for wait[event.JobCompleted](t, f).Job.Queue != "q" {
	}
}
