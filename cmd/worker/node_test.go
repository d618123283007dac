package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker/internal/testdb"
)

// What people have in their Procfiles for Node's worker works unchanged.
func TestNodesCommandLineRunsJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dir := tasksDir(t, map[string]string{"hi.sh": "#!/bin/sh\necho ran\n"})
	for _, args := range [][]string{
		{"--once", "-j", "2", "-m", "6", "--poll-interval", "2000"},
		{"--once", "--jobs=2", "--max-pool-size=6", "--poll-interval=2000", "--no-prepared-statements"},
		{"run", "--once"},
	} {
		for _, connection := range []string{"--connection", "-c", "--database-url"} {
			database := testdb.Empty(t)
			worker(t, "", "--schema-only", connection, database, "--schema", "q").want(t, 0, `schema "q" is at revision 20`)
			worker(t, "", "add", "hi", connection, database, "-s", "q").want(t, 0)
			worker(t, "", append(args, connection, database, "-s", "q", "--tasks", dir)...).want(t, 0, `"ran"`, "job completed")
		}
	}
}

func TestNodeOptionsThatCannotBe(t *testing.T) {
	worker(t, "", "--config", "graphile.config.js").want(t, 2, "--config", "JavaScript", "docs/command-line.md")
	worker(t, "", "run", "-C", "graphile.config.js").want(t, 2, "-C", "--config")
	worker(t, "", "--watch").want(t, 2, "--watch", "restart")
	worker(t, "", "--once", "--schema-only").want(t, 2, "--once and --schema-only")
	worker(t, "", "--schema-only", "--cleanup", "GC_JOB_QUEUES").want(t, 2, "--cleanup and --schema-only")
	worker(t, "", "--cleanup", "GC_JOB_QUEUES,VACUUM").want(t, 2, `"VACUUM"`, "DELETE_PERMAFAILED_JOBS")
	worker(t, "", "--cleanup", "").want(t, 2, "GC_TASK_IDENTIFIERS")
	worker(t, "", "--poll-interval", "soon").want(t, 2, "--poll-interval", "milliseconds")
	worker(t, "", "--poll-interval", "-5", "-c", "postgres://127.0.0.1:1/x", "--tasks", tasksDir(t, map[string]string{"x.sql": ""})).
		want(t, 2, "--poll-interval", "-5ms", "negative")
	worker(t, "", "--jobs", "1", "rum").want(t, 2, `unknown command "rum"`)
	worker(t, "", "add", "x", "--once").want(t, 2, "--once")
	worker(t, "", "run", "--no-listen", "--listen-database-url", "postgres://127.0.0.1:1/x", "--tasks", tasksDir(t, map[string]string{"x.sql": ""})).
		want(t, 2, "--listen-database-url", "NoListen")
	worker(t, "", "run", "--listen-database-url", "postgres://u:hunter2@[::1", "--tasks", tasksDir(t, map[string]string{"x.sql": ""})).
		want(t, 2, "--listen-database-url")
	worker(t, "", "--version").want(t, 0, "worker ")
}

func TestIntervals(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"2000": 2 * time.Second, "2s": 2 * time.Second, "1.5": 1500 * time.Microsecond, "0": 0, "-5": -5 * time.Millisecond,
		"1e3": time.Second, "1m30s": 90 * time.Second,
	} {
		var got time.Duration
		if err := newInterval(&got, time.Hour).Set(text); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "2 s", "NaN", "Inf", "1e300"} {
		var got time.Duration
		if err := newInterval(&got, time.Hour).Set(text); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}

