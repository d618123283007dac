package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/gworker/gworker/internal/testdb"
)

func TestDevOnce(t *testing.T) {
	t.Setenv("DATABASE_URL", "")
	dir := testdb.OpenDir(t)

	t.Chdir(t.TempDir())
	first := worker(t, "", "dev", "--once", "--data", dir)
	first.want(t, 0)
	for _, what := range []string{
		`added an example job: hello {"name":"world"} (job 1)`, "ran hello (job 1)", "psql 'postgres://", "add_job('hello'",
		"Try next:", "mkdir -p tasks", dir,
	} {
		if !strings.Contains(first.out, what) {
			t.Errorf("the output does not have %q:\n%s", what, first.out)
		}
	}

	// With tasks of one's own, on the data of before, at the same address.
	t.Chdir(tasksDir(t, map[string]string{"tasks/mine.sql": "select 1"}))
	second := worker(t, "", "dev", "--once", "--data", dir)
	second.want(t, 0)
	for _, what := range []string{"ran hello (job 2)", "add mine -c"} {
		if !strings.Contains(second.out, what) {
			t.Errorf("the output does not have %q:\n%s", what, second.out)
		}
	}
	address := regexp.MustCompile(`psql '(.*?)'`)
	if a, b := address.FindString(first.out), address.FindString(second.out); a != b {
		t.Errorf("the address changed from %s to %s", a, b)
	}
}

func TestDevUsesTheDatabaseThatIsNamed(t *testing.T) {
	t.Chdir(t.TempDir())
	r := worker(t, "", "dev", "--once", "-c", "postgres://u:hunter2@no-such-host.invalid/db")
	if r.status != 1 || !strings.Contains(r.err, "no-such-host.invalid") || strings.Contains(r.out+r.err, "hunter2") {
		t.Errorf("status %d\n%s%s", r.status, r.out, r.err)
	}
}

// On a database that is somebody's own, their jobs are left to their workers,
// and their tasks do not get the example.
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
