package scheduler_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/testdb"
)

// TestWhatIsGuarded: the search for rows that a trigger kept costs a fifth of the speed
// of held claims. So a schema as it is made goes without, and so does one with objects
// that have no say in an outcome.
func TestWhatIsGuarded(t *testing.T) {
	var sample testdb.Sample
	const function = `create function public.keep() returns trigger language plpgsql as 'begin return null; end';`
	for _, c := range []struct {
		name, sql, role string
		want            bool
	}{
		{name: "the schema's own"},
		{name: "a trigger of inserts", sql: function + `create trigger a after insert on graphile_worker._private_jobs
			for each row execute function public.keep()`},
		{name: "a trigger that was dropped", sql: function + `create trigger a before delete on graphile_worker._private_jobs
			for each row execute function public.keep(); drop trigger a on graphile_worker._private_jobs`},
		{name: "a trigger of deletes", want: true, sql: function + `create trigger a before delete on graphile_worker._private_jobs
			for each row execute function public.keep()`},
		{name: "a trigger of updates", want: true, sql: function + `create trigger a after update on graphile_worker._private_jobs
			for each statement execute function public.keep()`},
		{name: "a trigger of queues", want: true, sql: function + `create trigger a before update on graphile_worker._private_job_queues
			for each row execute function public.keep()`},
		{name: "a foreign key", want: true, sql: `create table public.mine (job bigint references graphile_worker._private_jobs)`},
		{name: "a rule", want: true, sql: `create rule a as on delete to graphile_worker._private_jobs do also select 1`},
		{name: "a constraint", want: true, sql: `alter table graphile_worker._private_jobs add check (last_error is distinct from 'no')`},
		{name: "an index", want: true, sql: `create unique index on graphile_worker._private_jobs (last_error)`},
		{name: "a policy", want: true, role: "gworker_guard_test", sql: `
			grant usage on schema graphile_worker to gworker_guard_test;
			grant all on all tables in schema graphile_worker to gworker_guard_test;
			create policy a on graphile_worker._private_jobs to gworker_guard_test using (true);
			create policy a on graphile_worker._private_job_queues to gworker_guard_test using (true);
			create policy a on graphile_worker._private_tasks to gworker_guard_test using (true)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			sample.Take(t)
			held := make(chan bool, 1)
			var s *scheduler.Scheduler
			f := newFixture(t, map[string]scheduler.Handler{"x": func(context.Context, *job.Claimed) job.Outcome {
				held <- len(s.Held()) > 0
				return job.Outcome{Kind: job.Completed}
			}})
			if c.role != "" {
				f.exec(t, "create role "+c.role)
				t.Cleanup(func() { // the role is the server's, and outlives the database
					if _, err := f.pool.Exec(context.Background(), "drop owned by "+c.role+"; drop role "+c.role); err != nil {
						t.Error(err)
					}
				})
			}
			f.exec(t, c.sql)
			f.holdFor(f.config.PollInterval)
			connect := f.config.Hold.Connect
			f.config.Hold.Connect = func(ctx context.Context) (*pgx.Conn, error) {
				conn, err := connect(ctx)
				if err == nil && c.role != "" {
					_, err = conn.Exec(ctx, "set role "+c.role)
				}
				return conn, err
			}
			s = scheduler.New(f.config)
			defer run(t, s)()
			// A connection that holds jobs has looked before.
			for deadline := time.Now().Add(patience); ; {
				f.exec(t, "select graphile_worker.add_job('x')")
				s.Wake()
				if <-held {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("no job was held")
				}
			}
			if got := s.Guarded(); got != c.want {
				t.Errorf("guarded is %t, want %t", got, c.want)
			}
		})
	}
}

// TestLateRefusalsAreGuarded: what comes while the worker runs is known from its first
// refusal on.
func TestLateRefusalsAreGuarded(t *testing.T) {
	for name, body := range map[string]string{"raises": "raise 'no'", "returns null": "return null"} {
		for mode, hold := range map[string]bool{"held": true, "locked": false} {
			t.Run(name+", "+mode, func(t *testing.T) {
				var written func(id int64) bool
				ran := make(chan bool, 1000)
				f := newFixture(t, map[string]scheduler.Handler{"x": func(_ context.Context, j *job.Claimed) job.Outcome {
					for !hold && !written(j.ID) {
						time.Sleep(time.Millisecond)
					}
					ran <- written(j.ID)
					return job.Outcome{Kind: job.Completed}
				}})
				written = func(id int64) (is bool) {
					if err := f.pool.QueryRow(context.Background(), "select locked_at is not null from graphile_worker._private_jobs where id = $1", id).Scan(&is); err != nil {
						t.Error(err)
						return true
					}
					return is
				}
				f.holdFor(f.config.PollInterval)
				s := scheduler.New(f.config)
				defer run(t, s)()
				for deadline := time.Now().Add(patience); ; {
					f.exec(t, "select graphile_worker.add_job('x')")
					s.Wake()
					if is := <-ran; is != hold {
						break
					}
					if time.Now().After(deadline) {
						t.Fatal("no job was held")
					}
				}
				if s.Guarded() {
					t.Fatal("it is guarded although nothing is refused")
				}
				f.exec(t, `create function public.keep() returns trigger language plpgsql as $$ begin `+body+`; end $$;
					create trigger keep before delete on graphile_worker._private_jobs for each row execute function public.keep();
					select graphile_worker.add_job('x')`)
				s.Wake()
				wait[event.OutcomeRefused](t, f)
				if !s.Guarded() {
					t.Error("it is not guarded after a refusal")
				}
			})
		}
	}
}
