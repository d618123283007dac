package gworker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gworker/gworker"
)

var roles atomic.Int64

// newRole makes a role for the test's database, and gives a pool that connects as it.
func newRole(t *testing.T, owner *pgxpool.Pool, rights ...string) (string, *pgxpool.Pool) {
	t.Helper()
	name := fmt.Sprintf(`role "%d" of %s`, roles.Add(1), owner.Config().ConnConfig.Database)
	quoted := pgx.Identifier{name}.Sanitize()
	exec(t, owner, "create role "+quoted+" login")
	t.Cleanup(func() {
		if _, err := owner.Exec(context.Background(), "drop owned by "+quoted+"; drop role "+quoted); err != nil {
			t.Error(err)
		}
	})
	for _, right := range rights {
		exec(t, owner, fmt.Sprintf(right, quoted))
	}
	config := owner.Config()
	config.MaxConns = 8
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "set session authorization "+quoted)
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return name, pool
}

func wantIncompatible(t *testing.T, what string, err error) {
	t.Helper()
	var incompatible *gworker.IncompatibleSchemaError
	if !errors.As(err, &incompatible) || incompatible.Breaking != 1000 {
		t.Errorf("%s: %v, want an IncompatibleSchemaError for revision 1000", what, err)
	}
}

// operations are some of a client's, of each kind.
func operations(client *gworker.Client) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"AddJob": func(ctx context.Context) error { _, err := client.AddJob(ctx, gworker.JobSpec{Task: "x"}); return err },
		"AddJobs": func(ctx context.Context) error {
			_, err := client.AddJobs(ctx, []gworker.JobSpec{{Task: "x", Key: "k"}})
			return err
		},
		"RemoveJob":    func(ctx context.Context) error { _, err := client.RemoveJob(ctx, "k"); return err },
		"ListJobs":     func(ctx context.Context) error { _, err := client.ListJobs(ctx, gworker.JobFilter{}); return err },
		"GetJob":       func(ctx context.Context) error { _, err := client.GetJob(ctx, 1); return err },
		"Stats":        func(ctx context.Context) error { _, err := client.Stats(ctx, gworker.StatsOptions{}); return err },
		"Sweep":        func(ctx context.Context) error { _, err := client.Sweep(ctx, gworker.SweepOptions{}); return err },
		"Cleanup":      func(ctx context.Context) error { _, err := client.Cleanup(ctx, gworker.CleanupOptions{}); return err },
		"CompleteJobs": func(ctx context.Context) error { _, err := client.CompleteJobs(ctx, []int64{1}); return err },
		"Cancel":       func(ctx context.Context) error { _, err := client.Cancel(ctx, 1, "r"); return err },
	}
}

func TestClientRefusesANewerBreakingRevision(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	exec(t, pool, "select graphile_worker.add_job('x', job_key := 'k')")
	exec(t, pool, "insert into graphile_worker.migrations (id, breaking) values (1000, true), (1001, false)")
	for what, operation := range operations(newClient(t, pool)) {
		client := newClient(t, pool)
		wantIncompatible(t, what, operations(client)[what](t.Context()))
		wantIncompatible(t, what+" again", operation(t.Context()))
	}
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := newClient(t, pool).WithTx(tx).AddJob(t.Context(), gworker.JobSpec{Task: "x"})
		wantIncompatible(t, "WithTx", err)
		_, err = tx.Exec(t.Context(), "select 1") // it goes on
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = newClient(t, pool).WithSQLTx(tx).AddJob(t.Context(), gworker.JobSpec{Task: "x"})
	wantIncompatible(t, "WithSQLTx", err)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if n := jobCount(t, pool); n != 1 {
		t.Errorf("%d jobs, want the one that was there", n)
	}
}

// What is known of the schema is asked once, and again when told.
func TestClientLooksAtTheSchemaOnce(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	add(t, client, gworker.JobSpec{Task: "x"})
	exec(t, pool, "insert into graphile_worker.migrations (id, breaking) values (1000, true)")
	add(t, client, gworker.JobSpec{Task: "x"})
	wantIncompatible(t, "CheckSchema", client.CheckSchema(t.Context()))
	_, err := client.AddJob(t.Context(), gworker.JobSpec{Task: "x"})
	wantIncompatible(t, "AddJob", err)
	exec(t, pool, "delete from graphile_worker.migrations where id = 1000")
	if err := client.CheckSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(t, client, gworker.JobSpec{Task: "x"})
}

func TestCheckSchemaWithoutASchema(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, Schema: "no such"})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.CheckSchema(t.Context()); !errors.Is(err, gworker.ErrNotInstalled) {
		t.Errorf("got %v, want ErrNotInstalled", err)
	}
}

// The worker's own client is told of a migration by its worker.
func TestWorkersClientIsToldOfABreakingRevision(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	blocked := make(chan struct{})
	r := start(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{gworker.NewTask("x", func(context.Context, *gworker.Job[any]) error {
		<-blocked
		return nil
	})}})
	client := r.Worker.Client()
	add(t, client, gworker.JobSpec{Task: "x"})
	waitFor(t, r.events, func(gworker.JobStarted) bool { return true })
	exec(t, pool, "insert into graphile_worker.migrations (id, breaking) values (1000, true)")
	exec(t, pool, `select pg_notify('worker:migrate', '{"migrationNumber":1000,"breaking":true}')`)
	waitFor(t, r.events, func(gworker.BreakingMigration) bool { return true })
	_, err := client.AddJob(t.Context(), gworker.JobSpec{Task: "x"})
	wantIncompatible(t, "AddJob", err)
	close(blocked)
	waitFor(t, r.events, func(gworker.WorkerStopped) bool { return true })
	if err := r.stop(); !errors.Is(err, gworker.ErrBreakingMigration) {
		t.Errorf("Run returned %v", err)
	}
	if n := jobCount(t, pool); n != 0 {
		t.Errorf("%d jobs are left: the one that ran was to be completed", n)
	}
}

