package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/gworker/gworker/internal/testdb"
)

// TestRetry: failed jobs run again with all their attempts, and failed ones show no
// next run until then.
func TestRetry(t *testing.T) {
	database := testdb.Migrated(t)
	run := func(stdin string, args ...string) result { return worker(t, stdin, append(args, "-c", database)...) }
	var ids []string
	for range 3 {
		var added struct{ ID json.Number }
		if err := json.Unmarshal([]byte(run("", "add", "x", "--max-attempts", "4", "--json").out), &added); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, added.ID.String())
	}
	run("", "fail", ids[0], ids[1], "--reason", "no such customer").want(t, 0, "failed 2 jobs")
	if listed := run("", "list", "--state", "failed").out; strings.Contains(listed, "run at") {
		t.Errorf("failed jobs have next runs:\n%s", listed)
	}
	run("", "show", ids[0]).want(t, 0, "4 of 4", "never", "worker retry "+ids[0])
	run(ids[1]+"\n", "retry", "--dry-run", "-").want(t, 0, "would retry job "+ids[1], "4 of 4")
	run(ids[1]+"\n", "retry", ids[0], "-").want(t, 0, "retried job "+ids[0], "ready, 0 of 4 attempts", "retried 2 jobs")
	run("", "show", ids[1]).want(t, 0, "ready", "0 of 4", "no such customer")
	run("", "retry", ids[2], "999999").want(t, 1, "ready", "no such job", "retried 1 job, left out 1", "1 of 2 jobs not touched")
	run("", "retry").want(t, 2, "name the ids")
}

// TestManyJobsArePrintedBriefly: a line each for the first, and a summary.
func TestManyJobsArePrintedBriefly(t *testing.T) {
	database := testdb.Migrated(t)
	pool := testdb.Pool(t, database)
	if _, err := pool.Exec(t.Context(), "select graphile_worker.add_job('x') from generate_series(1, 50)"); err != nil {
		t.Fatal(err)
	}
	run := func(stdin string, args ...string) result { return worker(t, stdin, append(args, "-c", database)...) }
	ids := run("", "list", "--all", "--ids").out
	for i := range 30 {
		ids += fmt.Sprintln(1_000_000 + i)
	}
	brief := run(ids, "fail", "-")
	brief.want(t, 1, "... and 30 more", "... and left out 10 more", "failed 50 jobs, left out 30", "30 of 80 jobs not touched")
	if lines := strings.Count(brief.out, "\n"); lines != 20+1+20+1+1 {
		t.Errorf("%d lines:\n%s", lines, brief.out)
	}
	whole := run(ids, "retry", "-", "--verbose")
	whole.want(t, 1, "retried 50 jobs, left out 30")
	if lines := strings.Count(whole.out, "\n"); lines != 81 {
		t.Errorf("%d lines with --verbose:\n%s", lines, whole.out)
	}
}

// TestCancelOfSeveral: as all commands that take ids.
func TestCancelOfSeveral(t *testing.T) {
	database := testdb.Migrated(t)
	run := func(stdin string, args ...string) result { return worker(t, stdin, append(args, "-c", database)...) }
	run("", "add", "x")
	run("", "add", "x")
	ids := run("", "list", "--ids").out
	several := run(ids, "cancel", "-", "777777", "--json")
	several.want(t, 1, `"state":"failed"`, `"state":"not_found"`, "1 of 3 jobs not found")
	if strings.Count(several.out, "\n") != 3 {
		t.Errorf("not one object per line:\n%s", several.out)
	}
	run(ids, "cancel", "-").want(t, 0, "had failed permanently before")
	run("", "cancel", "-").want(t, 0, "nothing to do")
	run("", "cancel", "seven").want(t, 2, `"seven"`)
}
