package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// TestPolicyAgainstOneJob: what the check of a row level security policy has against a
// job is an answer about that job, as a constraint's is, although its code is that of a
// missing right. The job does not stay locked, and its queue goes on.
func TestPolicyAgainstOneJob(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, c := range []struct {
		name, policy string
		locked       bool // the refusal comes with the lock, and the job does not run
	}{
		{name: "failure", policy: "as restrictive for update using (true) with check (last_error is null)"},
		{name: "lock", policy: "as restrictive for update using (true) with check (locked_at is null or priority = 0)", locked: true},
	} {
		for mode, hold := range map[string]*time.Duration{"held": nil, "locked": new(time.Duration)} {
			if c.locked && hold == nil {
				continue // no lock is written
			}
			t.Run(c.name+", "+mode, func(t *testing.T) {
				t.Parallel()
				owner := migrated(t)
				admin := newClient(t, owner)
				role, pool := testdb.Role(t, owner)
				if _, err := admin.Grant(t.Context(), gworker.RightsWorker, role, gworker.GrantOptions{}); err != nil {
					t.Fatal(err)
				}
				exec(t, owner, "create policy mine on graphile_worker._private_jobs "+c.policy)
				ran := make(chan int64, 10)
				w := start(t, gworker.Config{Pool: pool, HoldTime: hold, NoMigrations: true, StatementTimeout: time.Hour, Tasks: []gworker.Task{
					gworker.NewRawTask("poison", func(_ context.Context, job *gworker.RawJob) error {
						ran <- job.ID
						return errors.New("no")
					}), gworker.NewRawTask("x", nothing),
				}})
				jobs, err := admin.AddJobs(t.Context(), []gworker.JobSpec{
					{Task: "poison", Queue: "q", Priority: 1}, {Task: "x", Queue: "q", Priority: 0, RunAt: time.Now()}, {Task: "x"},
				})
				if err != nil {
					t.Fatal(err)
				}
				poison := jobs[0]
				if c.locked {
					waitFor(t, w.Events, func(e event.ClaimRefused) bool { return e.Job.ID == poison.ID })
				} else {
					refused := waitFor(t, w.Events, func(e event.OutcomeRefused) bool { return e.Job.ID == poison.ID })
					if refused.Stored != event.StoredUnlocked {
						t.Errorf("stored: %s", refused.Stored)
					}
					waitFor(t, w.Events, func(e event.JobFailed) bool { return e.Job.ID == poison.ID })
				}
				for _, job := range jobs[1:] {
					waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
				}
				if err := w.Stop(); err != nil {
					t.Error(err)
				}
				var locked, queue bool
				scan(t, owner, `select (select locked_at is not null from graphile_worker._private_jobs where id = $1),
					exists (select from graphile_worker._private_job_queues where locked_at is not null)`, []any{poison.ID}, &locked, &queue)
				if locked || queue {
					t.Errorf("the job is locked: %v; its queue: %v", locked, queue)
				}
				if n := len(ran); n > 2 || c.locked && n > 0 {
					t.Errorf("the job ran %d times", n)
				}
			})
		}
	}
}

// To a role that row level security blinds, the queue looks empty.
func TestHiddenRows(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	pool := migrated(t)
	exec(t, pool, "select graphile_worker.add_job('x')")
	name, blind := testdb.Role(t, pool, "grant usage on schema graphile_worker to %s",
		"grant all on all tables in schema graphile_worker to %s")
	var hidden *gworker.HiddenRowsError
	if err := newClient(t, blind).CheckSchema(t.Context()); !errors.As(err, &hidden) || hidden.Role != name ||
		fmt.Sprint(hidden.Tables) != "[_private_job_queues _private_jobs _private_tasks]" {
		t.Errorf("CheckSchema: %v", err)
	}
	seen := testworker.NewEvents()
	worker, err := gworker.NewWorker(gworker.Config{Pool: blind, ConnectTimeout: time.Minute, Observers: []func(event.Event){seen.Observe},
		Tasks: []gworker.Task{gworker.NewTask("x", func(context.Context, *gworker.Job[any]) error { return nil })}})
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.RunOnce(t.Context()); !errors.As(err, &hidden) {
		t.Errorf("RunOnce: %v", err)
	}
	if n := count[event.SchemaWarning](seen); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	// A policy of whatever kind lets the role see what its maker wants.
	quoted := pgx.Identifier{name}.Sanitize()
	for _, table := range []string{"_private_jobs", "_private_tasks", "_private_job_queues"} {
		exec(t, pool, "create policy mine on graphile_worker."+table+" to "+quoted+" using (true)")
	}
	if err := newClient(t, blind).CheckSchema(t.Context()); err != nil {
		t.Error(err)
	}
}

