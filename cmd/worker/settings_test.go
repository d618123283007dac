package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gworker/gworker/internal/testdb"
)

// configYAML writes a file for --config.
func configYAML(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gworker.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// printed are the lines of --print-config by option, each with its source, without the
// white space before it.
func printed(t *testing.T, args ...string) map[string]string {
	t.Helper()
	r := worker(t, "", append(args, "--print-config")...)
	r.want(t, 0)
	lines := make(map[string]string)
	for line := range strings.Lines(r.out) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "# "), ": ")
		rest = strings.TrimRight(rest, "\n")
		value, source, _ := strings.Cut(rest, "  #")
		if name == "not used" { // the tests' own variables, too
			name += " " + value
		}
		lines[name] = strings.TrimSpace(value) + " #" + source
	}
	return lines
}

// TestWhereOptionsComeFrom: the command line, then variables, the file, the variables
// from before, and the defaults; with and without the word run.
func TestWhereOptionsComeFrom(t *testing.T) {
	file := configYAML(t, `# ours
jobs: 3
poll-interval: 7s
once: true
database-url: postgres://file:secret@db/app
forbidden-flags: [a, "b,c"]
accepted-flags: d,e
task-env: listed
schema: from_file
hold-time: 0
`)
	t.Setenv("GWORKER_JOBS", "4")
	t.Setenv("GWORKER_SCHEMA", "from variable")
	t.Setenv("GWORKER_NO_LISTEN", "true")
	t.Setenv("GWORKER_TASKS", "") // none, as Compose passes it
	t.Setenv("GWORKER_JOB", "5")
	t.Setenv("GWORKER_SERVICE_HOST", "10.0.0.1")
	for _, start := range [][]string{{"run"}, nil} {
		got := printed(t, append(start, "--config", file, "-s", "mine")...)
		line := func(n string) string { return " # " + file + " line " + n }
		for name, want := range map[string]string{
			"jobs": "4 # GWORKER_JOBS", "schema": "mine # the command line", "no-listen": "true # GWORKER_NO_LISTEN",
			"poll-interval": "7s" + line("3"), "once": "true" + line("4"), "task-env": "listed" + line("8"),
			"forbidden-flags": `[a, "b,c"]` + line("6"), "accepted-flags": "[d, e]" + line("7"), "hold-time": "0s" + line("10"),
			"database-url": `"postgres://file:xxxxx@db/app"` + line("5"), "tasks": "tasks # default",
			"not used GWORKER_JOB (did you mean GWORKER_JOBS?)": "GWORKER_JOB (did you mean GWORKER_JOBS?) #",
		} {
			if got[name] != want {
				t.Errorf("%v %s: %q, want %q", start, name, got[name], want)
			}
		}
		for _, name := range []string{"not used GWORKER_SERVICE_HOST", "config", "print-config", "cleanup", "watch", "help", "graphile-config"} {
			if _, is := got[name]; is {
				t.Errorf("--%s is printed", name)
			}
		}
	}
	for _, url := range []string{`host=db password='hunter\' 2' user=me`, `postgres://me:hunter"2@db/x`, `host=db sslpassword=hunter2`, `postgres://db/x?password=hunter%202`} {
		if got := printed(t, "run", "-c", url)["database-url"]; strings.Contains(got, "hunter") || strings.Contains(got, " 2") {
			t.Errorf("%s is printed as %s", url, got)
		}
	}
	// What is printed can be used.
	r := worker(t, "", "run", "--config", file, "--print-config")
	again := configYAML(t, r.out)
	for name, want := range printed(t, "--config", again) {
		if got := printed(t, "--config", file)[name]; !strings.HasPrefix(got, strings.SplitAfter(want, " #")[0]) {
			t.Errorf("%s: %q, printed again %q", name, got, want)
		}
	}
	t.Setenv("GWORKER_CONFIG", file)
	if got := printed(t, "run")["poll-interval"]; !strings.HasPrefix(got, "7s") {
		t.Errorf("with GWORKER_CONFIG: %s", got)
	}
	worker(t, "").want(t, 0, "worker dev") // no flag, no run, whatever the variables say
}