// The subcommand does the work; what reaches it is tested here.
func TestCleanupIsHandedOver(t *testing.T) {
	root := newRoot(stdio{in: strings.NewReader(""), out: &bytes.Buffer{}, err: &bytes.Buffer{}})
	if old, _, err := root.Find([]string{"cleanup"}); err == nil && old.Name() == "cleanup" {
		root.RemoveCommand(old)
	}
	var got []string
	var tasks string
	fake := &cobra.Command{Use: "cleanup", RunE: func(cmd *cobra.Command, args []string) error {
		got = args
		return cmd.Context().Err()
	}}
	fake.Flags().StringVar(&tasks, "tasks", "tasks", "")
	root.AddCommand(fake)
	root.SetArgs([]string{"--cleanup", "GC_TASK_IDENTIFIERS, GC_JOB_QUEUES", "--cleanup=DELETE_PERMAFAILED_JOBS", "--tasks", "elsewhere"})
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, cleanupNames) || tasks != "elsewhere" {
		t.Errorf("cleanup got %q and the tasks of %s", got, tasks)
	}
}

func TestSuccessesStayOutOfTheLog(t *testing.T) {
	database := testdb.Migrated(t)
	dir := tasksDir(t, map[string]string{"good.sql": "select 1", "bad.sql": "select 1/0"})
	run := func() result {
		worker(t, "", "add", "good", "-c", database).want(t, 0)
		worker(t, "", "add", "bad", "-c", database).want(t, 0)
		return worker(t, "", "run", "--once", "-c", database, "--tasks", dir)
	}
	loud := run()
	loud.want(t, 0, "job completed", "job failed")
	t.Setenv("NO_LOG_SUCCESS", "1")
	quiet := run()
	quiet.want(t, 0, "job failed", "worker started")
	if strings.Contains(quiet.err, "job completed") {
		t.Errorf("a success was logged:\n%s", quiet.err)
	}
}

func TestNewerRevisionThatIsNotBreaking(t *testing.T) {
	database := testdb.Migrated(t)
	if _, err := testdb.Pool(t, database).Exec(t.Context(), "insert into graphile_worker.migrations (id) values (1000)"); err != nil {
		t.Fatal(err)
	}
	worker(t, "", "add", "x", "-c", database).want(t, 0)
	worker(t, "", "run", "--once", "-c", database, "--tasks", tasksDir(t, map[string]string{"x.sql": "select 1"})).
		want(t, 0, "revision 1000", "revisions up to 22", "job completed")
}

// TestBreakingMigrationEndsTheBinary: if another process makes a breaking migration, the
// binary finishes its jobs and exits with the status of every Graphile Worker.
func TestBreakingMigrationEndsTheBinary(t *testing.T) {
	database := testdb.Migrated(t)
	pool := testdb.Pool(t, database)
	dir := tasksDir(t, map[string]string{"slow.sql": "select pg_advisory_xact_lock(57)"})
	worker(t, "", "add", "slow", "-c", database).want(t, 0)
	holder, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback(t.Context()) }()
	if _, err := holder.Exec(t.Context(), "select pg_advisory_xact_lock(57)"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "--connection", database, "--tasks", dir, "--log-level", "debug")
	cmd.Env = append(os.Environ(), asWorker+"=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	waitFor := func(messages ...string) {
		t.Helper()
		for len(messages) > 0 && lines.Scan() {
			var line struct {
				Message string `json:"msg"`
			}
			_ = json.Unmarshal(lines.Bytes(), &line) // the last line is for people
			messages = slices.DeleteFunc(messages, func(m string) bool { return strings.HasPrefix(line.Message, m) })
		}
		if len(messages) > 0 {
			t.Fatalf("the worker ended without %q", messages)
		}
	}
	waitFor("listening for new jobs", "job started")
	// Another schema's breaking migration is no matter of this worker.
	for _, sql := range []string{
		`select pg_notify('worker:migrate', '{"migrationNumber":1000,"breaking":true}')`,
		`insert into graphile_worker.migrations (id) values (999); select pg_notify('worker:migrate', '{"migrationNumber":999,"breaking":false}')`,
		`insert into graphile_worker.migrations (id, breaking) values (1000, true); select pg_notify('worker:migrate', '{"migrationNumber":1000,"breaking":true}')`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	waitFor("another process applied a breaking migration")
	if err := holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor("job completed", "worker stopped")
	for lines.Scan() {
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 57 {
		t.Errorf("the binary ended with %v, want exit status 57", err)
	}
}
