package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/testdb"
)

// adminQueue has a job in each state: 1 ready, 2 scheduled, 3 running, 4
// blocked by it, 5 failed, 6 retrying.
func adminQueue(t *testing.T) (database string, pool *pgxpool.Pool) {
	t.Helper()
	database = testdb.Migrated(t)
	pool = testdb.Pool(t, database)
	for _, sql := range []string{
		`select graphile_worker.add_job('send', json_build_object('n', n), queue_name => case when n in (3, 4) then 'q' end, job_key => 'key ' || n)
			from generate_series(1, 6) n`,
		"update graphile_worker._private_jobs set run_at = now() + interval '3 hours' where id in (2, 6)",
		"update graphile_worker._private_jobs set attempts = 1, locked_at = now() - interval '5 minutes', locked_by = 'gworker_x' where id = 3",
		"update graphile_worker._private_job_queues set locked_at = now() - interval '5 minutes', locked_by = 'gworker_x'",
		`update graphile_worker._private_jobs set attempts = 25, last_error = E'boom\n\x1b[31mred\u202e' where id = 5`,
		"update graphile_worker._private_jobs set attempts = 2, last_error = 'timeout', priority = -4 where id = 6",
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return database, pool
}

// jobsText is every job, but for when it was updated.
func jobsText(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	var text string
	err := pool.QueryRow(t.Context(), `select coalesce(string_agg((to_jsonb(j) - 'updated_at')::text, E'\n' order by id), '')
		from graphile_worker._private_jobs j`).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func parsed[T any](t *testing.T, text string) T {
	t.Helper()
	var value T
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return value
}

// lacks says that output holds none of the parts.
func (r result) lacks(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(r.out+r.err, part) {
			t.Errorf("output has %q\nout: %s\nerr: %s", part, r.out, r.err)
		}
	}
}

func TestList(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	database, _ := adminQueue(t)
	r := worker(t, "", "list", "-c", database)
	r.want(t, 0, "id  state", "1   ready ", "2   scheduled ", "in 2 h", "3   running ", "by gworker_x for 5 min", "4   blocked ", "queue locked by gworker_x",
		"5   failed ", "25/25", "boom \\u001b[31mred\\u202e", "6   retrying ", "timeout")
	if n := strings.Count(r.out, "\n"); n != 7 {
		t.Errorf("%d lines:\n%s", n, r.out)
	}
	r.lacks(t, "\x1b", "\u202e", "payload")
	worker(t, "", "list", "-c", database, "--payload", "--key", "key 1").want(t, 0, "payload", `{"n":1}`)

	r = worker(t, "", "list", "-c", database, "--state", "failed,retrying", "--order", "newest", "--json", "--payload")
	r.want(t, 0)
	page := parsed[listJSON](t, r.out)
	if len(page.Jobs) != 2 || page.NextCursor != "" {
		t.Fatalf("%s", r.out)
	}
	job := page.Jobs[1]
	if job.ID != 5 || job.State != "failed" || job.LastError != "boom\n\x1b[31mred\u202e" || job.Attempts != 25 || job.Key != "key 5" || string(job.Payload) != `{"n":5}` {
		t.Errorf("job 5 is %+v", job)
	}

	r = worker(t, "", "list", "-c", database, "--limit", "4", "--ids")
	if r.want(t, 0, "there are more"); r.out != "1\n2\n3\n4\n" {
		t.Errorf("ids: %q", r.out)
	}
	r = worker(t, "", "list", "-c", database, "--limit", "4", "--json")
	cursor := parsed[listJSON](t, r.out).NextCursor
	worker(t, "", "list", "-c", database, "--limit", "4").want(t, 0, "4 jobs; there are more", "--cursor "+cursor)
	if r = worker(t, "", "list", "-c", database, "--ids", "--cursor", cursor); r.out != "5\n6\n" {
		t.Errorf("the next page: %q", r.out)
	}
	for what, c := range map[string][]string{
		"1\n2\n3\n4\n5\n6\n":  {"--all"},
		"5\n":                 {"--error", "BOOM"},
		"6\n1\n":              {"--order", "next", "--no-queue", "--limit", "2"},
		"3\n4\n":              {"--queue", "q", "--task", "send"},
		"3\n":                 {"--worker", "gworker_x"},
		"2\n6\n":              {"--run-at-from", "1h"},
		"1\n3\n4\n5\n":        {"--run-at-before", "1h"},
		"6\n":                 {"--max-priority", "-1"},
		"1\n2\n3\n4\n5\n":     {"--min-priority", "0"},
		"":                    {"--created-before", "1h"},
		"1\n2\n3\n4\n5\n6\n ": {"--updated-since", "1h", "--created-since", "1h"},
	} {
		if r := worker(t, "", append([]string{"list", "-c", database, "--ids"}, c...)...); r.status != 0 || r.out != strings.TrimSpace(what)+map[bool]string{true: "\n"}[what != ""] {
			t.Errorf("%q: status %d, %q, want %q\n%s", c, r.status, r.out, what, r.err)
		}
	}
	worker(t, "", "list", "-c", database, "--task", "none").want(t, 0, "no jobs")
	if r := worker(t, "", "list", "-c", database, "--task", "none", "--json"); r.out != `{"jobs":[]}`+"\n" {
		t.Errorf("no jobs as JSON: %s", r.out)
	}
}

func TestShow(t *testing.T) {
	database, _ := adminQueue(t)
	r := worker(t, "", "show", "5", "-c", database)
	r.want(t, 0, "job 5\n", "state        failed", "attempts     25 of 25", "last error\n    boom\n    \\u001b[31mred\\u202e\n", "payload\n    {\n      \"n\": 5\n    }\n", "run at       never", "worker retry 5")
	r.lacks(t, "\x1b", "\u202e", "locked")
	worker(t, "", "show", "3", "4", "-c", database).want(t, 0, "locked by    gworker_x", "(5 min ago)", "\n\njob 4\n", "queue locked by gworker_x since ")
	r = worker(t, "", "show", "--key", "key 6", "1", "--json", "-c", database)
	r.want(t, 0)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	if len(lines) != 2 || parsed[jobJSON](t, lines[0]).ID != 1 || parsed[jobJSON](t, lines[1]).State != "retrying" {
		t.Errorf("%s", r.out)
	}
	worker(t, "", "show", "1", "99", "--key", "it's", "-c", database).want(t, 1, "job 1\n", `no such job (completed jobs are deleted): 99, "it's"`)
}

func TestCompleteFailReschedule(t *testing.T) {
	database, pool := adminQueue(t)
	before := jobsText(t, pool)
	const locked = `left out job 3 (send): it is locked by gworker_x, for 5 min; "worker cancel 3" ends a running job`
	const missing = "left out job 99: there is no such job"
	for _, c := range [][]string{
		{"complete", "1", "3", "99"}, {"fail", "1", "3", "99"}, {"reschedule", "1", "3", "99", "--run-at", "2h", "--priority", "8"}, {"remove", "--id", "1", "3", "99"},
	} {
		worker(t, "", append(c, "-c", database, "--dry-run")...).want(t, 1,
			"would "+c[0]+" job 1 (send): ", locked, missing, "2 of 3 jobs would not be touched")
	}
	worker(t, "", "reschedule", "1", "5", "-c", database, "--dry-run", "--run-at", "now", "--priority", "8", "--max-attempts", "9").want(t, 0,
		"run at ", " -> now, priority 0 -> 8, max attempts 25 -> 9\n", "it stays failed", "--attempts 0")
	if after := jobsText(t, pool); after != before {
		t.Errorf("dry runs changed something:\n%s\n%s", before, after)
	}

	r := worker(t, "", "reschedule", "5", "3", "99", "-c", database, "--run-at", "2031-02-03T04:05:06Z", "--attempts", "0", "--json")
	r.want(t, 1, "2 of 3 jobs not touched")
	result := parsed[changeResultJSON](t, r.out)
	if len(result.Jobs) != 1 || result.Jobs[0].State != "scheduled" || result.Jobs[0].RunAt.Year() != 2031 || result.Jobs[0].Attempts != 0 || result.DryRun {
		t.Errorf("%s", r.out)
	}
	if n := result.NotTouched; len(n) != 2 || n[0].ID != 3 || n[0].Reason != "locked" || n[0].LockedBy != "gworker_x" || n[0].LockedAt.IsZero() ||
		n[1].ID != 99 || n[1].Reason != "not_found" || n[1].LockedBy != "" {
		t.Errorf("%s", r.out)
	}
	worker(t, "", "reschedule", "6", "-c", database, "--run-at", "now").want(t, 0, "rescheduled job 6 (send): ready, 2 of 25 attempts")
	worker(t, "", "reschedule", "6", "-c", database, "--attempts", "25").want(t, 0, "it stays failed")
	worker(t, "", "fail", "1", "-c", database, "--reason", "no more").want(t, 0, "failed job 1 (send): it is kept")
	worker(t, "", "show", "1", "-c", database).want(t, 0, "state        failed", "no more")
	// Ids come from another command.
	ids := worker(t, "", "list", "--state", "failed", "--all", "--ids", "-c", database)
	worker(t, ids.out, "complete", "-", "-c", database).want(t, 0, "completed job 1 (send): deleted; it was failed, 25 of 25 attempts", "completed job 6 ")
	worker(t, "", "complete", "-", "-c", database).want(t, 0, "nothing to do")
	if r := worker(t, "", "list", "--ids", "-c", database); r.out != "2\n3\n4\n5\n" {
		t.Errorf("left: %q", r.out)
	}
}

func TestRemove(t *testing.T) {
	database, pool := adminQueue(t)
	before := jobsText(t, pool)
	worker(t, "", "remove", "key 1", "key 3", "none", "--dry-run", "-c", database).want(t, 1,
		`would remove job 1 (send, key "key 1")`, `job 3 (send, key "key 3") is locked by gworker_x: it would lose its key`, `no job has the key "none"`, "1 of 3 keys not found")
	if after := jobsText(t, pool); after != before {
		t.Errorf("a dry run changed something:\n%s\n%s", before, after)
	}
	r := worker(t, "", "remove", "key 1", "key 3", "none", "--json", "-c", database)
	r.want(t, 1)
	result := parsed[removeJSON](t, r.out)
	if len(result.Jobs) != 2 || !result.Jobs[0].Deleted || result.Jobs[0].RemovedKey != "key 1" || result.Jobs[1].Deleted || result.Jobs[1].ID != 3 ||
		!slices.Equal(result.NotFound, []string{"none"}) {
		t.Errorf("%s", r.out)
	}
	worker(t, "", "remove", "key 2", "-c", database).want(t, 0, `removed job 2 (send, key "key 2")`)
	// A number is a key unless --id says otherwise.
	worker(t, "", "remove", "4", "-c", database).want(t, 1, `no job has the key "4"`)
	worker(t, "", "remove", "--id", "4", "-c", database).want(t, 0, "removed job 4 (send): blocked")
	if r := worker(t, "", "list", "--ids", "-c", database); r.out != "3\n5\n6\n" {
		t.Errorf("left: %q", r.out)
	}
}

func TestForceUnlock(t *testing.T) {
	database, pool := adminQueue(t)
	before := jobsText(t, pool)
	worker(t, "", "force-unlock", "gworker_x", "nobody", "--dry-run", "-c", database).want(t, 1,
		"would unlock what gworker_x has locked:\n  job 3 (send, attempt 1 of 25), locked for 5 min\n  queue: q\n", "nobody has no locks", "1 of 2 workers had no locks")
	if after := jobsText(t, pool); after != before {
		t.Errorf("a dry run changed something:\n%s\n%s", before, after)
	}
	r := worker(t, "", "force-unlock", "gworker_x", "--json", "-c", database)
	r.want(t, 0)
	result := parsed[forceUnlockJSON](t, r.out)
	if len(result.Workers) != 1 || len(result.Workers[0].Jobs) != 1 || result.Workers[0].Jobs[0].ID != 3 || !slices.Equal(result.Workers[0].Queues, []string{"q"}) {
		t.Errorf("%s", r.out)
	}
	worker(t, "", "list", "--state", "running,blocked", "-c", database).want(t, 0, "no jobs")
}

func TestCleanupCommand(t *testing.T) {
	database, pool := adminQueue(t)
	if _, err := pool.Exec(t.Context(), `insert into graphile_worker._private_tasks (identifier) values ('unused'), ('kept'), ('sub/mine')`); err != nil {
		t.Fatal(err)
	}
	dir := tasksDir(t, map[string]string{"sub/mine.sql": "select 1"})
	args := []string{"cleanup", "-c", database, "--keep-task", "kept", "--tasks", dir}
	worker(t, "", append(args, "--dry-run", "GC_TASK_IDENTIFIERS", "delete-permafailed-jobs")...).want(t, 0,
		"would delete 1 permanently failed job\n", "would delete 1 task identifier: unused\n")
	r := worker(t, "", append(args, "--json")...)
	r.want(t, 0)
	if result := parsed[cleanupJSON](t, r.out); result.DryRun || result.FailedJobs != 0 || !slices.Equal(result.Tasks, []string{"unused"}) || len(result.Queues) != 0 {
		t.Errorf("%s", r.out)
	}
	worker(t, "", args...).want(t, 0, "nothing to delete")
	worker(t, "", append(args, "DELETE_PERMAFAILED_JOBS")...).want(t, 0, "deleted 1 permanently failed job")
	worker(t, "", "cleanup", "-c", database, "everything").want(t, 2, "EVERYTHING", "GC_JOB_QUEUES")
	worker(t, "", "cleanup", "-c", database, "--tasks", dir+"/none").want(t, 1, "none")
	worker(t, "", "cleanup", "-c", database).want(t, 0, "deleted 2 task identifiers: kept, sub/mine")
}

func TestStatsQueuesWorkers(t *testing.T) {
	database, _ := adminQueue(t)
	worker(t, "", "stats", "-c", database).want(t, 0, "6 jobs: 1 scheduled, 1 ready, 1 blocked, 1 running, 1 retrying, 1 failed; the longest wait is ",
		"task  scheduled  ready  blocked  running  retrying  failed  longest wait", "queue  blocked  running\nq      1        1")
	r := worker(t, "", "stats", "--json", "-c", database)
	stats := parsed[statsJSON](t, r.out)
	if stats.Jobs.Total != 6 || stats.Jobs.Blocked != 1 || len(stats.Tasks) != 1 || stats.Tasks[0].Task != "send" || len(stats.Queues) != 1 || stats.Queues[0].Running != 1 {
		t.Errorf("%s", r.out)
	}
	worker(t, "", "queues", "-c", database).want(t, 0, "queue  locked by  for    blocked  running\nq      gworker_x  5 min  1        1")
	r = worker(t, "", "queues", "q", "--locked", "--json", "-c", database)
	queues := parsed[queuesJSON](t, r.out)
	if len(queues.Queues) != 1 || queues.Queues[0].LockedBy != "gworker_x" || queues.Queues[0].Jobs.Blocked != 1 {
		t.Errorf("%s", r.out)
	}
	worker(t, "", "queues", "none", "-c", database).want(t, 1, `no such queue: "none"`)
	worker(t, "", "workers", "-c", database).want(t, 0, "gworker_x  gworker  not registered  1     1       5 min")
	r = worker(t, "", "workers", "--json", "-c", database)
	workers := parsed[workersJSON](t, r.out)
	if len(workers.Workers) != 1 || workers.Workers[0].Runtime != "gworker" || workers.Workers[0].Jobs != 1 || workers.Workers[0].Registered {
		t.Errorf("%s", r.out)
	}
}

func TestAdministrationOfNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	database := testdb.Migrated(t)
	for command, says := range map[string]string{
		"list": "no jobs", "stats": "no jobs", "queues": "no queues", "workers": "no workers are registered", "cleanup": "nothing to delete",
	} {
		worker(t, "", command, "-c", database).want(t, 0, says)
		worker(t, "", command, "-c", database, "-s", "else where").want(t, 1, "worker migrate", "--schema")
	}
	for command, status := range map[string]int{"complete 1": 1, "fail 1": 1, "reschedule 1 --priority 1": 1, "remove k": 1, "force-unlock w": 1, "show 1": 1} {
		args := append(strings.Fields(command), "-c", database)
		worker(t, "", args...).want(t, status, "1")
		worker(t, "", append(args, "-s", "else where")...).want(t, 1, "worker migrate")
	}
	odd := `my "odd" Schema`
	worker(t, "", "migrate", "-c", database, "-s", odd).want(t, 0)
	worker(t, "", "add", "x", "-c", database, "-s", odd).want(t, 0)
	worker(t, "", "list", "-c", database, "-s", odd, "--no-prepared-statements").want(t, 0, "1   ready")
	worker(t, "", "complete", "1", "-c", database, "-s", odd).want(t, 0, "completed job 1 (x)")
}