// TestBadSettings: one line that names the place, and nothing of a password.
func TestBadSettings(t *testing.T) {
	for text, want := range map[string]string{
		"jobs: x":                     `line 1: "x" cannot be the value of jobs`,
		"\njob: 3":                    `line 2: "job" is no option of run (did you mean "jobs"?)`,
		"POLL_INTERVAL: 3s":           `did you mean "poll-interval"?`,
		"nonsense-of-mine: 3":         `"nonsense-of-mine" is no option of run`,
		"jobs: 3\njobs: 4":            `jobs`,
		"jobs: [1, 2]":                `"jobs" takes one value, and not a list`,
		"jobs:":                       `"jobs" has no value`,
		"schema: ''":                  `"schema" has no value`,
		"jobs: {a: 1}":                `"jobs" takes a value`,
		"forbidden-flags: [[a]]":      `a list whose entries are not all texts`,
		"[1]":                         `has no options`,
		"just text":                   `has no options`,
		"jobs: 1\n---\njobs: 2":       `not the YAML that it should be`,
		"jobs: 'x":                    `not the YAML that it should be`,
		"once: maybe":                 `"maybe" cannot be the value of once`,
		"poll-interval: soon":         `"soon" is neither a duration`,
		"config: other.yaml":          `"config" is no option of run`,
		"cleanup: GC_JOB_QUEUES":      `"cleanup" is no option of run`,
		"jobs: 0\ntasks: nowhere.yml": `nowhere.yml`,
	} {
		r := worker(t, "", "run", "--config", configYAML(t, text))
		r.want(t, r.status, want)
		if r.status == 0 {
			t.Errorf("%q was taken", text)
		}
	}
	database := testdb.Migrated(t)
	dir := tasksDir(t, map[string]string{"x.sql": "select 1;"})
	file := configYAML(t, "jobs: -1\ntasks: "+dir+"\n")
	worker(t, "", "run", "-c", database, "--config", file).want(t, statusUsage, "--jobs (from "+file+" line 1)")
	worker(t, "", "run", "--config", "none.yaml").want(t, statusUsage, "none.yaml", "--config")
	worker(t, "", "run", "--config", "").want(t, statusUsage, "--config is empty")

	t.Setenv("GWORKER_CONNECT_TIMEOUT", "soon")
	worker(t, "", "list", "-c", database).want(t, statusUsage, "GWORKER_CONNECT_TIMEOUT", `"soon"`)
	worker(t, "", "version").want(t, 0)
	t.Setenv("GWORKER_CONNECT_TIMEOUT", "")
	t.Setenv("GWORKER_DATABASE_URL", "postgres://me:hunter2@127.0.0.1:1/x")
	r := worker(t, "", "list")
	r.want(t, statusFailure)
	if strings.Contains(r.out+r.err, "hunter2") {
		t.Errorf("the password is shown: %s%s", r.out, r.err)
	}
}

// TestSettingsRunJobs: a job runs by nothing but variables and a file.
func TestSettingsRunJobs(t *testing.T) {
	database := testdb.Migrated(t)
	worker(t, "", "add", "x", "-c", database).want(t, 0)
	dir := tasksDir(t, map[string]string{"x.sql": "select 1;"})
	t.Setenv("GWORKER_DATABASE_URL", database)
	t.Setenv("GWORKER_ONCE", "true")
	t.Setenv("GWORKER_CONFIG", configYAML(t, "tasks: "+dir+"\nhold-time: 0s\nlocal-queue-size: 5\n"))
	worker(t, "", "run").want(t, 0, "job completed")
	worker(t, "", "list", "--json").want(t, 0, `[]`)
	// --hold-time counts without the word run, too.
	worker(t, "", "--hold-time", "20ms").want(t, statusUsage, "--hold-time", "a local queue")
}
