package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// hostile are settings of a database under which nothing of ours may change its meaning.
var hostile = map[string]string{
	"client_encoding": "LATIN1", "datestyle": "SQL, DMY", "intervalstyle": "sql_standard", "timezone": "Asia/Kathmandu",
	"standard_conforming_strings": "off", "backslash_quote": "off", "bytea_output": "escape", "extra_float_digits": "-15",
	"transform_null_equals": "on", "quote_all_identifiers": "on", "xmloption": "document",
	"check_function_bodies": "off", "plan_cache_mode": "force_generic_plan", "session_replication_role": "replica",
	"default_transaction_deferrable": "on",
	"client_min_messages":            "debug1", "synchronous_commit": "off", "row_security": "off",
}

func setAll(t *testing.T, pool *pgxpool.Pool, settings map[string]string) {
	t.Helper()
	var database string
	scan(t, pool, "select current_database()", nil, &database)
	for name, value := range settings {
		value = "'" + value + "'"
		if name == "datestyle" {
			value = "SQL, DMY"
		}
		exec(t, pool, "alter database "+database+" set "+name+" = "+value)
	}
}

// TestSettingsOfTheDatabase: whatever a database or a role sets for its sessions, texts and
// times come back as they were given, and jobs run, fail and complete.
func TestSettingsOfTheDatabase(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for name, unprepared := range map[string]bool{"prepared": false, "unprepared": true} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			url := testdb.Empty(t)
			setAll(t, testdb.Pool(t, url), hostile)
			client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: url, NoPreparedStatements: unprepared})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if err := client.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			const text = "it's \\ \"日本\" \n é"
			job := add(t, client, gworker.JobSpec{Task: "né/日本", Key: "k-日本", Queue: "é", Payload: text})
			rows, err := client.AddJobs(t.Context(), []gworker.JobSpec{
				{Task: "fails", Payload: text}, {Task: "né/日本", Flags: []string{"NULL", "日本"}, Payload: text},
			})
			if err != nil {
				t.Fatal(err)
			}
			config, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			config.ConnConfig.RuntimeParams["client_encoding"] = "UTF8"
			config.ConnConfig.RuntimeParams["default_transaction_isolation"] = "read committed"
			config.ConnConfig.RuntimeParams["standard_conforming_strings"] = "on"
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			exec(t, pool, "create table seen (line text)")
			e := runOnce(t, gworker.Config{DatabaseURL: url, NoPreparedStatements: unprepared, Tasks: testworker.SQLTasks(t, map[string]string{
				"né/日本": "insert into seen select current_setting('gworker.payload')::json #>> '{}'",
				"fails": "do $$ begin raise 'é日本'; end $$",
			})})
			waitFor(t, e, func(e event.JobCompleted) bool {
				return e.Job.ID == job.ID && e.Job.Task == "né/日本" && e.Job.Key == "k-日本"
			})
			waitFor(t, e, func(e event.JobCompleted) bool { return e.Job.ID == rows[1].ID })
			row := testworker.ReadFailure(t, pool, rows[0].ID)
			if !strings.Contains(row.LastError, "é日本") || row.LockedBy != nil || row.Delay < 2 || row.Delay > 3.5 {
				t.Errorf("row %+v", row)
			}
			var lines []string
			scan(t, pool, "select array_agg(line) from seen", nil, &lines)
			if len(lines) != 2 || lines[0] != text || lines[1] != text {
				t.Errorf("seen %q", lines)
			}
			if _, err := client.Doctor(t.Context()); err != nil {
				t.Error(err)
			}
			testworker.NoLocks(t, pool)
		})
	}
}

// TestSerializableByDefault: the statements of adders and workers are tried again where
// they get in each other's way, and every job runs once.
func TestSerializableByDefault(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for name, hold := range map[string]time.Duration{"locked": 0, "held": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			url := testdb.Migrated(t)
			setAll(t, testdb.Pool(t, url), map[string]string{"default_transaction_isolation": "serializable"})
			pool := testdb.Pool(t, url)
			client := newClient(t, pool)
			var specs []gworker.JobSpec
			for i := range 300 {
				specs = append(specs, gworker.JobSpec{Task: "x", Queue: []string{"", "a", "b"}[i%3], Key: fmt.Sprint("k", i)})
			}
			if _, err := client.AddJobs(t.Context(), specs); err != nil {
				t.Fatal(err)
			}
			var runs atomic.Int64
			runOnce(t, gworker.Config{Pool: pool, HoldTime: &hold, Tasks: []gworker.Task{
				gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error { runs.Add(1); return nil }),
			}})
			if n := jobCount(t, pool); n != 0 || runs.Load() != int64(len(specs)) {
				t.Errorf("%d runs of %d jobs, %d left", runs.Load(), len(specs), n)
			}
			testworker.NoLocks(t, pool)
		})
	}
}

