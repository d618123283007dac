package gworker_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// sqlTaskPools are the ways to make a worker's connections: they end a statement
// in different ways.
func sqlTaskPools(url string) map[string]func(*testing.T) gworker.Config {
	return map[string]func(*testing.T) gworker.Config{
		"own":        func(*testing.T) gworker.Config { return gworker.Config{DatabaseURL: url} },
		"unprepared": func(*testing.T) gworker.Config { return gworker.Config{DatabaseURL: url, NoPreparedStatements: true} },
		"given":      func(t *testing.T) gworker.Config { return gworker.Config{Pool: testdb.Pool(t, url)} },
	}
}

// TestSQLTaskCopies: data from the client cannot come, and data for it is dropped.
func TestSQLTaskCopies(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for name, c := range map[string]struct{ sql, says string }{
		"in":       {"insert into seen values (1); copy seen from stdin; insert into seen values (2)", "copy ... from stdin"},
		"in alone": {"copy seen from stdin (format csv)", "copy ... from stdin"},
		"in twice": {"copy seen from stdin; copy seen from stdin;", "copy ... from stdin"},
		"binary":   {"copy seen from stdin (format binary)", "copy ... from stdin"},
		"psql":     {"copy seen from stdin;\n1\n2\n\\.\n", "syntax error"},
		"out":      {"insert into seen values (1); copy seen to stdout; copy (select generate_series(1, 100000)) to stdout; insert into seen values (2)", ""},
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			url := testdb.Migrated(t)
			pool := testdb.Pool(t, url)
			exec(t, pool, "create table seen (id int)")
			client := newClient(t, pool)
			job := add(t, client, gworker.JobSpec{Task: "copies", Queue: "q"})
			after := add(t, client, gworker.JobSpec{Task: "after", Queue: "q"})
			e := runOnce(t, gworker.Config{DatabaseURL: url, Concurrency: 1, MaxPoolSize: 2, Tasks: testworker.SQLTasks(t, map[string]string{
				"copies": c.sql, "after": "insert into seen values (3)",
			})})
			waitFor(t, e, func(e event.JobCompleted) bool { return e.Job.ID == after.ID })
			var ids []int
			scan(t, pool, "select coalesce(array_agg(id order by id), '{}') from seen", nil, &ids)
			if c.says == "" {
				waitFor(t, e, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
				if len(ids) != 3 {
					t.Errorf("seen is %v", ids)
				}
				return
			}
			row := testworker.ReadFailure(t, pool, job.ID)
			if row.Attempts != 1 || row.LockedBy != nil || !strings.Contains(row.LastError, c.says) || len(ids) != 1 {
				t.Errorf("row %+v, seen %v", row, ids)
			}
		})
	}
}

// TestSQLTaskEndsAtItsTimeout: whatever the file does, its slot and its connection
// are free after the time-out, and nothing of it goes on in the server.
func TestSQLTaskEndsAtItsTimeout(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for file, sql := range map[string]string{
		"sleep":    "select pg_sleep(3600)",
		"copy in":  "select pg_sleep(1); copy seen from stdin",
		"copy out": "copy (select repeat('x', 1000) from generate_series(1, 1000000000)) to stdout",
		"rows":     "select repeat('x', 1000) from generate_series(1, 1000000000)",
		"notices":  "do $$ begin loop raise notice 'x'; end loop; end $$",
		"waits":    "lock table blocked; select 1",
		"catches":  "do $$ begin loop begin perform pg_sleep(3600); exception when query_canceled then null; end; end loop; end $$",
		"masks":    "set local statement_timeout = 1; do $$ begin loop begin perform pg_sleep(3600); exception when query_canceled then null; end; end loop; end $$",
	} {
		t.Run(file, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			url := testdb.Migrated(t)
			for kind, config := range sqlTaskPools(url) {
				pool := testdb.Pool(t, url)
				exec(t, pool, "create table if not exists seen (id int); create table if not exists blocked ()")
				tx, err := pool.Begin(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = tx.Rollback(context.Background()) }()
				if _, err := tx.Exec(t.Context(), "lock table blocked"); err != nil {
					t.Fatal(err)
				}
				client := newClient(t, pool)
				job := add(t, client, gworker.JobSpec{Task: "endless"})
				config := config(t)
				config.MaxPoolSize = 2
				if config.Pool != nil {
					config.MaxPoolSize = 0
				}
				config.Tasks = testworker.SQLTasks(t, map[string]string{"endless": sql, "after": "select 1"})
				config.Tasks[1] = config.Tasks[1].With(gworker.TaskOptions{Timeout: 300 * time.Millisecond})
				config.Tasks[0] = config.Tasks[0].With(gworker.TaskOptions{Timeout: 300 * time.Millisecond})
				config.Concurrency = 1
				w := start(t, config)
				failed := waitFor(t, w.Events, func(e event.JobFailed) bool { return e.Job.ID == job.ID })
				if !strings.Contains(failed.Err.Error(), "time") {
					t.Errorf("%s: error %v", kind, failed.Err)
				}
				next := add(t, client, gworker.JobSpec{Task: "after"})
				waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == next.ID })
				noneRuns(t, pool, sql)
				if err := w.Stop(); err != nil {
					t.Error(err)
				}
				if row := testworker.ReadFailure(t, pool, job.ID); row.LockedBy != nil {
					t.Errorf("%s: row %+v", kind, row)
				}
				_ = tx.Rollback(context.Background())
			}
		})
	}
}

// noneRuns waits until no server process runs sql.
func noneRuns(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var n int
		scan(t, pool, "select count(*) from pg_stat_activity where datname = current_database() and query = $1 and state <> 'idle'", []any{sql}, &n)
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server still runs %q", sql)
		}
	}
}

// TestSQLTaskThatDeallocates: whatever a file does to the prepared statements of its
// session, neither its own job fails for it, nor any after it on the same connection.
func TestSQLTaskThatDeallocates(t *testing.T) {
	var sample testdb.Sample
	for name, sql := range map[string]string{
		"deallocate": "deallocate all",
		"in a block": "do $$ begin execute 'dealloc' || 'ate all'; end $$", // seen only by what it has done
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			config, err := pgxpool.ParseConfig(testdb.Migrated(t))
			if err != nil {
				t.Fatal(err)
			}
			config.MaxConns = 2
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			client := newClient(t, pool)
			for range 6 {
				for _, task := range []string{"other", "deallocates", "go"} {
					add(t, client, gworker.JobSpec{Task: task})
				}
			}
			e := runOnce(t, gworker.Config{Pool: pool, HoldTime: new(time.Duration), Concurrency: 1, Tasks: append(
				testworker.SQLTasks(t, map[string]string{"deallocates": sql, "other": "select 1"}), gworker.NewRawTask("go", nothing),
			)})
			if n := jobCount(t, pool); n != 0 || count[event.JobFailed](e) != 0 {
				seen, _ := e.Seen()
				t.Errorf("%d jobs are left: %s", n, testworker.Describe(seen))
			}
		})
	}
}
