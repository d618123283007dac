//go:build unix

package poolers_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // database/sql through the pooler

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// The pooler is as unkind as the other tests need it: what works without a
// session is no proof where sessions would work too.
func TestPreparedStatementsDoNotSurvive(t *testing.T) {
	t.Parallel()
	s := behind(t, testdb.Migrated(t))
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for range 20 {
		if _, err = client.AddJob(t.Context(), gworker.JobSpec{Task: "t"}); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "prepared statement") {
		t.Errorf("prepared statements seem to work behind this pooler: %v", err)
	}
}

// A fleet that starts on an empty database has more processes than the pooler
// has connections. Whoever waits for its turn must not keep one.
func TestAFleetMigrates(t *testing.T) {
	t.Parallel()
	s := behind(t, testdb.Empty(t))
	var wg sync.WaitGroup
	for range 12 {
		client := s.client(t)
		wg.Go(func() {
			if err := client.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := one[int](t, s.pool, `select count(*) from graphile_worker.migrations`); n != 20 {
		t.Errorf("%d revisions", n)
	}
	s.wantNothingLeft(t)
}

// wantNothingLeft looks into every session that the pooler has with the server.
func (s setting) wantNothingLeft(t *testing.T) {
	t.Helper()
	if n := one[int](t, s.pool, `select count(*) from pg_locks l join pg_database d on d.oid = l.database
		where l.locktype = 'advisory' and d.datname = current_database()`); n != 0 {
		t.Errorf("%d advisory locks are left", n)
	}
	pool := s.through(t)
	pids := map[int]bool{}
	for range 40 {
		var pid, prepared, listening int
		err := pool.QueryRow(t.Context(), `select pg_backend_pid(), (select count(*) from pg_prepared_statements where name <> ''),
			(select count(*) from pg_listening_channels())`).Scan(&pid, &prepared, &listening)
		if err != nil {
			t.Fatal(err)
		}
		pids[pid] = true
		if prepared+listening != 0 {
			t.Fatalf("session %d has %d prepared statements and listens to %d channels", pid, prepared, listening)
		}
	}
	if len(pids) < 2 {
		t.Errorf("only %d sessions were looked into", len(pids))
	}
}

// TestEverythingThrough runs each kind of job, added in each way, with no way to
// the server but the pooler.
func TestEverythingThrough(t *testing.T) {
	t.Parallel()
	s := behind(t, testdb.Empty(t))
	client := s.client(t)
	if err := client.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	testdb.Exec(t, s.pool, "create table effects (text text)")
	// Times that are sent as text are not to depend on this.
	testdb.Exec(t, s.pool, "do $$ begin execute format('alter database %I set datestyle = ''German''', current_database()); end $$")

	// Outside of transactions, and in those of pgx and database/sql.
	testworker.Add(t, client, gworker.JobSpec{Task: "ok", Payload: 1})
	if _, err := client.AddJobs(t.Context(), []gworker.JobSpec{
		{Task: "ok", Payload: 2, Queue: "q"}, {Task: "ok", Payload: 3, Queue: "q", Key: "k"}, {Task: "ok", Key: "gone"},
	}); err != nil {
		t.Fatal(err)
	}
	if row, err := client.RemoveJob(t.Context(), "gone"); err != nil || row == nil {
		t.Fatalf("removed %v, %v", row, err)
	}
	through := s.through(t)
	for _, commit := range []bool{true, false} {
		err := pgx.BeginFunc(t.Context(), through, func(tx pgx.Tx) error {
			testworker.Add(t, client.WithTx(tx), gworker.JobSpec{Task: "sql", Payload: map[string]any{"text": "pgx"}})
			if !commit {
				return errors.New("rolled back")
			}
			return nil
		})
		if commit != (err == nil) {
			t.Fatal(err)
		}
	}
	db, err := sql.Open("pgx", s.URL()+"&default_query_exec_mode=exec")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	testworker.Add(t, client.WithSQLTx(tx), gworker.JobSpec{Task: "sql", Payload: map[string]any{"text": "sql"}})
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	testworker.Add(t, client, gworker.JobSpec{Task: "fails", MaxAttempts: 1})
	testworker.Add(t, client, gworker.JobSpec{Task: "fails", MaxAttempts: 2})

	files, err := gworker.LoadTasksFS(fstest.MapFS{"sql.sql": {Data: []byte(
		`set lock_timeout = '7s'; set datestyle = 'Postgres'; insert into effects select current_setting('gworker.payload')::json ->> 'text';`,
	)}})
	if err != nil {
		t.Fatal(err)
	}
	config := s.config(append(files.Tasks,
		gworker.NewTask("ok", func(context.Context, *gworker.Job[*int]) error { return nil }),
		gworker.NewTask("fails", func(context.Context, *gworker.Job[any]) error { return errors.New("on purpose") }),
	)...)
	config.PollInterval, config.NoListen, config.MaxPoolSize = 20*time.Millisecond, true, 2
	config.Recovery.HeartbeatInterval = 100 * time.Millisecond
	w := testworker.Start(t, config)
	testworker.WaitForN[event.JobCompleted](t, w.Events, 5, nil)
	testworker.WaitForN[event.JobPermanentlyFailed](t, w.Events, 1, nil)
	testworker.WaitForN[event.JobFailed](t, w.Events, 1, nil)
	for range 3 {
		testworker.Add(t, client, gworker.JobSpec{Task: "sql", Payload: map[string]any{"text": nil}})
		testworker.Add(t, client, gworker.JobSpec{Task: "ok", Payload: 4})
	}
	testworker.WaitForN[event.JobCompleted](t, w.Events, 11, nil)
	for _, e := range testworker.Seen[event.ClaimFailed](w.Events) {
		t.Errorf("a claim failed: %v", e.Err)
	}
	if got := one[string](t, s.pool, "select string_agg(text, ',' order by text) from effects"); got != "pgx,sql" {
		t.Errorf("effects of SQL tasks: %s", got)
	}
	if n := one[int](t, s.pool, "select count(*) from graphile_worker._private_jobs where last_error = 'on purpose'"); n != 2 {
		t.Errorf("%d failures are stored", n)
	}

	// The heartbeat goes through the pooler, too.
	last := `select last_heartbeat_at from graphile_worker._private_workers where id = $1`
	first := one[time.Time](t, s.pool, last, w.ID())
	until(t, "two heartbeats", func() (bool, error) {
		return one[time.Time](t, s.pool, last, w.ID()).After(first.Add(100 * time.Millisecond)), nil
	})
	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	if n := one[int](t, s.pool, "select count(*) from graphile_worker._private_workers"); n != 0 {
		t.Errorf("%d workers are registered after the end", n)
	}
	for _, e := range testworker.Seen[event.HeartbeatFailed](w.Events) {
		t.Errorf("a heartbeat failed: %v", e.Err)
	}
	if n := len(testworker.Seen[event.ListenerConnected](w.Events)) + len(testworker.Seen[event.ListenerLost](w.Events)); n != 0 {
		t.Errorf("a listener was there, with NoListen")
	}
	s.wantNothingLeft(t)

	// What the SQL tasks have set stays with nobody, and what they have reset
	// does not confuse the worker's own connections.
	for range 20 {
		if got := one[string](t, through, "select current_setting('lock_timeout')"); got != "0" {
			t.Fatalf("a session of the pooler was left with lock_timeout %s", got)
		}
	}
}