// A role without rights to the ledger adds jobs nevertheless, also in its transaction.
func TestClientWithoutRightsToTheLedger(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	_, poor := newRole(t, pool, "grant usage on schema graphile_worker to %s", "grant all on graphile_worker._private_jobs, "+
		"graphile_worker._private_tasks, graphile_worker._private_job_queues to %s",
		"create policy a on graphile_worker._private_jobs to %s using (true)",
		"create policy a on graphile_worker._private_tasks to %s using (true)",
		"create policy a on graphile_worker._private_job_queues to %s using (true)")
	client := newClient(t, poor)
	err := pgx.BeginFunc(t.Context(), poor, func(tx pgx.Tx) error {
		_, err := client.WithTx(tx).AddJob(t.Context(), gworker.JobSpec{Task: "x"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	add(t, client, gworker.JobSpec{Task: "x"})
}

// To a role that row level security blinds, the queue looks empty.
func TestHiddenRows(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	pool := migrated(t)
	exec(t, pool, "select graphile_worker.add_job('x')")
	name, blind := newRole(t, pool, "grant usage on schema graphile_worker to %s",
		"grant all on all tables in schema graphile_worker to %s")
	var hidden *gworker.HiddenRowsError
	if err := newClient(t, blind).CheckSchema(t.Context()); !errors.As(err, &hidden) || hidden.Role != name ||
		fmt.Sprint(hidden.Tables) != "[_private_job_queues _private_jobs _private_tasks]" {
		t.Errorf("CheckSchema: %v", err)
	}
	seen := newEvents()
	worker, err := gworker.NewWorker(gworker.Config{Pool: blind, ConnectTimeout: time.Minute, Observers: []func(gworker.Event){seen.observe},
		Tasks: []gworker.Task{gworker.NewTask("x", func(context.Context, *gworker.Job[any]) error { return nil })}})
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.RunOnce(t.Context()); !errors.As(err, &hidden) {
		t.Errorf("RunOnce: %v", err)
	}
	if n := count[gworker.SchemaWarning](seen); n != 1 {
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
	name, reader := newRole(t, pool, "grant usage on schema graphile_worker to %s",
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
			role, mine := newRole(t, pool)
			if _, err := client.Grant(t.Context(), gworker.RightsWorker, role, gworker.GrantOptions{}); err != nil {
				t.Fatal(err)
			}
			w := start(t, gworker.Config{Pool: mine, NoMigrations: true, NoListen: !listens,
				Recovery: gworker.RecoveryConfig{HeartbeatInterval: 50 * time.Millisecond, StaleAfter: time.Hour},
				Tasks:    []gworker.Task{gworker.NewRawTask("x", nothing)}})
			job := add(t, client, gworker.JobSpec{Task: "x"})
			waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == job.ID })
			var policy string
			scan(t, pool, "select quote_ident(polname) from pg_policy where polrelid = 'graphile_worker._private_jobs'::regclass", nil, &policy)
			exec(t, pool, "drop policy "+policy+" on graphile_worker._private_jobs")
			waitFor(t, w.events, func(e gworker.SchemaWarning) bool {
				return strings.Contains(e.Message, "sees no rows of _private_jobs")
			})
			if err := w.stop(); err != nil {
				t.Error(err)
			}
			if n := count[gworker.SchemaWarning](w.events); n != 1 {
				t.Errorf("%d warnings, want 1", n)
			}
		})
	}
}

// With row_security off, a statement that a policy concerns is an error.
func TestRowSecurityOff(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	_, mine := newRole(t, pool, "grant usage on schema graphile_worker to %s", "grant all on all tables in schema graphile_worker to %s")
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

// A breaking migration is not missed because the ledger could not be read when it was
// heard of.
func TestBreakingMigrationAfterAnUnreadLedger(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	role, mine := newRole(t, pool)
	if _, err := client.Grant(t.Context(), gworker.RightsWorker, role, gworker.GrantOptions{}); err != nil {
		t.Fatal(err)
	}
	w := start(t, gworker.Config{Pool: mine, NoMigrations: true,
		Recovery: gworker.RecoveryConfig{HeartbeatInterval: 50 * time.Millisecond, StaleAfter: time.Hour},
		Tasks:    []gworker.Task{gworker.NewRawTask("x", nothing)}})
	waitFor[gworker.ListenerConnected](t, w.events, nil)
	add(t, client, gworker.JobSpec{Task: "x"}) // what comes before it was acted on then
	waitFor[gworker.NotificationReceived](t, w.events, nil)
	quoted := pgx.Identifier{role}.Sanitize()
	exec(t, pool, "revoke select on graphile_worker.migrations from "+quoted)
	exec(t, pool, "insert into graphile_worker.migrations (id, breaking) values (1000, true)")
	exec(t, pool, "notify \"worker:migrate\", '{}'")
	waitFor(t, w.events, func(e gworker.SchemaWarning) bool { return strings.Contains(e.Message, "trying again") })
	exec(t, pool, "grant select on graphile_worker.migrations to "+quoted)
	waitFor(t, w.events, func(e gworker.BreakingMigration) bool { return e.Revision == 1000 })
	waitFor[gworker.WorkerStopped](t, w.events, nil)
	if err := w.stop(); !errors.Is(err, gworker.ErrBreakingMigration) {
		t.Error(err)
	}
	if n := count[gworker.SchemaWarning](w.events); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}
