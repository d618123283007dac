package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// TestRefusedUnlockingOfQueues: whatever the database has against unlocking a queue, the
// outcomes of its jobs are stored as they are, and nothing else suffers.
func TestRefusedUnlockingOfQueues(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	outcomes := map[string]struct {
		err  error
		left string // of the job: attempts, and whether it waits
	}{
		"complete": {nil, ""},
		"fail":     {errors.New("of its own"), "1 true of its own"},
		"final":    {gworker.Discard(errors.New("of its own")), "25 true of its own"},
		"snooze":   {gworker.Snooze(time.Hour), "0 true "},
	}
	for _, c := range refusedUnlocking {
		for mode, hold := range map[string]*time.Duration{"held": nil, "locked": new(time.Duration)} {
			for kind, outcome := range outcomes {
				t.Run(fmt.Sprintf("%s, %s, %s", c.name, kind, mode), func(t *testing.T) {
					sample.Take(t)
					t.Parallel()
					pool := migrated(t)
					client := newClient(t, pool)
					poison := add(t, client, gworker.JobSpec{Task: "poison", Queue: "bad"})
					exec(t, pool, c.sql)
					jobs, err := client.AddJobs(t.Context(), []gworker.JobSpec{{Task: "x"}, {Task: "x", Queue: "good"}, {Task: "x", Queue: "good"}})
					if err != nil {
						t.Fatal(err)
					}
					w := start(t, gworker.Config{Pool: pool, HoldTime: hold, Concurrency: 3, StatementTimeout: time.Hour, Tasks: []gworker.Task{
						gworker.NewRawTask("poison", func(ctx context.Context, job *gworker.RawJob) error {
							// Its lock is to be written, as it is with a long run.
							for !testworker.IsLocked(t, pool, job.ID) {
								time.Sleep(time.Millisecond)
							}
							return outcome.err
						}), gworker.NewRawTask("x", nothing),
					}})
					for _, job := range jobs {
						waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
					}
					refused := waitFor[event.OutcomeRefused](t, w.Events, nil)
					if refused.Job.ID != poison.ID || refused.Stored != event.StoredQueueKept || refused.Err == nil {
						t.Errorf("%+v", refused)
					}
					var left string
					scan(t, pool, `select coalesce((select concat_ws(' ', attempts::text, (run_at > created_at + interval '1 second' and locked_at is null)::text, coalesce(last_error, ''))
						from graphile_worker._private_jobs where id = $1), '')`, []any{poison.ID}, &left)
					if outcome.err == nil {
						waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == poison.ID })
					}
					if left != outcome.left {
						t.Errorf("the job is left as %q, want %q", left, outcome.left)
					}
					if err := w.Stop(); err != nil {
						t.Error(err)
					}
					if n := count[event.OutcomeRefused](w.Events); n != 1 {
						t.Errorf("%d refusals are told of, want 1", n)
					}
					if n := count[event.JobStarted](w.Events); n != len(jobs)+1 {
						t.Errorf("%d runs, want %d", n, len(jobs)+1)
					}
				})
			}
		}
	}
}

// refusedUnlocking are the ways in which a database refuses to unlock the queue "bad".
var refusedUnlocking = []struct{ name, sql string }{
	{"raises", queueTrigger("new.locked_at is null", "raise exception 'not this one'")},
	{"returns null", queueTrigger("new.locked_at is null", "return null")},
	{"returns old", queueTrigger("new.locked_at is null", "return old")},
	{"deferred", `create function poison() returns trigger language plpgsql as $$ begin
			if new.queue_name = 'bad' and new.locked_at is null then raise exception 'not this one'; end if;
			return null;
		end $$;
		create constraint trigger poison after update on graphile_worker._private_job_queues
			deferrable initially deferred for each row execute function poison()`},
	{"constraint", `alter table graphile_worker._private_job_queues add constraint poison check (queue_name <> 'bad' or locked_at is not null) not valid`},
}

