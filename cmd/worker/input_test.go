package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/testdb"
)

func TestTimesThatPeopleGive(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	local := func(y int, m time.Month, d, h, min int) time.Time {
		return time.Date(y, m, d, h, min, 0, 0, time.Local)
	}
	for text, want := range map[string]time.Time{
		"2027-01-01":             local(2027, 1, 1, 0, 0),
		"2027-01-01 06:30":       local(2027, 1, 1, 6, 30),
		"2027-01-01T06:30":       local(2027, 1, 1, 6, 30),
		"2027-01-01 06:30:00":    local(2027, 1, 1, 6, 30),
		"2027-01-01T06:30:00Z":   time.Date(2027, 1, 1, 6, 30, 0, 0, time.UTC),
		"2027-01-01 06:30:00Z":   time.Date(2027, 1, 1, 6, 30, 0, 0, time.UTC),
		"2027-01-01T06:30+02:00": time.Date(2027, 1, 1, 4, 30, 0, 0, time.UTC),
		"1d":                     now.AddDate(0, 0, 1),
		"1w2d3h4m":               now.AddDate(0, 0, 9).Add(3*time.Hour + 4*time.Minute),
		"1.5d":                   now.Add(36 * time.Hour),
		"-1d":                    now.AddDate(0, 0, -1),
		"90s":                    now.Add(90 * time.Second),
		"0d":                     now,
	} {
		at, err := parseTime("--run-at", text, now)
		if err != nil || !at.Equal(want) {
			t.Errorf("%q is %s (%v), not %s", text, at, err, want)
		}
	}
	if at, err := parsePast("--created-since", "7d", now); err != nil || !at.Equal(now.AddDate(0, 0, -7)) {
		t.Errorf("7d ago is %s (%v)", at, err)
	}
	for _, text := range []string{"tomorrow", "1", "d", "1d-2h", "2027-13-01", "2027-01-01T25:00:00Z", "1h1d", "99999999999w", "1dd"} {
		if at, err := parseTime("--run-at", text, now); err == nil {
			t.Errorf("%q is %s", text, at)
		} else if !strings.Contains(err.Error(), "--run-at") || !strings.Contains(err.Error(), "2027-01-01") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestListsInFlags(t *testing.T) {
	for _, c := range []struct {
		given []string
		want  []string
	}{
		{[]string{"a,b", "c"}, []string{"a", "b", "c"}},
		{[]string{`"user 7, mail",b`}, []string{"user 7, mail", "b"}},
		{[]string{`"a ""b"""`}, []string{`a "b"`}},
		{[]string{`say "hi"`}, []string{`say "hi"`}},
		{[]string{`"open`}, []string{`"open`}},
		{[]string{`"a"b,c`}, []string{`"a"b`, "c"}},
		{[]string{""}, []string{""}},
		{[]string{"a,"}, []string{"a", ""}},
	} {
		var got list
		for _, text := range c.given {
			if err := got.Set(text); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q is %q, not %q", c.given, got, c.want)
		}
	}
}

// TestWhatIsAsked: each is one line of what a person expects.
func TestWhatIsAsked(t *testing.T) {
	database := testdb.Migrated(t)
	run := func(args ...string) result { return worker(t, "", append(args, "-c", database)...) }
	run("add", "send_email", "--queue", "a", "--key", "k,1", "--key-mode", "unsafe_dedupe").want(t, 0, "added job")
	run("add", "send_sms", "--queue", "b", "--run-at", "1d").want(t, 0)
	run("add", "other").want(t, 0)

	run("list", "--task", "send_email,send_sms").want(t, 0, "send_email", "send_sms")
	run("list", "--queue", "a,b").want(t, 0, "send_email", "send_sms")
	run("list", "--key", `"k,1"`).want(t, 0, "send_email")
	if out := run("list", "--task", "send_email,send_sms").out; strings.Contains(out, "other") {
		t.Errorf("lists another task:\n%s", out)
	}

	run("queues", "nosuch").want(t, 1, `no such queue: "nosuch"`)
	run("queues", "a", "nosuch").want(t, 1, "a", `no such queue: "nosuch"`)
	run("queues", "a").want(t, 0)
	run("queues", "nosuch", "--json").want(t, 1, `"queues":[]`)

	run("add", "x", "--key-mode", "replace").want(t, 2, "--key-mode", "give --key")
	for mode, want := range map[string]string{"unsafe_dedupe": "kept the present job", "replace": "replaced job"} {
		run("add", "send_email", "--key", "k,1", "--key-mode", mode).want(t, 0, want)
	}
	var added struct{ Added bool }
	if err := json.Unmarshal([]byte(run("add", "send_email", "--key", "k,1", "--json").out), &added); err != nil || added.Added {
		t.Errorf("added is %t (%v)", added.Added, err)
	}

	var version struct{ Version, Go, OS, Arch string }
	if err := json.Unmarshal([]byte(run("version", "--json").out), &version); err != nil || version.Go == "" || version.Version == "" {
		t.Errorf("version: %+v (%v)", version, err)
	}
	var status struct {
		Schema    string
		Installed bool
		Revision  int
		Pending   []int
		Revisions []struct {
			ID      int
			Lineage string
		}
	}
	if err := json.Unmarshal([]byte(run("migrate", "--status", "--json").out), &status); err != nil ||
		!status.Installed || status.Revision != 20 || len(status.Revisions) < 20 || status.Pending == nil {
		t.Errorf("status: %+v (%v)", status, err)
	}
	run("migrate", "--json").want(t, 2, "--json goes with --status")
}

// TestCompletion: a shell gets the values there are, and nothing where there are none.
func TestCompletion(t *testing.T) {
	database := testdb.Migrated(t)
	worker(t, "", "add", "send_email", "--queue", "user 7", "-c", database).want(t, 0)
	id := strings.TrimSpace(worker(t, "", "list", "--ids", "-c", database).out)
	for line, want := range map[string]string{
		"list --state ":     "retrying",
		"list --order ":     "newest",
		"list --task ":      "send_email",
		"list --queue ":     "user 7",
		"queues ":           "user 7",
		"add ":              "send_email",
		"add x --key-mode ": "unsafe_dedupe",
		"show ":             id,
		"retry ":            "",
		"cancel ":           id,
		"run --log-format ": "console",
		"list --log-level ": "debug",
		"reschedule ":       id,
	} {
		args := append([]string{"__complete", "-c", database}, strings.Split(line, " ")...)
		got := worker(t, "", args...)
		if got.status != 0 || !strings.Contains(got.out, want) || !strings.Contains(got.out, ":4") {
			t.Errorf("%q completes to %q (%s)", line, got.out, got.err)
		}
	}
	nowhere := worker(t, "", "__complete", "-c", "postgres://127.0.0.1:1/none", "list", "--task", "")
	if nowhere.status != 0 || nowhere.out != ":4\n" {
		t.Errorf("without a database: %d %q", nowhere.status, nowhere.out)
	}
}

func TestLogFormat(t *testing.T) {
	database := testdb.Migrated(t)
	dir := tasksDir(t, map[string]string{"x.sql": "select 1"})
	run := func(format string) result {
		return worker(t, "", "run", "--once", "--tasks", dir, "-c", database, "--log-format", format)
	}
	if r := run("console"); r.status != 0 || !strings.Contains(r.err, "INFO") || strings.Contains(r.err, `{"level"`) || strings.Contains(r.err, "\x1b") {
		t.Errorf("console: %d %s", r.status, r.err)
	}
	for _, format := range []string{"json", "auto"} { // which is JSON where nobody looks on
		for line := range strings.Lines(run(format).err) {
			if !json.Valid([]byte(line)) {
				t.Errorf("%s: %s", format, line)
			}
		}
	}
	run("xml").want(t, 2, "--log-format", "xml", fmt.Sprintf("%s, %s or %s", formatAuto, formatConsole, formatJSON))
}

// An empty text is one that was left out by mistake: nothing else is taken in its place.
func TestEmptyTextsAreRefused(t *testing.T) {
	database := testdb.Migrated(t)
	pool := testdb.Pool(t, database)
	if _, err := pool.Exec(t.Context(), "select graphile_worker.add_job('x', queue_name := 'q')"); err != nil {
		t.Fatal(err)
	}
	dir := tasksDir(t, map[string]string{"x.sql": "select 1"})
	for _, c := range []struct {
		name string
		args []string
	}{
		{"--key", []string{"add", "x", "--key", ""}},
		{"--payload", []string{"add", "x", "--payload", ""}},
		{"--queue", []string{"add", "x", "--queue="}},
		{"--run-at", []string{"add", "x", "--run-at", ""}},
		{"--flag", []string{"add", "x", "--flag", "a,,b"}},
		{"--queue", []string{"list", "--queue", "", "--all", "--ids"}},
		{"--task", []string{"list", "--task", ""}},
		{"--error", []string{"list", "--error", ""}},
		{"--created-before", []string{"list", "--created-before", ""}},
		{"--key", []string{"show", "--key", ""}},
		{"--reason", []string{"fail", "1", "--reason", ""}},
		{"--keep-task", []string{"cleanup", "GC_TASK_IDENTIFIERS", "--keep-task", ""}},
		{"--database-url", []string{"list", "-c", ""}},
		{"--schema", []string{"list", "-s", ""}},
		{"--schema", []string{"run", "--once", "--tasks", dir, "--schema", ""}},
		{"--tasks", []string{"run", "--once", "--tasks", ""}},
	} {
		if !slices.Contains(c.args, "-c") {
			c.args = append(c.args, "-c", database)
		}
		worker(t, "", c.args...).want(t, 2, c.name+" is empty", "worker "+c.args[0]+" --help")
	}
	worker(t, "", "list", "--cursor", "", "-c", database).want(t, 0, "x")
	worker(t, "", "run", "--once", "--tasks", dir, "--forbidden-flags", "", "--listen-database-url", "", "-c", database).want(t, 0)
	var n int
	if err := pool.QueryRow(t.Context(), "select count(*) from graphile_worker._private_jobs").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d jobs are left (%v)", n, err)
	}
}
