package gworker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

func TestSQLTaskSeesItsJob(t *testing.T) {
	pool := migrated(t)
	payload := map[string]any{"text": "it's \"odd\" $1 ☃"}
	job := add(t, newClient(t, pool), gworker.JobSpec{
		Task: "reports/daily", Payload: payload, Queue: "q", Key: "k", Priority: 3, MaxAttempts: 9,
		RunAt: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC),
	})
	exec(t, pool, "create table seen (line text)")
	e := runOnce(t, gworker.Config{Pool: pool, Tasks: testworker.SQLTasks(t, map[string]string{"reports/daily": `
		insert into seen select current_setting('gworker.payload')::json ->> 'text';
		insert into seen select concat_ws('|', current_setting('gworker.job_id'), current_setting('gworker.task'),
			current_setting('gworker.attempt'), current_setting('gworker.max_attempts'), current_setting('gworker.queue'),
			current_setting('gworker.key'), current_setting('gworker.priority'), current_setting('gworker.run_at'));
		select graphile_worker.add_job('next')`})})
	waitFor(t, e, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
	var lines []string
	scan(t, pool, "select array_agg(line) from seen", nil, &lines)
	want := []string{payload["text"].(string), "1|reports/daily|1|9|q|k|3|2020-01-02T03:04:05Z"}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("the file saw\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if n := jobCount(t, pool); n != 1 {
		t.Errorf("%d jobs left, want the one that the file added", n)
	}
}

func TestSQLTaskFailsAsAWhole(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for name, c := range map[string]struct{ sql, says string }{
		"error":           {"insert into seen values (1); select 1/0;", "division by zero"},
		"raise":           {"insert into seen values (1); do $$ begin raise exception 'no ink'; end $$", "no ink"},
		"syntax":          {"insert into seen values (1); selec 1", "syntax error"},
		"rollback":        {"rollback", "leave out begin"},
		"deferred":        {"insert into seen values (1); insert into child values (7)", "child"},
		"begin and again": {"insert into gone values (1); commit; begin", "leave out begin"},
	} {
		t.Run(name, func(t *testing.T) {
			pool := migrated(t)
			exec(t, pool, "create table seen (id int); create table gone (id int); create table parent (id int primary key)")
			exec(t, pool, "create table child (id int constraint child_parent references parent deferrable initially deferred)")
			job := add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
			runOnce(t, gworker.Config{Pool: pool, Tasks: testworker.SQLTasks(t, map[string]string{"x": c.sql})})
			row := testworker.ReadFailure(t, pool, job.ID)
			if row.Attempts != 1 || row.LockedBy != nil || !strings.Contains(row.LastError, c.says) {
				t.Errorf("row %+v", row)
			}
			var n int
			scan(t, pool, "select count(*) from seen", nil, &n)
			if n != 0 {
				t.Error("what the file wrote was kept")
			}
		})
	}
}

func TestSQLTaskLeavesItsConnectionAsItCame(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
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
	exec(t, pool, "create table seen (path text, who text, payload text)")
	client := newClient(t, pool)
	add(t, client, gworker.JobSpec{Task: "messy", Priority: 1})
	add(t, client, gworker.JobSpec{Task: "fails messily", Priority: 2})
	add(t, client, gworker.JobSpec{Task: "look", Priority: 3})
	runOnce(t, gworker.Config{Pool: pool, Concurrency: 1, Tasks: testworker.SQLTasks(t, map[string]string{
		"messy":         "set search_path to nowhere; set role pg_monitor; reset role; set role none",
		"fails messily": "set search_path to nowhere; select 1/0",
		"look": `insert into seen values (current_setting('search_path'), current_user::text,
			current_setting('gworker.payload'))`,
	})})
	var path, who, session string
	scan(t, pool, "select path, who, session_user::text from seen", nil, &path, &who, &session)
	if strings.Contains(path, "nowhere") || who != session {
		t.Errorf("the next task ran with search_path %q as %s", path, who)
	}
	for range 4 {
		var leftover *string
		scan(t, pool, "select nullif(current_setting('gworker.payload', true), '')", nil, &leftover)
		if leftover != nil {
			t.Errorf("a payload is left in the pool: %q", *leftover)
		}
	}
}

func TestSQLTaskEndsWithItsContext(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	pool := migrated(t)
	job := add(t, newClient(t, pool), gworker.JobSpec{Task: "long"})
	w := start(t, gworker.Config{
		Pool: pool, GracefulShutdownAbortTimeout: time.Millisecond,
		Tasks: testworker.SQLTasks(t, map[string]string{"long": "select pg_sleep(3600)"}),
	})
	waitFor[event.JobStarted](t, w.Events, nil)
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
	returned := waitFor[event.JobReturned](t, w.Events, nil)
	if !errors.Is(returned.Err, gworker.ErrShutdown) {
		t.Errorf("reason is %v", returned.Err)
	}
	if row := testworker.ReadFailure(t, pool, job.ID); row.Attempts != 0 || row.LockedBy != nil {
		t.Errorf("row %+v", row)
	}
}

func TestLoadTasksErrors(t *testing.T) {
	_, err := gworker.LoadTasks(t.TempDir())
	if !errors.Is(err, gworker.ErrNoTasks) {
		t.Errorf("empty folder: %v", err)
	}
	_, err = gworker.LoadTasksFS(fstest.MapFS{
		"a/x.sql": &fstest.MapFile{}, "a.sql": &fstest.MapFile{}, "a/X.sql": &fstest.MapFile{},
	})
	if err != nil {
		t.Errorf("names that differ: %v", err)
	}
}

// TestManySQLTasksShareASmallPool: more slots than connections must not lock
// the worker up.
func TestManySQLTasksShareASmallPool(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	url := testdb.Migrated(t)
	pool := testdb.Pool(t, url)
	exec(t, pool, "create table seen (id text)")
	specs := make([]gworker.JobSpec, 200)
	for i := range specs {
		specs[i] = gworker.JobSpec{Task: "x"}
	}
	if _, err := newClient(t, pool).AddJobs(context.Background(), specs); err != nil {
		t.Fatal(err)
	}
	runOnce(t, gworker.Config{
		DatabaseURL: url, MaxPoolSize: 2, Concurrency: 20,
		Tasks: testworker.SQLTasks(t, map[string]string{"x": "insert into seen values (current_setting('gworker.job_id'))"}),
	})
	var n int
	scan(t, pool, "select count(distinct id) from seen", nil, &n)
	if n != len(specs) || jobCount(t, pool) != 0 {
		t.Errorf("%d of %d jobs have run, %d left", n, len(specs), jobCount(t, pool))
	}
}