func TestAdministrationUsage(t *testing.T) {
	for command, says := range map[string]string{
		"list x":                           `unexpected argument "x"`,
		"list --state done":                `--state is "done"`,
		"list --order size":                "--order",
		"list --order next --state failed": "--state",
		"list --limit 0":                   "--limit",
		"list --limit 99999":               "--limit",
		"list --cursor x":                  "--cursor",
		"list --updated-since x":           "--updated-since",
		"list --run-at-from x":             "--run-at-from",
		"list --all --limit 3":             "all",
		"list --ids --json":                "ids",
		"show":                             "--key",
		"show x":                           `"x" is not the id`,
		"complete":                         "ids of the jobs",
		"complete 1 two":                   `"two" is not the id`,
		"complete 1.5":                     "1.5",
		"complete 99999999999999999999":    "is not the id",
		"complete - -":                     "twice",
		"fail":                             "ids of the jobs",
		"reschedule 1":                     "say what to change",
		"reschedule 1 --run-at soon":       "--run-at",
		"reschedule 1 --run-at=":           "--run-at",
		"reschedule 1 --attempts -1":       "--attempts",
		"reschedule 1 --max-attempts 0":    "--max-attempts",
		"reschedule 1 --priority 40000":    "--priority",
		"remove":                           "keys of the jobs",
		"remove --id x":                    "is not the id",
		"force-unlock":                     "ids of the workers",
		"queues --limit -1":                "--limit",
		"queues --cursor x":                "--cursor",
		"stats x":                          `"x"`,
		"stats --max-queues -5":            "--max-queues",
		"workers x":                        `"x"`,
	} {
		args := append(strings.Fields(command), "-c", "host=127.0.0.1 port=1")
		if r := worker(t, "", args...); r.status != 2 || !strings.Contains(r.err, says) || r.out != "" {
			t.Errorf("%s: status %d\nout: %s\nerr: %s", command, r.status, r.out, r.err)
		}
	}
}

func TestTablesStayNarrow(t *testing.T) {
	database := testdb.Migrated(t)
	pool := testdb.Pool(t, database)
	long := strings.Repeat("ü", 128)
	for _, sql := range []string{
		fmt.Sprintf("select graphile_worker.add_job('%s', queue_name => '%[1]s', job_key => '%[1]s')", long),
		"update graphile_worker._private_jobs set attempts = 1, last_error = repeat('x ', 10000)",
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	r := worker(t, "", "list", "-c", database)
	r.want(t, 0, "…")
	for line := range strings.Lines(r.out) {
		if n := len([]rune(line)); n > 230 {
			t.Errorf("a line of %d characters: %s", n, line)
		}
	}
}