// A role that may read the jobs' rows but not change them finds nothing that it may run.
func TestReadOnlyRows(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	pool := migrated(t)
	exec(t, pool, "select graphile_worker.add_job('x')")
	name, reader := testdb.Role(t, pool, "grant usage on schema graphile_worker to %s",
		"grant all on all tables in schema graphile_worker to %s")
	quoted := pgx.Identifier{name}.Sanitize()
	for _, table := range []string{"_private_jobs", "_private_tasks", "_private_job_queues"} {
		exec(t, pool, "create policy mine on graphile_worker."+table+" for select to "+quoted+" using (true)")
	}
	if err := newClient(t, reader).CheckSchema(t.Context()); err != nil {
		t.Errorf("CheckSchema of a client, which may only read: %v", err)
	}
	for _, c := range []struct{ sql, tables string }{
		{"select 1", "[_private_job_queues _private_jobs]"},
		{"create policy u on graphile_worker._private_jobs for update to " + quoted + " using (true)", "[_private_job_queues _private_jobs]"},
		{"create policy d on graphile_worker._private_jobs for delete to " + quoted + " using (true)", "[_private_job_queues]"},
		{"create policy u on graphile_worker._private_job_queues for update to " + quoted + " using (true)", ""},
	} {
		exec(t, pool, c.sql)
		worker, err := gworker.NewWorker(gworker.Config{Pool: reader, ConnectTimeout: time.Minute, NoMigrations: true,
			Recovery: gworker.RecoveryConfig{Disabled: true},
			Tasks:    []gworker.Task{gworker.NewTask("x", func(context.Context, *gworker.Job[any]) error { return nil })}})
		if err != nil {
			t.Fatal(err)
		}
		err = worker.RunOnce(t.Context())
		var hidden *gworker.HiddenRowsError
		switch is := errors.As(err, &hidden); {
		case c.tables == "" && err != nil, c.tables != "" && !is:
			t.Errorf("%s: RunOnce: %v", c.sql, err)
		case is && (!hidden.ReadOnly || hidden.Role != name || fmt.Sprint(hidden.Tables) != c.tables):
			t.Errorf("%s: RunOnce: %v", c.sql, hidden)
		}
	}
}

// If the policies of its role go while a worker runs, the queue looks empty from then on.
func TestRowsHiddenMeanwhile(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, listens := range map[string]bool{"listening": true, "not listening": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			client := newClient(t, pool)
			role, mine := testdb.Role(t, pool)
			if _, err := client.Grant(t.Context(), gworker.RightsWorker, role, gworker.GrantOptions{}); err != nil {
				t.Fatal(err)
			}
			w := start(t, gworker.Config{Pool: mine, NoMigrations: true, NoListen: !listens,
				Recovery: gworker.RecoveryConfig{HeartbeatInterval: 50 * time.Millisecond, StaleAfter: time.Hour},
				Tasks:    []gworker.Task{gworker.NewRawTask("x", nothing)}})
			job := add(t, client, gworker.JobSpec{Task: "x"})
			waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
			var policy string
			scan(t, pool, "select quote_ident(polname) from pg_policy where polrelid = 'graphile_worker._private_jobs'::regclass", nil, &policy)
			exec(t, pool, "drop policy "+policy+" on graphile_worker._private_jobs")
			waitFor(t, w.Events, func(e event.SchemaWarning) bool {
				return strings.Contains(e.Message, "sees no rows of _private_jobs")
			})
			if err := w.Stop(); err != nil {
				t.Error(err)
			}
			if n := count[event.SchemaWarning](w.Events); n != 1 {
				t.Errorf("%d warnings, want 1", n)
			}
		})
	}
}

// With row_security off, a statement that a policy concerns is an error.
func TestRowSecurityOff(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	_, mine := testdb.Role(t, pool, "grant usage on schema graphile_worker to %s", "grant all on all tables in schema graphile_worker to %s")
	config := mine.Config()
	config.ConnConfig.RuntimeParams["row_security"] = "off"
	off, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(off.Close)
	if _, err := newClient(t, off).AddJob(t.Context(), gworker.JobSpec{Task: "x"}); err == nil || !strings.Contains(err.Error(), `row_security = "off"`) {
		t.Errorf("AddJob: %v", err)
	}
	owner := pool.Config()
	owner.ConnConfig.RuntimeParams["row_security"] = "off"
	owners, err := pgxpool.NewWithConfig(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(owners.Close)
	add(t, newClient(t, owners), gworker.JobSpec{Task: "x"}) // no policy concerns it
}
