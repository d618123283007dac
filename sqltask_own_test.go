package gworker_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// TestSQLTaskChangesItsOwnJob: whatever a file does to its job's row, the worker leaves
// no lock behind, and a failed attempt waits for its next one.
func TestSQLTaskChangesItsOwnJob(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	const own = " where id = current_setting('gworker.job_id')::bigint;"
	for name, c := range map[string]struct {
		sql  string
		says string // "": the job is complete
		gone bool   // also after the failure
	}{
		"deletes":              {sql: "delete from graphile_worker._private_jobs" + own, says: "deleted or unlocked its own job"},
		"unlocks":              {sql: "update graphile_worker._private_jobs set locked_by = null, locked_at = null" + own, says: "deleted or unlocked its own job"},
		"takes over":           {sql: "update graphile_worker._private_jobs set locked_by = 'me'" + own, says: "deleted or unlocked its own job"},
		"changes the attempts": {sql: "update graphile_worker._private_jobs set attempts = 0" + own, says: "changed its attempts"},
		"unlocks workers": {sql: "select graphile_worker.force_unlock_workers(array(select locked_by from graphile_worker._private_jobs where locked_by is not null))",
			says: "deleted or unlocked its own job"},
		"unlocks its queue":   {sql: "update graphile_worker._private_job_queues set locked_by = null, locked_at = null"},
		"changes its payload": {sql: "update graphile_worker._private_jobs set payload = '1', priority = 7, run_at = now() + interval '1 hour'" + own},
		"removes by key":      {sql: "select graphile_worker.remove_job(current_setting('gworker.key'))"},
		"completes":           {sql: "select graphile_worker.complete_jobs(array[current_setting('gworker.job_id')::bigint])"},
		"sets its id":         {sql: "set gworker.job_id = '77'"},
		"sets its id locally": {sql: "select set_config('gworker.job_id', '', true)"},
		"resets all":          {sql: "reset all"},
		"changes its role":    {sql: "set role pg_monitor"},
		"changes its user":    {sql: "set session authorization pg_monitor"},
		"changes its path":    {sql: "set search_path to nowhere; set local datestyle = 'German'"},
		"leaves a savepoint":  {sql: "savepoint a; insert into seen values (1)"},
		"unlocks and commits": {sql: "update graphile_worker._private_jobs set locked_by = null, locked_at = null" + own + "commit", says: "leave out begin, commit"},
		"starts over and commits": {sql: "update graphile_worker._private_jobs set locked_by = null, locked_at = null, attempts = 0" + own + "commit; begin",
			says: "leave out begin, commit"},
		"deletes and commits": {sql: "delete from graphile_worker._private_jobs" + own + "commit", gone: true},
		"begins again":        {sql: "commit; begin", says: "leave out begin, commit"},
		"begins again as before": {sql: "commit; begin; select set_config('gworker.job_id', (select id::text from graphile_worker._private_jobs where locked_by is not null), true)",
			says: "leave out begin, commit"},
		"chains": {sql: "commit and chain", says: "leave out begin, commit"},
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			url := testdb.Migrated(t)
			pool := testdb.Pool(t, url)
			exec(t, pool, "create table seen (id int)")
			client := newClient(t, pool)
			job := add(t, client, gworker.JobSpec{Task: "x", Key: "k", Queue: "q"})
			e := runOnce(t, gworker.Config{DatabaseURL: url, Tasks: testworker.SQLTasks(t, map[string]string{"x": c.sql})})
			testworker.NoLocks(t, pool)
			if n := count[event.JobStarted](e); n != 1 {
				t.Errorf("the job was started %d times", n)
			}
			if c.says == "" {
				if n := count[event.JobCompleted](e); n != 1 != c.gone || jobCount(t, pool) != 0 {
					t.Errorf("%d completions, %d jobs left", n, jobCount(t, pool))
				}
				return
			}
			row := testworker.ReadFailure(t, pool, job.ID)
			if !strings.Contains(row.LastError, c.says) || row.Delay < 1 {
				t.Errorf("row %+v", row)
			}
		})
	}
}

// TestSQLTaskIsFenced: the lock is taken away while the file runs, so nothing of it may
// commit.
func TestSQLTaskIsFenced(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for name, change := range map[string]string{
		"locked by another": "update graphile_worker._private_jobs set locked_by = 'another worker'",
		"deleted":           "delete from graphile_worker._private_jobs",
		"unlocked":          "update graphile_worker._private_jobs set locked_by = null, locked_at = null, run_at = now() + interval '1 hour'",
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			pool := migrated(t)
			exec(t, pool, "create table seen (id int)")
			job := add(t, newClient(t, pool), gworker.JobSpec{Task: "x", Queue: "q"})
			turn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer turn.Release()
			if _, err := turn.Exec(t.Context(), "select pg_advisory_lock(7)"); err != nil {
				t.Fatal(err)
			}
			w := start(t, gworker.Config{Pool: pool, Tasks: testworker.SQLTasks(t, map[string]string{"x": `
				insert into seen values (1);
				select pg_advisory_xact_lock(7)`})})
			waitFor[event.JobStarted](t, w.Events, nil)
			exec(t, pool, change)
			if _, err := turn.Exec(t.Context(), "select pg_advisory_unlock(7)"); err != nil {
				t.Fatal(err)
			}
			waitFor(t, w.Events, func(e event.JobLost) bool { return e.Job.ID == job.ID && !e.Unsure })
			if err := w.Stop(); err != nil {
				t.Error(err)
			}
			var n, queues int
			scan(t, pool, "select count(*), (select count(*) from graphile_worker._private_job_queues where locked_at is not null) from seen", nil, &n, &queues)
			if n != 0 || queues != 0 {
				t.Errorf("%d rows of the file were committed without its job's completion, %d queues are locked", n, queues)
			}
		})
	}
}

