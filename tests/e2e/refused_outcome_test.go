package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// poisonTrigger is a trigger on the jobs table that does something to the job "poison",
// and only where a run of it ends: not when it is locked.
func poisonTrigger(when, condition, body string) string {
	return fmt.Sprintf(`create function poison() returns trigger language plpgsql as $$ begin
			if old.payload::text = '{"bad":true}' and (%s) then %s; end if;
			return coalesce(new, old);
		end $$;
		create trigger poison before %s on graphile_worker._private_jobs for each row execute function poison()`,
		condition, body, when)
}

// refusedOutcome is something that may be against the outcome of the job "poison".
type refusedOutcome struct {
	name, sql string
	handler   func(context.Context, *gworker.RawJob) error
	stored    event.Stored // "" if nothing is told
	lastError string
}

func refusedOutcomes() []refusedOutcome {
	fails := func(context.Context, *gworker.RawJob) error { return errors.New("secret") }
	snoozes := func(context.Context, *gworker.RawJob) error { return gworker.Snooze(time.Hour) }
	const raise = "raise exception 'not this one'"
	return []refusedOutcome{
		{"completion: trigger", poisonTrigger("delete", "true", raise), nothing, event.StoredFailure, "not this one"},
		{"completion: trigger that raises 40001", poisonTrigger("delete", "true", raise+" using errcode = '40001'"), nothing, event.StoredFailure, "not this one"},
		{"completion: trigger with a mistake", poisonTrigger("delete", "true", "perform nosuch()"), nothing, event.StoredFailure, "nosuch"},
		{"completion: trigger without rights", poisonTrigger("delete", "true", "raise insufficient_privilege"), nothing, event.StoredFailure, "insufficient"},
		{"completion: subquery", poisonTrigger("delete", "true", "perform (select 1 from generate_series(1, 2))"), nothing, event.StoredFailure, "more than one row"},
		{"completion: trigger that returns null", poisonTrigger("delete", "true", "return null"), nothing, event.StoredFailure, "a trigger"},
		{"completion: rule", `create rule keep as on delete to graphile_worker._private_jobs
			where old.payload::text = '{"bad":true}' do instead nothing`, nothing, event.StoredFailure, "DELETE"},
		{"completion: deferred trigger", `create function poison() returns trigger language plpgsql as $$ begin
				if old.payload::text = '{"bad":true}' then raise exception 'not this one'; end if;
				return null;
			end $$;
			create constraint trigger poison after delete on graphile_worker._private_jobs
				deferrable initially deferred for each row execute function poison()`, nothing, event.StoredFailure, "not this one"},
		{"completion: foreign key", `create table mine (job bigint references graphile_worker._private_jobs);
			create function keep() returns trigger language plpgsql as $$ begin
				if new.payload::text = '{"bad":true}' then insert into mine values (new.id); end if;
				return null;
			end $$;
			create trigger keep after insert on graphile_worker._private_jobs for each row execute function keep()`,
			nothing, event.StoredFailure, "foreign key"},
		{"failure: constraint", "alter table graphile_worker._private_jobs add check (last_error not like '%secret%')", fails, event.StoredUnlocked, ""},
		{"failure: trigger", poisonTrigger("update", "new.last_error is not null", raise), fails, event.StoredUnlocked, ""},
		{"failure: trigger that returns null", poisonTrigger("update", "new.last_error is not null", "return null"), fails, event.StoredUnlocked, ""},
		{"failure: trigger that returns old", poisonTrigger("update", "new.last_error is not null", "return old"), fails, event.StoredUnlocked, ""},
		{"failure: long text in an index", "create index on graphile_worker._private_jobs (last_error)",
			func(context.Context, *gworker.RawJob) error { return errors.New(incompressible(20_000)) }, event.StoredUnlocked, ""},
		{"snooze: trigger", poisonTrigger("update", "new.run_at > old.run_at + interval '1 minute'", raise), snoozes, event.StoredFailure, "not this one"},
		{"snooze: trigger that returns null", poisonTrigger("update", "new.run_at > old.run_at + interval '1 minute'", "return null"), snoozes, event.StoredFailure, "a trigger"},
		{"snooze: trigger that returns old", poisonTrigger("update", "new.run_at > old.run_at + interval '1 minute'", "return old"), snoozes, event.StoredFailure, "a trigger"},
	}
}

