package e2e_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
)

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
	waitFor(t, r.Events, func(event.JobStarted) bool { return true })
	exec(t, pool, "insert into graphile_worker.migrations (id, breaking) values (1000, true)")
	exec(t, pool, `select pg_notify('worker:migrate', '{"migrationNumber":1000,"breaking":true}')`)
	waitFor(t, r.Events, func(event.BreakingMigration) bool { return true })
	_, err := client.AddJob(t.Context(), gworker.JobSpec{Task: "x"})
	wantIncompatible(t, "AddJob", err)
	close(blocked)
	waitFor(t, r.Events, func(event.WorkerStopped) bool { return true })
	if err := r.Stop(); !errors.Is(err, gworker.ErrBreakingMigration) {
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
	_, poor := testdb.Role(t, pool, "grant usage on schema graphile_worker to %s", "grant all on graphile_worker._private_jobs, "+
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

// A breaking migration is not missed because the ledger could not be read when it was
// heard of.
func TestBreakingMigrationAfterAnUnreadLedger(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	role, mine := testdb.Role(t, pool)
	if _, err := client.Grant(t.Context(), gworker.RightsWorker, role, gworker.GrantOptions{}); err != nil {
		t.Fatal(err)
	}
	w := start(t, gworker.Config{Pool: mine, NoMigrations: true,
		Recovery: gworker.RecoveryConfig{HeartbeatInterval: 50 * time.Millisecond, StaleAfter: time.Hour},
		Tasks:    []gworker.Task{gworker.NewRawTask("x", nothing)}})
	waitFor[event.ListenerConnected](t, w.Events, nil)
	add(t, client, gworker.JobSpec{Task: "x"}) // what comes before it was acted on then
	waitFor[event.NotificationReceived](t, w.Events, nil)
	quoted := pgx.Identifier{role}.Sanitize()
	exec(t, pool, "revoke select on graphile_worker.migrations from "+quoted)
	exec(t, pool, "insert into graphile_worker.migrations (id, breaking) values (1000, true)")
	exec(t, pool, "notify \"worker:migrate\", '{}'")
	waitFor(t, w.Events, func(e event.SchemaWarning) bool { return strings.Contains(e.Message, "trying again") })
	exec(t, pool, "grant select on graphile_worker.migrations to "+quoted)
	waitFor(t, w.Events, func(e event.BreakingMigration) bool { return e.Revision == 1000 })
	waitFor[event.WorkerStopped](t, w.Events, nil)
	if err := w.Stop(); !errors.Is(err, gworker.ErrBreakingMigration) {
		t.Error(err)
	}
	if n := count[event.SchemaWarning](w.Events); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}

func TestBreakingMigrationStopsTheWorker(t *testing.T) {
	pool := migrated(t)
	w := start(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	waitFor[event.ListenerConnected](t, w.Events, nil)
	// Another schema's breaking migration is none of ours.
	exec(t, pool, `select pg_notify('worker:migrate', '{"migrationNumber":1001,"breaking":true}')`)
	exec(t, pool, "select graphile_worker.add_job('x')")
	waitFor[event.JobCompleted](t, w.Events, nil)

	exec(t, pool, "insert into graphile_worker.migrations (id, breaking) values (1001, true)")
	exec(t, pool, `select pg_notify('worker:migrate', '{"migrationNumber":1001,"breaking":true}')`)
	stopped := waitFor[event.WorkerStopped](t, w.Events, nil)
	if !errors.Is(stopped.Err, gworker.ErrBreakingMigration) || !errors.Is(w.Stop(), gworker.ErrBreakingMigration) {
		t.Errorf("Run returned %v", stopped.Err)
	}
}