// TestSQLTaskKeepsWhatHooksHaveSet: the next user of the connection finds the session
// as the pool's hook made it, whether the file succeeds, fails, or leaves its transaction.
func TestSQLTaskKeepsWhatHooksHaveSet(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	url := testdb.Migrated(t)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	admin := testdb.Pool(t, url)
	var role string
	scan(t, admin, "select 'app_' || current_database()", nil, &role)
	exec(t, admin, "create role "+role+" superuser")
	t.Cleanup(func() {
		if _, err := admin.Exec(context.Background(), "drop role "+role); err != nil {
			t.Error(err)
		}
	})
	config.MaxConns = 1
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "set search_path to app, public; set work_mem = '7MB'; set app.tenant = 'it''s'; set role "+role)
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, sql := range []string{
		"select 1", "select 1/0", "set role none; set work_mem = '9MB'", "set role none; reset all; select 1/0",
		"reset all; reset role; set app.tenant = 'other'; commit", "set session authorization pg_monitor; commit",
		"copy pg_class from stdin",
	} {
		add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
		runOnce(t, gworker.Config{DatabaseURL: "", Pool: pool, NoListen: true, Tasks: testworker.SQLTasks(t, map[string]string{"x": sql})})
		var session string
		scan(t, pool, "select concat_ws('|', current_user, current_setting('search_path'), current_setting('work_mem'), current_setting('app.tenant'))", nil, &session)
		if want := role + "|app, public|7MB|it's"; session != want {
			t.Errorf("after %q the session is %q, want %q", sql, session, want)
		}
	}
}

// TestSQLTaskLeavesNothingInItsSession: what outlives a transaction is gone with the
// file's run, whether it succeeds or not, so that the next one on the connection finds
// none of it, and others do not wait for its locks.
func TestSQLTaskLeavesNothingInItsSession(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"advisory lock":        "select pg_advisory_lock(11)",
		"shared advisory lock": "select pg_advisory_lock_shared(11, 12)",
		"hidden lock":          "do $$ begin execute 'select pg_advi' || 'sory_lock(13)'; end $$",
		"temporary table":      "create temp table own (id int); insert into own values (1)",
		"cursor":               "declare own cursor with hold for select generate_series(1, 10)",
		"channel":              "listen own",
	} {
		for _, end := range []string{"", "; select 1/0", "; commit", "; commit; select 1/0"} {
			t.Run(name+end, func(t *testing.T) {
				t.Parallel()
				url := testdb.Migrated(t)
				pool := testdb.Pool(t, url)
				config, err := pgxpool.ParseConfig(url)
				if err != nil {
					t.Fatal(err)
				}
				config.MaxConns = 2 // the file's, and the worker's
				own, err := pgxpool.NewWithConfig(t.Context(), config)
				if err != nil {
					t.Fatal(err)
				}
				defer own.Close()
				client := newClient(t, pool)
				for range 3 {
					add(t, client, gworker.JobSpec{Task: "x", MaxAttempts: 1})
				}
				e := runOnce(t, gworker.Config{Pool: own, Concurrency: 1, Tasks: testworker.SQLTasks(t, map[string]string{"x": sql + end})})
				if done := count[event.JobCompleted](e); end == "" && done != 3 {
					var why string
					scan(t, pool, "select max(last_error) from graphile_worker._private_jobs", nil, &why)
					t.Errorf("%d of 3 jobs were completed: %s", done, why)
				}
				var locks int
				scan(t, pool, "select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())", nil, &locks)
				if locks != 0 {
					t.Errorf("%d advisory locks are left", locks)
				}
				for _, conn := range own.AcquireAllIdle(t.Context()) {
					var left int
					if err := conn.QueryRow(t.Context(), `select (select count(*) from pg_listening_channels()) +
						(select count(*) from pg_cursors where name = 'own') + (select count(*) from pg_class where relpersistence = 't' and relname = 'own')`).Scan(&left); err != nil || left != 0 {
						t.Errorf("%d things are left in a session (%v)", left, err)
					}
					conn.Release()
				}
			})
		}
	}
}
