package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/program"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testproxy"
)

// asWorker makes this test program the worker binary.
const asWorker = "GWORKER_TEST_AS_WORKER"

func TestMain(m *testing.M) {
	switch os.Getenv(asWorker) {
	case "":
	case "init":
		os.Exit(asInit())
	default:
		main()
		return
	}
	program.Name = programName(os.Args[0]) // as main does
	testdb.Main(m)
}

// result is what a command line did.
type result struct {
	status   int
	out, err string
}

// worker runs a command line in this process, away from the environment's own
// connection settings.
func worker(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	for _, name := range []string{"DATABASE_URL", "LISTEN_DATABASE_URL", "GRAPHILE_WORKER_SCHEMA", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD"} {
		if _, set := os.LookupEnv(name); set {
			t.Setenv(name, "")
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	var out, err bytes.Buffer
	status := execute(t.Context(), args, stdio{in: strings.NewReader(stdin), out: &out, err: &err})
	return result{status: status, out: out.String(), err: err.String()}
}

func (r result) want(t *testing.T, status int, parts ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %d, want %d\nout: %s\nerr: %s", r.status, status, r.out, r.err)
	}
	for _, part := range parts {
		if !strings.Contains(r.out+r.err, part) {
			t.Errorf("output lacks %q\nout: %s\nerr: %s", part, r.out, r.err)
		}
	}
	if status != 0 && strings.Count(strings.TrimSuffix(r.err, "\n"), "\n") > 0 && !strings.Contains(r.err, `{"level"`) {
		t.Errorf("the error is not one line:\n%s", r.err)
	}
}

// tasksDir makes a tasks folder.
func tasksDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o755)
		if filepath.Ext(name) == ".sql" {
			mode = 0o644
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAddStoresEveryField(t *testing.T) {
	database := testdb.Migrated(t)
	r := worker(t, "", "add", "some task", "-c", database, "--payload", `{"a": 1}`, "--queue", "q", "--run-at", "2031-02-03T04:05:06Z",
		"--max-attempts", "3", "--key", "k", "--key-mode", "preserve_run_at", "--priority", "-7", "--flag", "f", "--flag", "e", "--json")
	r.want(t, 0)
	var got jobJSON
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatalf("%v in %s", err, r.out)
	}
	want := jobJSON{ID: got.ID, Task: "some task", Queue: "q", Payload: json.RawMessage(`{"a":1}`), Priority: -7,
		RunAt: time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC), MaxAttempts: 3, CreatedAt: got.CreatedAt, UpdatedAt: got.UpdatedAt,
		Key: "k", Flags: []string{"e", "f"}}
	got.RunAt = got.RunAt.UTC()
	if fmt.Sprint(got) != fmt.Sprint(want) || got.ID == 0 {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestAddTakesThePayloadFromOnePlace(t *testing.T) {
	database := testdb.Migrated(t)
	file := filepath.Join(t.TempDir(), "payload.json")
	if err := os.WriteFile(file, []byte(`{"from":"file"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, `{}`},
		{[]string{"-"}, `{"from":"stdin"}`},
		{[]string{"--payload", "-"}, `{"from":"stdin"}`},
		{[]string{"--payload-file", "-"}, `{"from":"stdin"}`},
		{[]string{"--payload-file", file}, `{"from":"file"}`},
	} {
		r := worker(t, `{"from":"stdin"}`, append([]string{"add", "x", "-c", database, "--json"}, c.args...)...)
		r.want(t, 0, `"payload":`+c.want)
	}
	worker(t, "", "add", "x", "--payload", "{}", "--payload-file", file).want(t, 2, "once")
	worker(t, "", "add", "x", "--payload", "{").want(t, 2, "not valid JSON")
	worker(t, strings.Repeat(`{"a":`, 10_001)+"1"+strings.Repeat("}", 10_001), "add", "x", "--payload", "-").want(t, 2, "nested too deeply: JSON can have 10,000 levels")
	worker(t, "", "add", "x", "--payload-file", "/none").want(t, 2, "/none")
	worker(t, "", "add", "x", "--run-at", "tomorrow").want(t, 2, "--run-at", "tomorrow")
	worker(t, "", "add", "x", "--key", "k", "--key-mode", "once", "-c", database).want(t, 2, "--key-mode", "unsafe_dedupe")
}

func TestUsageErrors(t *testing.T) {
	worker(t, "", "rum").want(t, 2, `unknown command "rum"`, "--help")
	worker(t, "", "run", "--no-such-flag").want(t, 2, "--no-such-flag", "worker run --help")
	worker(t, "", "run", "extra").want(t, 2, `"extra"`)
	worker(t, "", "add").want(t, 2, "task")
	worker(t, "", "run", "--log-level", "loud").want(t, 2, "loud", "debug, info, warn or error")
	worker(t, "", "run", "--jobs", "many").want(t, 2, "--jobs")
	worker(t, "").want(t, 0, "Usage:", "worker dev")
	worker(t, "", "version").want(t, 0, "worker ")
}

func TestRunOnceRunsFilesOfBothKinds(t *testing.T) {
	database := testdb.Migrated(t)
	marker := filepath.Join(t.TempDir(), "marker")
	dir := tasksDir(t, map[string]string{
		"sub/mark.sh": "#!/bin/sh\ncat > '" + marker + "'; echo seen; echo oops >&2\n",
		"note.sql":    "create table notes (text text); insert into notes select current_setting('gworker.payload')::json ->> 'text';",
	})
	worker(t, "", "add", "sub/mark", "-c", database, "--payload", `{"n":1}`).want(t, 0, "added job 1: task sub/mark")
	worker(t, "", "add", "note", "-c", database, "--payload", `{"text":"hi"}`).want(t, 0)
	r := worker(t, "", "run", "--once", "-c", database, "--tasks", dir)
	r.want(t, 0, `"seen"`, `"oops"`)
	stdin, err := os.ReadFile(marker)
	if err != nil || string(stdin) != `{"payload":{"n":1}}` {
		t.Errorf("the executable read %q, %v", stdin, err)
	}
	pool := testdb.Pool(t, database)
	var note string
	var left int
	if err := pool.QueryRow(t.Context(), "select text, (select count(*) from graphile_worker.jobs) from notes").Scan(&note, &left); err != nil {
		t.Fatal(err)
	}
	if note != "hi" || left != 0 {
		t.Errorf("note %q, %d jobs left\n%s", note, left, r.err)
	}
	for _, line := range strings.Split(strings.TrimSpace(r.err), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("a log line off a terminal is no JSON: %s", line)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	database := testdb.Migrated(t)
	parsed, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	dir := tasksDir(t, map[string]string{"x.sql": "select 1"})
	run := func(database string, more ...string) result {
		return worker(t, "", append([]string{"run", "--once", "--tasks", dir, "--connect-timeout", "1s", "-c", database}, more...)...)
	}

	run("postgres://u:hunter2@no-such-host.invalid/db").want(t, 1, "no such host", "no-such-host.invalid", "check the host")
	run("postgres://u:hunter2@127.0.0.1:1/db").want(t, 1, "gave up after 1s", "nothing listens")
	run("postgres://u:hunter2@"+answering(t, "HTTP/1.1 400 Bad Request\r\n\r\n")+"/db").want(t, 1, "is no PostgreSQL: check host and port")
	run("postgres://u:hunter2@"+answering(t, "SSH-2.0-OpenSSH_9.9\r\n")+"/db").want(t, 1, "is no PostgreSQL: check host and port")
	run("postgres://u:hunter2@"+answeringFirst(t, "SSH-2.0-OpenSSH_9.9\r\n", 2)+"/db").want(t, 1, "is no PostgreSQL: check host and port", "gave up after 1s")
	run("postgres://u:hunter2@"+answering(t, "")+"/db").want(t, 1, "ended before PostgreSQL answered")
	run(database+"&default_transaction_read_only=on").want(t, 1, "is read-only: it is a standby", "target_session_attrs=read-write")
	worker(t, "", "add", "x", "-c", database+"&default_transaction_read_only=on").want(t, 1, "is read-only: it is a standby")
	if r := worker(t, "", "list", "-c", database+"&nosuch=x"); strings.Contains(r.err, "TLS") || !strings.Contains(r.err, `"nosuch"`) {
		t.Errorf("it speaks of TLS, which was not asked for: %s", r.err)
	}
	missing := *parsed
	missing.Path = "/missing"
	run(missing.String()).want(t, 1, `database "missing" does not exist`, "createdb")
	run("postgres://u:hunter2@[::1").want(t, 2, "connection string")
	run("postgres://u:hunter2@h:port/db").want(t, 2, "connection string")
	run("host=h password='hunter2 x' port=p").want(t, 2, "connection string")
	run(database, "--schema", strings.Repeat("s", 64)).want(t, 2, "--schema", "63")
	run(database, "--jobs", "-1").want(t, 2, "--jobs", "-1")

	empty := t.TempDir()
	worker(t, "", "run", "--tasks", empty, "-c", database).want(t, 1, empty, "no task")
	worker(t, "", "run", "--tasks", empty+"/none", "-c", database).want(t, 1, "none")
	double := tasksDir(t, map[string]string{"a/x.sql": "select 1", "a/x.sh": "#!/bin/sh"})
	worker(t, "", "run", "--tasks", double, "-c", database).want(t, 1, "x.sql", "x.sh", "a/x")
	worker(t, "", "add", "x", "-c", database, "-s", "elsewhere").want(t, 1, "worker migrate")

	pool := testdb.Pool(t, database)
	for _, sql := range []string{
		"drop role if exists gworker_test_poor", "create role gworker_test_poor login password 'hunter2'",
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if _, err := pool.Exec(context.Background(), "drop role gworker_test_poor"); err != nil {
			t.Error(err)
		}
	})
	poor := *parsed
	poor.User = url.UserPassword("gworker_test_poor", "hunter2")
	run(poor.String()).want(t, 1, "permission denied", "lacks rights")
}

// answering is the address of a server that says this to everybody, and no more.
func answering(t *testing.T, text string) string { return answeringFirst(t, text, math.MaxInt) }

// answeringFirst answers only so many connections. Of later ones it says nothing.
func answeringFirst(t *testing.T, text string, times int) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if n >= times {
				t.Cleanup(func() { _ = conn.Close() })
				continue
			}
			_, _ = conn.Read(make([]byte, 100))
			_, _ = conn.Write([]byte(text))
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

// No command waits longer than it is told to for a server that never answers, nor says
// less than which it was.
func TestSilentServer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	proxy, silent := testproxy.Start(t, testdb.Migrated(t))
	proxy.Silence()
	u, err := url.Parse(silent)
	if err != nil {
		t.Fatal(err)
	}
	dir := tasksDir(t, map[string]string{"x.sql": "select 1"})
	for _, args := range [][]string{
		{"list"}, {"stats"}, {"add", "x"}, {"migrate"}, {"doctor"}, {"sweep"}, {"cancel", "1"}, {"remove", "k"}, {"cleanup"},
		{"run", "--once", "--tasks", dir},
	} {
		r := worker(t, "", append(args, "-c", silent, "--connect-timeout", "300ms")...)
		r.want(t, 1, u.Host+" did not answer within")
		if !strings.HasPrefix(r.err, "worker: the server did not answer: check host, port and firewall: ") && args[0] != "run" {
			t.Errorf("%v: %s", args, r.err)
		}
	}
}

// Errors speak of what was asked for, not of statements that have names with us.
func TestErrorsOfCommandsSpeakOfWhatWasDone(t *testing.T) {
	database := testdb.Empty(t)
	for _, args := range [][]string{{"list"}, {"stats"}, {"add", "x"}, {"cancel", "1"}, {"remove", "k"}, {"complete", "1"}, {"sweep"}} {
		r := worker(t, "", append(args, "-c", database)...)
		r.want(t, 1, "worker migrate")
		if strings.Contains(r.err, "statement ") {
			t.Errorf("%v: %s", args, r.err)
		}
	}
}

func TestPasswordsDoNotAppear(t *testing.T) {
	for _, database := range []string{
		"postgres://u:hunter2@no-such-host.invalid/db", "postgres://u:hunter2@[::1", "postgres://u:hunter2@h:port/db",
		"host=h password='hunter2 x' port=p", "postgres://127.0.0.1:1/db?password=hunter2&sslmode=what", "postgres://u:hunt%zzer2@h/db",
	} {
		r := worker(t, "", "run", "--once", "--tasks", tasksDir(t, map[string]string{"x.sql": ""}), "--connect-timeout", "300ms",
			"--log-level", "debug", "-c", database)
		if r.status == 0 || strings.Contains(r.out+r.err, "hunt") {
			t.Errorf("%s: status %d\n%s%s", database, r.status, r.out, r.err)
		}
	}
}

func TestIncompatibleSchemaExitsWith57(t *testing.T) {
	database := testdb.Migrated(t)
	pool := testdb.Pool(t, database)
	if _, err := pool.Exec(t.Context(), "insert into graphile_worker.migrations (id, breaking) values (1000, true)"); err != nil {
		t.Fatal(err)
	}
	dir := tasksDir(t, map[string]string{"x.sql": "select 1"})
	for _, args := range [][]string{{"run", "--once", "--tasks", dir}, {"migrate"}, {"add", "x"}, {"list"}, {"show", "1"}, {"stats"},
		{"queues"}, {"workers"}, {"remove", "k"}, {"complete", "1"}, {"sweep"}, {"cleanup"}, {"cancel", "1"}} {
		worker(t, "", append(args, "-c", database)...).want(t, 57, "revision 1000", "breaking migration 1000", "unsafe to continue")
	}
}

// A role that sees no rows is told so, by commands that would print an empty queue.
func TestHiddenRowsAreNoEmptyQueue(t *testing.T) {
	database := testdb.Migrated(t)
	pool := testdb.Pool(t, database)
	role := "gworker_blind_" + pool.Config().ConnConfig.Database
	for _, sql := range []string{
		"select graphile_worker.add_job('x')", "create role " + role, "grant usage on schema graphile_worker to " + role,
		"grant all on all tables in schema graphile_worker to " + role,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if _, err := pool.Exec(context.Background(), "drop owned by "+role+"; drop role "+role); err != nil {
			t.Error(err)
		}
	})
	as := func(args ...string) result {
		return worker(t, "", append(args, "-c", database+"&options=-c%20role%3D"+role)...)
	}
	for _, command := range []string{"list", "stats", "queues", "workers"} {
		as(command).want(t, 0, role, "row level security", "_private_jobs")
	}
	for command, status := range map[string]int{
		"cancel 1": 1, "complete 1": 1, "fail 1 --dry-run": 1, "retry 1": 1, "reschedule 1 --run-at now": 1, "remove k": 1, "remove --id 1": 1,
		"force-unlock w": 1, "sweep": 0, "cleanup": 0, "show 1": 1,
	} {
		r := as(strings.Fields(command)...)
		if !strings.HasPrefix(r.err, "worker: warning: role \""+role) || !strings.Contains(r.err, "row level security") || r.status != status {
			t.Errorf("%s: status %d, %s", command, r.status, r.err)
		}
	}
	as("run", "--once", "--tasks", tasksDir(t, map[string]string{"x.sql": "select 1"})).want(t, 1, role, "row level security")
}

func TestMigrateAndStatus(t *testing.T) {
	database := testdb.Empty(t)
	odd := `my "odd" Schema`
	status := func() result { return worker(t, "", "migrate", "--status", "-c", database, "-s", odd) }
	before := status()
	before.want(t, 0, "not installed", "would")
	if again := status(); again.out != before.out {
		t.Errorf("--status changed something:\n%s\n%s", before.out, again.out)
	}
	worker(t, "", "migrate", "-c", database, "-s", odd).want(t, 0, "revision 20")
	after := status()
	after.want(t, 0, "nothing to do", "gworker", "shared", "breaking")
	if !regexp.MustCompile(`(?m)^\s*20\s`).MatchString(after.out) {
		t.Errorf("no line for revision 20:\n%s", after.out)
	}
	worker(t, "", "migrate", "-c", database, "-s", odd).want(t, 0, "nothing to do")
}

func TestEnvironmentNamesDatabaseAndSchema(t *testing.T) {
	database := testdb.Empty(t)
	t.Setenv("DATABASE_URL", database)
	t.Setenv("GRAPHILE_WORKER_SCHEMA", "jobs")
	var out, errs bytes.Buffer
	std := stdio{in: strings.NewReader(""), out: &out, err: &errs}
	if status := execute(t.Context(), []string{"migrate"}, std); status != 0 {
		t.Fatalf("status %d: %s", status, errs.String())
	}
	pool := testdb.Pool(t, database)
	var n int
	if err := pool.QueryRow(t.Context(), "select count(*) from jobs.migrations").Scan(&n); err != nil || n != 20 {
		t.Errorf("%d revisions in schema jobs, %v", n, err)
	}
}
