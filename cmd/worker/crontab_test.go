package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/testdb"
)

const someCrontab = `# a comment
0 4 * * * report ?fill=1d {region: 'eu',}
CRON_TZ=Europe/Paris
30 2 * * * cleanup ?max=3
61 25 * * * x
0 0 31 2 * never
* * * * * report
`

func TestCrontabCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "some crontab")
	if err := os.WriteFile(file, []byte(someCrontab), 0o600); err != nil {
		t.Fatal(err)
	}
	r := worker(t, "", "crontab", "check", "--from", "2026-10-24T12:00:00Z", file)
	r.want(t, 1, "the crontab has 3 errors")
	want := strings.ReplaceAll(`FILE:2: 0 4 * * * report ?fill=1d {"region":"eu"}
    Sun 2026-10-25 04:00 UTC
    Mon 2026-10-26 04:00 UTC
    Tue 2026-10-27 04:00 UTC
    Wed 2026-10-28 04:00 UTC
    Thu 2026-10-29 04:00 UTC
FILE:4: 30 2 * * * cleanup ?max=3&tz=Europe/Paris
    Sun 2026-10-25 00:30 UTC   Sun 2026-10-25 02:30 +02:00 CEST
    Mon 2026-10-26 01:30 UTC   Mon 2026-10-26 02:30 +01:00 CET
    Tue 2026-10-27 01:30 UTC   Tue 2026-10-27 02:30 +01:00 CET
    Wed 2026-10-28 01:30 UTC   Wed 2026-10-28 02:30 +01:00 CET
    Thu 2026-10-29 01:30 UTC   Thu 2026-10-29 02:30 +01:00 CET
FILE:5: error: minute: 61 is out of range: it can be 0 to 59
FILE:5: error: hour: 25 is out of range: it can be 0 to 23
FILE:6: 0 0 31 2 * never ?tz=Europe/Paris
    never: there is no such day
FILE:7: error: id: "report" is the identifier of line 2, too: give one of them its own with ?id=
`, "FILE", file)
	if r.out != want {
		t.Errorf("got:\n%s\nwant:\n%s", r.out, want)
	}
}

func TestCrontabCheckJSON(t *testing.T) {
	r := worker(t, someCrontab, "crontab", "check", "-", "--json", "--from", "2026-10-24T12:00:00Z")
	r.want(t, 1)
	var got checkJSON
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatalf("%v in %s", err, r.out)
	}
	if len(got.Entries) != 3 || len(got.Errors) != 3 || got.File != "-" {
		t.Fatalf("%+v", got)
	}
	e := got.Entries[0]
	if e.Line != 2 || e.Task != "report" || e.Schedule != "0 4 * * *" || e.TimeZone != "UTC" || e.FillSeconds != 86400 ||
		len(e.Next) != 5 || !e.Next[0].UTC.Equal(time.Date(2026, 10, 25, 4, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", e)
	}
	if p := got.Errors[1]; p.Line != 5 || p.Field != "hour" || p.Problem == "" {
		t.Errorf("%+v", p)
	}
	worker(t, "* * * * * ok", "crontab", "check", "-").want(t, 0, "-:1: * * * * * ok")
	worker(t, "", "crontab", "check").want(t, 2, "name the one file")
	worker(t, "", "crontab", "check", "-", "--from", "tomorrow").want(t, 2, "--from")
	worker(t, "", "crontab", "check", "no-such-file").want(t, 1, "no-such-file")
}

func TestRunRefusesCrontabs(t *testing.T) {
	t.Chdir(tasksDir(t, map[string]string{"tasks/a.sql": "select 1", "crontab": "* * * * * a\nx", "mine": "* * * * * a"}))
	for _, args := range [][]string{{"run"}, {"run", "--once"}, {"dev"}, {"run", "--crontab", "crontab"}} {
		worker(t, "", args...).want(t, 1, "the crontab crontab has errors: line 2: hour: is missing")
	}
	worker(t, "", "run", "--crontab", "gone").want(t, 1, "gone")
	// Only with a crontab that is named can the tasks be missing.
	worker(t, "", "run", "--crontab", "mine", "--tasks", "gone").want(t, 1, "gone")
}

// A process picks up the crontab next to its tasks, or only the one that is named.
func TestRunWithCrontab(t *testing.T) {
	var sample testdb.Sample
	for name, args := range map[string][]string{
		"next to the tasks": {"run"},
		"named":             {"run", "--crontab", "other", "--tasks", "sub/tasks"},
		"without tasks":     {"run", "--crontab", "crontab"},
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			database := testdb.Migrated(t)
			files := map[string]string{
				"crontab": "* * * * * a ?id=default&fill=1m", "tasks/a.sql": "select 1",
				"other": "* * * * * a ?id=other&fill=1m", "sub/tasks/a.sql": "select 1", "sub/crontab": "* * * * * a ?id=sub&fill=1m",
			}
			want := "default"
			switch name {
			case "without tasks":
				files = map[string]string{"crontab": files["crontab"]}
			case "named":
				want = "other"
			}
			conn, err := pgx.Connect(t.Context(), database)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			if _, err := conn.Exec(t.Context(), `insert into graphile_worker._private_known_crontabs (identifier, known_since)
				select unnest('{default,other,sub}'::text[]), now() - interval '1 hour'`); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(t.Context(), `listen "jobs:insert"`); err != nil {
				t.Fatal(err)
			}
			t.Chdir(tasksDir(t, files))
			var errors bytes.Buffer
			ctx, stop := context.WithCancel(t.Context())
			status := make(chan int, 1)
			go func() {
				status <- execute(ctx, append(args, "-c", database), stdio{in: strings.NewReader(""), out: io.Discard, err: &errors})
			}()
			// The job of the missed minute.
			wait, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := conn.WaitForNotification(wait); err != nil {
				t.Fatal(err)
			}
			var scheduled string
			if err := conn.QueryRow(t.Context(), `select string_agg(identifier, ',') from graphile_worker._private_known_crontabs
				where last_execution is not null`).Scan(&scheduled); err != nil {
				t.Fatal(err)
			}
			if scheduled != want {
				t.Errorf("scheduled %q, want %q", scheduled, want)
			}
			stop()
			if got := <-status; got != 0 {
				t.Errorf("status %d: %s", got, &errors)
			}
			if warned := strings.Contains(errors.String(), "only adds the jobs of its crontab"); warned != (name == "without tasks") {
				t.Errorf("it says that it only schedules: %t\n%s", warned, &errors)
			}
		})
	}
}
