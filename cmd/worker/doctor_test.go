package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/gworker/gworker/internal/testdb"
)

func TestDoctorOfAHealthyQueue(t *testing.T) {
	database := testdb.Migrated(t)
	// As in new databases of PostgreSQL 15 and newer.
	if _, err := testdb.Pool(t, database).Exec(t.Context(), "revoke create on schema public from public"); err != nil {
		t.Fatal(err)
	}
	r := worker(t, "", "doctor", "-c", database)
	r.want(t, 0, `schema "graphile_worker" at revision 20, PostgreSQL `, "0 problems, 0 warnings, 0 notes, 35 ok")
	if strings.Contains(r.out, "OK  ") || r.err != "" {
		t.Errorf("out: %s\nerr: %s", r.out, r.err)
	}
	r = worker(t, "", "doctor", "-c", database, "--all")
	r.want(t, 0, "OK  server-version\n  PostgreSQL ", "OK  latency\n  No job waits")
}

func TestDoctorOfASickQueue(t *testing.T) {
	database := testdb.Migrated(t)
	pool := testdb.Pool(t, database)
	for _, sql := range []string{
		"select graphile_worker.add_job('x')",
		`update graphile_worker._private_jobs set locked_by = E'me\x1b[2J\u202e', locked_at = now() - interval '2 minutes'`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	worker(t, "", "doctor", "-c", database).want(t, 0,
		"WARNING  unknown-workers\n  1 worker holds locks", "  Why it matters:\n    No Graphile Worker", "  What helps:\n    select graphile_worker.force_unlock",
		"0 problems, 1 warning, 0 notes", `me\u001b[2J\u202e (of an`, `array[E'me\u001b[2J\u202e']`)

	if _, err := pool.Exec(t.Context(), "update graphile_worker._private_jobs set locked_at = now() - interval '5 hours'"); err != nil {
		t.Fatal(err)
	}
	r := worker(t, "", "doctor", "-c", database)
	r.want(t, 1, "PROBLEM  old-locks", "2 problems, 0 warnings", "worker: the doctor found 2 problems\n")
	for line := range strings.Lines(r.out) {
		if len(line) > 81 && !strings.HasPrefix(line, "    ") {
			t.Errorf("a line of text has %d columns: %s", len(line)-1, line)
		}
	}
}

func TestDoctorAsJSON(t *testing.T) {
	r := worker(t, "", "doctor", "-c", testdb.Empty(t), "-s", "elsewhere", "--json")
	r.want(t, 1, "worker: the doctor found 1 problem\n")
	var report map[string]any
	if err := json.Unmarshal([]byte(r.out), &report); err != nil {
		t.Fatalf("%v in %s", err, r.out)
	}
	var fields []string
	for field := range report {
		fields = append(fields, field)
	}
	slices.Sort(fields)
	if want := []string{"checked_at", "findings", "revision", "schema", "server", "worst"}; !slices.Equal(fields, want) {
		t.Errorf("fields %q, want %q", fields, want)
	}
	if report["worst"] != "problem" || report["schema"] != "elsewhere" {
		t.Errorf("%s", r.out)
	}
	for _, f := range report["findings"].([]any) {
		finding := f.(map[string]any)
		if finding["id"] != "schema" {
			continue
		}
		help := finding["help"].([]any)
		if finding["severity"] != "problem" || finding["why"] == "" || help[0] != "worker migrate --schema 'elsewhere'" {
			t.Errorf("%v", finding)
		}
	}
}

func TestDoctorErrors(t *testing.T) {
	worker(t, "", "doctor", "extra").want(t, 2, `"extra"`)
	worker(t, "", "doctor", "--what").want(t, 2, "worker doctor --help")
	r := worker(t, "", "doctor", "-c", "postgres://u:hunter2@127.0.0.1:1/db")
	r.want(t, 1, "nothing listens there")
	if r.out != "" || strings.Contains(r.err, "hunter2") {
		t.Errorf("out: %s\nerr: %s", r.out, r.err)
	}
}