// TestRefusedUnlockingInTransactions: jobs that are completed in transactions of their
// handlers or files are complete although the database refuses to unlock their queue, and
// the queue is unlocked as soon as the database lets it.
func TestRefusedUnlockingInTransactions(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	in := func(run testworker.CompleteTx) func(t *testing.T, pool *pgxpool.Pool) gworker.Task {
		return func(t *testing.T, pool *pgxpool.Pool) gworker.Task {
			return gworker.NewRawTask("poison", func(ctx context.Context, job *gworker.RawJob) error {
				err := run(t, ctx, pool, job, true)
				if err != nil {
					t.Errorf("completing: %v", err)
				}
				return err
			})
		}
	}
	for _, c := range refusedUnlocking {
		for how, task := range map[string]func(*testing.T, *pgxpool.Pool) gworker.Task{
			"pgx": in(testworker.CompletePgx), "sql": in(testworker.CompleteSQL),
			"file": func(t *testing.T, _ *pgxpool.Pool) gworker.Task {
				return testworker.SQLTasks(t, map[string]string{"poison": "insert into effects values (current_setting('gworker.job_id')::bigint)"})[0]
			},
		} {
			t.Run(c.name+", "+how, func(t *testing.T) {
				sample.Take(t)
				t.Parallel()
				pool := migrated(t)
				client := newClient(t, pool)
				exec(t, pool, "create table effects (job_id bigint)")
				poison := add(t, client, gworker.JobSpec{Task: "poison", Queue: "bad"})
				next := add(t, client, gworker.JobSpec{Task: "x", Queue: "bad"})
				exec(t, pool, c.sql)
				jobs, err := client.AddJobs(t.Context(), []gworker.JobSpec{{Task: "x"}, {Task: "x", Queue: "good"}, {Task: "x", Queue: "good"}})
				if err != nil {
					t.Fatal(err)
				}
				w := start(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{task(t, pool), gworker.NewRawTask("x", nothing)}})
				for _, job := range append(jobs, poison) {
					waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
				}
				refused := waitFor[event.OutcomeRefused](t, w.Events, nil)
				if refused.Job.ID != poison.ID || refused.Stored != event.StoredQueueKept || refused.Err == nil {
					t.Errorf("%+v", refused)
				}
				if left := testworker.Row(t, pool, poison.ID); left != "gone" {
					t.Errorf("the job is left as %q", left)
				}
				testworker.WaitForN[event.OutcomesDelayed](t, w.Events, 2, nil) // it has tried again
				exec(t, pool, `drop function if exists poison cascade; alter table graphile_worker._private_job_queues drop constraint if exists poison`)
				waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == next.ID })
				if err := w.Stop(); err != nil {
					t.Error(err)
				}
				var effects, locked int
				scan(t, pool, `select (select count(*) from effects where job_id = $1),
					(select count(*) from graphile_worker._private_job_queues where locked_by is not null)`, []any{poison.ID}, &effects, &locked)
				if effects != 1 || locked != 0 {
					t.Errorf("%d effects, %d locked queues", effects, locked)
				}
				if n := count[event.OutcomeRefused](w.Events); n != 1 {
					t.Errorf("%d refusals are told of, want 1", n)
				}
				if n := count[event.JobStarted](w.Events); n != len(jobs)+2 {
					t.Errorf("%d runs, want %d", n, len(jobs)+2)
				}
				if n := count[event.JobCompleted](w.Events); n != len(jobs)+2 {
					t.Errorf("%d completions are told of, want %d", n, len(jobs)+2)
				}
			})
		}
	}
}

// TestRefusedDeletingInTransactions: a job whose row a trigger keeps is not called lost,
// nor its file blamed.
func TestRefusedDeletingInTransactions(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	exec(t, pool, "create table effects (job_id bigint)")
	exec(t, pool, `create function poison() returns trigger language plpgsql as $$ begin return null; end $$;
		create trigger poison before delete on graphile_worker._private_jobs for each row execute function poison()`)
	var completing error
	ids := testworker.AddEach(t, newClient(t, pool), gworker.JobSpec{Task: "file"}, gworker.JobSpec{Task: "handler"})
	e := runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
		testworker.SQLTasks(t, map[string]string{"file": "insert into effects values (1)"})[0],
		gworker.NewRawTask("handler", func(ctx context.Context, job *gworker.RawJob) error {
			completing = testworker.CompletePgx(t, ctx, pool, job, true)
			return completing
		}),
	}})
	if completing == nil || errors.Is(completing, gworker.ErrJobLost) || !strings.Contains(completing.Error(), "trigger on the jobs table that returns null") {
		t.Errorf("completing: %v", completing)
	}
	for task, id := range ids {
		failed := waitFor(t, e, func(e event.JobFailed) bool { return e.Job.ID == id })
		if !strings.Contains(failed.Err.Error(), "trigger on the jobs table that returns null") {
			t.Errorf("%s: %v", task, failed.Err)
		}
	}
	var effects int
	scan(t, pool, "select count(*) from effects", nil, &effects)
	if effects != 0 {
		t.Errorf("%d effects", effects)
	}
}

// TestReturnedJobOfARefusedQueue: at a worker's end a job goes back although its queue
// cannot be unlocked.
func TestReturnedJobOfARefusedQueue(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for _, c := range refusedUnlocking {
		for mode, hold := range map[string]*time.Duration{"held": nil, "locked": new(time.Duration)} {
			t.Run(fmt.Sprintf("%s, %s", c.name, mode), func(t *testing.T) {
				sample.Take(t)
				t.Parallel()
				pool := migrated(t)
				poison := add(t, newClient(t, pool), gworker.JobSpec{Task: "poison", Queue: "bad"})
				exec(t, pool, c.sql)
				w := start(t, gworker.Config{
					Pool: pool, HoldTime: hold, StatementTimeout: time.Hour, GracefulShutdownAbortTimeout: time.Millisecond,
					Tasks: []gworker.Task{gworker.NewRawTask("poison", func(ctx context.Context, _ *gworker.RawJob) error {
						<-ctx.Done()
						return ctx.Err()
					})},
				})
				waitFor[event.JobStarted](t, w.Events, nil)
				for !testworker.IsLocked(t, pool, poison.ID) {
					time.Sleep(time.Millisecond)
				}
				if err := w.Stop(); err != nil {
					t.Error(err)
				}
				if left := testworker.Row(t, pool, poison.ID); left != "0/25|-|again" {
					t.Errorf("the job is left as %q", left)
				}
				refused := waitFor[event.OutcomeRefused](t, w.Events, nil)
				if refused.Job.ID != poison.ID || refused.Stored != event.StoredQueueKept || refused.Err == nil {
					t.Errorf("%+v", refused)
				}
				waitFor(t, w.Events, func(e event.JobReturned) bool { return e.Job.ID == poison.ID })
				if n := count[event.OutcomeRefused](w.Events); n != 1 {
					t.Errorf("%d refusals are told of, want 1", n)
				}
			})
		}
	}
}