// TestSettingsOfACallersPool: a pool of the caller's is refused where its settings would
// change what is stored or read, in one line that says what to set.
func TestSettingsOfACallersPool(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	url := testdb.Migrated(t)
	for name, c := range map[string]struct {
		set        map[string]string
		unprepared bool
		says       string
	}{
		"encoding":          {set: map[string]string{"client_encoding": "LATIN1"}, says: "client_encoding"},
		"encoding, another": {set: map[string]string{"client_encoding": "SJIS"}, says: "client_encoding"},
		"times as text":     {set: map[string]string{"datestyle": "German"}, unprepared: true, says: "datestyle"},
		"times in binary":   {set: map[string]string{"datestyle": "German"}},
		"strings":           {set: map[string]string{"standard_conforming_strings": "off"}},
		"nulls as text":     {set: map[string]string{"array_nulls": "off"}, unprepared: true, says: "array_nulls"},
		"nulls in binary":   {set: map[string]string{"array_nulls": "off"}},
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			config, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range c.set {
				config.ConnConfig.RuntimeParams[name] = value
			}
			if c.unprepared {
				config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
			}
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, NoPreparedStatements: c.unprepared})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_, addErr := client.AddJob(t.Context(), gworker.JobSpec{Task: "x", Payload: "é"})
			worker, err := gworker.NewWorker(gworker.Config{
				Pool: pool, NoPreparedStatements: c.unprepared, Tasks: testworker.SQLTasks(t, map[string]string{"x": "select 1"}),
			})
			if err != nil {
				t.Fatal(err)
			}
			runErr := worker.RunOnce(t.Context())
			for what, err := range map[string]error{"adding": addErr, "running": runErr} {
				if c.says == "" && err != nil ||
					c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n")) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
	if n := jobCount(t, testdb.Pool(t, url)); n != 0 {
		t.Errorf("%d jobs are left", n)
	}
}

// TestRunOnceOutlivesItsIdleSessions: the server ends every session of the worker while
// a job runs. Those that were idle are lost connections and nothing else.
func TestRunOnceOutlivesItsIdleSessions(t *testing.T) {
	var sample testdb.Sample
	for name, hold := range map[string]*time.Duration{"held": nil, "locked": new(time.Duration)} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			url := testdb.Migrated(t)
			pool := testdb.Pool(t, url) // whose sessions stay
			name := "gworker_idle_" + t.Name()[len("TestRunOnceOutlivesItsIdleSessions/"):]
			config, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			config.ConnConfig.RuntimeParams["application_name"] = name
			config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
			own, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer own.Close()
			end := func(ctx context.Context, job *gworker.RawJob) error {
				// As idle_session_timeout would, but for the session that holds the job.
				_, err := pool.Exec(ctx, `select pg_terminate_backend(pid) from pg_stat_activity
					where state = 'idle' and datname = current_database() and pid <> pg_backend_pid()`)
				return err
			}
			client := newClient(t, pool)
			for range 3 {
				add(t, client, gworker.JobSpec{Task: "x"})
			}
			events := runOnce(t, gworker.Config{Pool: own, HoldTime: hold, Concurrency: 1, Tasks: []gworker.Task{gworker.NewRawTask("x", end)}})
			seen, _ := events.Seen()
			if n := jobCount(t, pool); n != 0 || count[event.JobFailed](events) != 0 {
				t.Errorf("%d jobs are left: %s", n, testworker.Describe(seen))
			}
			if n := count[event.HeartbeatFailed](events); n != 0 {
				t.Errorf("the worker did not say goodbye: %s", testworker.Describe(seen))
			}
		})
	}
}

func TestStatementTimeoutNamesTheStatement(t *testing.T) {
	pool := migrated(t)
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, StatementTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "lock table graphile_worker._private_jobs in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	_, err = client.AddJob(t.Context(), gworker.JobSpec{Task: "x"})
	var timeout *gworker.StatementTimeoutError
	if !errors.As(err, &timeout) || timeout.Statement != "AddPlain" || !strings.Contains(err.Error(), "AddPlain did not end within 100ms") {
		t.Errorf("error is %v", err)
	}
}

func TestWorkerOnAnySchemaWithoutPreparedStatements(t *testing.T) {
	url := testdb.Empty(t)
	pool := testdb.Pool(t, url)
	odd := `my "odd" Schema`
	done := 0
	config := gworker.Config{
		DatabaseURL: url, Schema: odd, NoPreparedStatements: true, Concurrency: 1,
		Tasks: append(testworker.SQLTasks(t, map[string]string{"sql": "create table seen ()"}),
			gworker.NewRawTask("go", func(ctx context.Context, job *gworker.RawJob) error {
				done++
				if done == 1 {
					return errors.New("again")
				}
				_, err := job.Client().AddJob(ctx, gworker.JobSpec{Task: "sql", Queue: "q"})
				return err
			})),
	}
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, Schema: odd, NoPreparedStatements: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(t, client, gworker.JobSpec{Task: "go"})
	add(t, client, gworker.JobSpec{Task: "go"})
	e := runOnce(t, config)
	if count[event.JobCompleted](e) != 2 || count[event.JobFailed](e) != 1 {
		seen, _ := e.Seen()
		t.Errorf("events: %s", testworker.Describe(seen))
	}
	exec(t, pool, "select from seen")
	var prepared int
	scan(t, pool, `select count(*) from "my ""odd"" Schema".migrations`, nil, &prepared)
	if prepared != 20 {
		t.Errorf("%d revisions in the odd schema", prepared)
	}
}