// TestRefusedOutcomes: whatever the database has against an outcome is an answer and no
// outage. The job does not stay locked, its queue goes on, jobs of the same claim end as
// ever, and so does the worker.
func TestRefusedOutcomes(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for _, c := range refusedOutcomes() {
		// What is created late is not known when the worker connects to hold jobs.
		for mode, hold := range map[string]*time.Duration{"held": nil, "held, created late": nil, "locked": new(time.Duration)} {
			t.Run(c.name+", "+mode, func(t *testing.T) {
				sample.Take(t)
				t.Parallel()
				pool := migrated(t)
				late := mode == "held, created late"
				if !late {
					exec(t, pool, c.sql)
				}
				client := newClient(t, pool)
				held := make(chan struct{}, 100)
				w := start(t, gworker.Config{Pool: pool, HoldTime: hold, Concurrency: 3, StatementTimeout: time.Hour, Tasks: []gworker.Task{
					gworker.NewRawTask("poison", func(ctx context.Context, job *gworker.RawJob) error {
						if string(job.Payload) == `{"bad":true}` {
							return c.handler(ctx, job)
						}
						if !testworker.IsLocked(t, pool, job.ID) {
							held <- struct{}{}
						}
						return nil
					}), gworker.NewRawTask("x", nothing),
				}})
				for hold == nil && len(held) == 0 { // until jobs of both tasks are held
					for _, task := range []string{"x", "poison"} {
						before := add(t, client, gworker.JobSpec{Task: task})
						waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == before.ID })
					}
				}
				if late {
					exec(t, pool, c.sql)
				}
				specs := []gworker.JobSpec{{Task: "poison", Queue: "q", Payload: map[string]bool{"bad": true}}, {Task: "x", Queue: "q"}}
				for range 5 {
					specs = append(specs, gworker.JobSpec{Task: "x"})
				}
				jobs, err := client.AddJobs(t.Context(), specs)
				if err != nil {
					t.Fatal(err)
				}
				poison, others := jobs[0], jobs[1:]
				failed := waitFor(t, w.Events, func(e event.JobFailed) bool { return e.Job.ID == poison.ID })
				if c.stored != "" {
					refused := waitFor[event.OutcomeRefused](t, w.Events, nil)
					if refused.Job.ID != poison.ID || refused.Stored != c.stored {
						t.Errorf("of job %d was stored: %s; want %d: %s", refused.Job.ID, refused.Stored, poison.ID, c.stored)
					}
				}
				for _, job := range others {
					waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
				}
				if err := w.Stop(); err != nil { // within less than a statement time-out
					t.Error(err)
				}
				var attempts int
				var locked, waits bool
				var text string
				scan(t, pool, `select attempts, locked_at is not null, run_at > created_at + interval '1 second', coalesce(last_error, '')
					from graphile_worker._private_jobs where id = $1`, []any{poison.ID}, &attempts, &locked, &waits, &text)
				if attempts < 1 || attempts > 2 || locked || !waits || !strings.Contains(text, c.lastError) {
					t.Errorf("attempts %d, locked %v, waits %v, last_error %q", attempts, locked, waits, text)
				}
				if failed.NextRunAt.IsZero() {
					t.Error("it is not said when the job runs again")
				}
				seen, _ := w.Events.Seen()
				runs := map[int64]int{}
				for _, e := range seen {
					switch e := e.(type) {
					case event.JobStarted:
						runs[e.Job.ID]++
					case event.JobCompleted:
						if e.Job.ID == poison.ID {
							t.Error("the refused completion was reported")
						}
					case event.JobLost:
						// Where nothing is known to refuse outcomes there is no savepoint, and
						// another claim of this worker may have been under way, and taken it.
						if !late {
							t.Errorf("job %d was lost", e.Job.ID)
						}
					}
				}
				most := 1
				if late { // the first refusal sets the rows of all jobs of the claim free
					most = 2
				}
				for _, job := range others {
					if n := runs[job.ID]; n < 1 || n > most {
						t.Errorf("job %d, which was in order, ran %d times", job.ID, n)
					}
				}
			})
		}
	}
}
