package main

import (
	"bytes"
	"context"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/testdb"
)

// said is what a command that goes on has printed.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// startDev runs dev until the test ends, and returns what it has said up to the end
// of its banner.
func startDev(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var out said
	ended := make(chan int)
	go func() {
		ended <- execute(ctx, append([]string{"dev"}, args...), stdio{in: strings.NewReader(""), out: &out, err: &out})
	}()
	t.Cleanup(func() {
		cancel()
		if status, ok := <-ended; ok && status != 0 {
			t.Errorf("dev ended with %d: %s", status, out.String())
		}
	})
	deadline := time.After(time.Minute)
	for !strings.Contains(out.String(), "Working until Ctrl-C.") {
		select {
		case status := <-ended:
			close(ended)
			t.Fatalf("dev ended with %d: %s", status, out.String())
		case <-deadline:
			t.Fatalf("no banner after a minute: %s", out.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return out.String()
}

func TestDevOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Setenv("DATABASE_URL", "")
	dir := testdb.OpenDir(t)

	t.Chdir(t.TempDir())
	first := worker(t, "", "dev", "--once", "--data", dir)
	first.want(t, 0, `added an example job: hello {"name":"world"} (job 1)`, "ran hello (job 1)", "The data stays in "+dir, "Without --once")
	first.lacks(t, "psql", "Try next", "greetings") // of a server that is gone

	// With tasks of one's own, on the data of before.
	t.Chdir(tasksDir(t, map[string]string{"tasks/mine.sql": "select 1"}))
	worker(t, "", "dev", "--once", "--data", dir).want(t, 0, "ran hello (job 2)")
}

func TestDevSaysWhatToTry(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Setenv("DATABASE_URL", "")
	dir := testdb.OpenDir(t)
	address := regexp.MustCompile(`psql '(.*?)'`)
	t.Chdir(t.TempDir())
	first := startDev(t, "--data", dir)
	for _, what := range []string{"ran hello (job 1)", "psql 'postgres://", "add_job('hello'", "Try next:", "mkdir -p tasks", "the table greetings", dir} {
		if !strings.Contains(first, what) {
			t.Errorf("the output does not have %q:\n%s", what, first)
		}
	}
	// A second one on the same server does not wait for a job that the first runs.
	t.Chdir(tasksDir(t, map[string]string{"tasks/hello.sql": "select 1"}))
	second := startDev(t, "--data", dir)
	for _, what := range []string{"add hello -c", "its task is the one in your tasks folder", "The database goes when"} {
		if !strings.Contains(second, what) {
			t.Errorf("the output does not have %q:\n%s", what, second)
		}
	}
	if strings.Contains(second, "greetings") {
		t.Errorf("the task of the user's writes no greetings:\n%s", second)
	}
	match := address.FindStringSubmatch(first)
	if match == nil || address.FindString(second) != match[0] {
		t.Fatalf("the address changed from %s to %s", match, address.FindString(second))
	}
	// No other account can connect, and we can.
	worker(t, "", "stats", "-c", match[1]).want(t, 0)
	at, err := url.Parse(match[1])
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(at.Query().Get("host")); err != nil || info.Mode().Perm() != 0o700 || at.Host != "" {
		t.Errorf("the server listens on %s: %v (%v)", match[1], info, err)
	}
	// Nor does one on a named database on which another worker runs.
	startDev(t, "-c", match[1])
}

// libpq's variables are about other servers.
func TestDevIgnoresClientSettings(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Setenv("DATABASE_URL", "")
	for name, value := range map[string]string{
		"PGHOST": "nowhere.invalid", "PGHOSTADDR": "192.0.2.1", "PGPORT": "x", "PGDATABASE": "nosuch", "PGUSER": "nosuch",
		"PGPASSWORD": "no", "PGPASSFILE": "/nowhere", "PGSERVICE": "nosuch", "PGSERVICEFILE": "/nowhere", "PGSYSCONFDIR": "/nowhere",
		"PGOPTIONS": "-c nosuch=1", "PGAPPNAME": "a", "PGSSLMODE": "verify-full", "PGREQUIRESSL": "1", "PGSSLCERT": "/nowhere",
		"PGSSLKEY": "/nowhere", "PGSSLROOTCERT": "/nowhere", "PGSSLCERTMODE": "require", "PGSSLNEGOTIATION": "direct",
		"PGCHANNELBINDING": "require", "PGREQUIREAUTH": "scram-sha-256", "PGTARGETSESSIONATTRS": "standby",
		"PGCONNECT_TIMEOUT": "x", "PGMINPROTOCOLVERSION": "9", "PGCLIENTENCODING": "LATIN1", "PGDATESTYLE": "German",
		"PGTZ": "Nowhere/City", "PGGEQO": "x", "PGDATA": "/nowhere", "PGGSSENCMODE": "require", "PGLOADBALANCEHOSTS": "random",
	} {
		t.Setenv(name, value)
	}
	t.Chdir(t.TempDir())
	worker(t, "", "dev", "--once", "--data", testdb.OpenDir(t)).want(t, 0, "ran hello (job 1)")
}

func TestDevUsesTheDatabaseThatIsNamed(t *testing.T) {
	t.Chdir(t.TempDir())
	r := worker(t, "", "dev", "--once", "-c", "postgres://u:hunter2@no-such-host.invalid/db")
	if r.status != 1 || !strings.Contains(r.err, "no-such-host.invalid") || strings.Contains(r.out+r.err, "hunter2") {
		t.Errorf("status %d\n%s%s", r.status, r.out, r.err)
	}
}

// On a database of your own, its jobs are left to your workers, and your tasks folder
// does not get the example.
func TestDevTakesNoForeignJobs(t *testing.T) {
	database := testdb.Migrated(t)
	worker(t, "", "add", "hello", "-c", database).want(t, 0)
	t.Chdir(t.TempDir())
	worker(t, "", "dev", "--once", "-c", database).want(t, 0, "ran gworker_dev_hello", "add_job('gworker_dev_hello'")
	var tasks string
	var greetings bool
	err := testdb.Pool(t, database).QueryRow(t.Context(), `select string_agg(task_identifier, ','), to_regclass('greetings') is not null
		from graphile_worker.jobs where attempts = 0`).Scan(&tasks, &greetings)
	if err != nil || tasks != "hello" || greetings {
		t.Errorf("left are jobs of %s, a table greetings: %v (%v)", tasks, greetings, err)
	}
	t.Chdir(tasksDir(t, map[string]string{"tasks/hello.sql": "do $$ begin if current_setting('gworker.payload') <> '{}' then raise 'example'; end if; end $$"}))
	r := worker(t, "", "dev", "--once", "-c", database)
	r.want(t, 0, "ran hello", "ran gworker_dev_hello", "add hello -c")
}

func TestNamesInShells(t *testing.T) {
	for in, want := range map[string]string{"jobs": "jobs", `my "odd" $x`: `\"my \"\"odd\"\" \$x\"`} {
		if got := nameInShell(in); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{"a/b": "a/b", "it's": `'it'\''s'`} {
		if got := forShell(in); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}
