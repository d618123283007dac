package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
)

// Names that mean something to SQL, to formats, to logs and to people.
var oddNames = []string{
	`it's "odd"`, `$1; drop schema graphile_worker cascade; --`, "two\nlines\t", `back\slash %s %d`, "☃ 雪人 \U0001F41F",
	" space around ", "graphile_worker.jobs", "{a,b}", "NULL", "Case", "case", strings.Repeat("ü", 128),
}

func TestOddNames(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	var tasks []gworker.Task
	ran := make(chan string, 2*len(oddNames))
	for _, name := range oddNames {
		tasks = append(tasks, gworker.NewRawTask(name, func(_ context.Context, job *gworker.RawJob) error {
			ran <- job.Task + "|" + job.Queue + "|" + job.Key
			return nil
		}))
		add(t, client, gworker.JobSpec{Task: name, Queue: name, Key: name})
		again := gworker.JobSpec{Task: name, Queue: name, Key: name + "2", Flags: []string{name}}
		if _, err := client.AddJobs(t.Context(), []gworker.JobSpec{again}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	runOnce(t, gworker.Config{Pool: pool, Tasks: tasks})
	close(ran)
	seen := map[string]bool{}
	for line := range ran {
		seen[line] = true
	}
	for _, name := range oddNames {
		for _, key := range []string{name, name + "2"} {
			if !seen[name+"|"+name+"|"+key] {
				t.Errorf("the job of task, queue and key %q did not run as such", key)
			}
		}
	}
	if n := jobCount(t, pool); n != 0 {
		t.Errorf("%d jobs left", n)
	}
}

// TestMalformedNotifications: each of them is a wake-up at most. The polling is
// so slow that only a notification can be what finds the job.
func TestMalformedNotifications(t *testing.T) {
	pool := migrated(t)
	ran := make(chan int64, 1)
	w := start(t, gworker.Config{Pool: pool, PollInterval: time.Hour, Tasks: []gworker.Task{
		gworker.NewRawTask("x", func(_ context.Context, job *gworker.RawJob) error {
			ran <- job.ID
			return nil
		}),
	}})
	waitFor[event.ListenerConnected](t, w.Events, nil)
	exec(t, pool, "insert into graphile_worker._private_tasks (identifier) values ('x') on conflict do nothing")
	for _, payload := range []string{
		"", "no JSON", "{", "[]", "null", `"text"`, `{"count":"three"}`, `{"count":1e999}`, `{"count":{}}`,
		strings.Repeat("[", 7000), `{"r":0,"count":99999999999999999999}`,
	} {
		exec(t, pool, `insert into graphile_worker._private_jobs (task_id)
			select id from graphile_worker._private_tasks where identifier = 'x'`)
		exec(t, pool, "select pg_notify('jobs:insert', $1)", payload)
		select {
		case <-ran:
		case <-time.After(patience):
			t.Fatalf("the notification %.30q did not wake the worker", payload)
		}
		exec(t, pool, "select pg_notify('worker:migrate', $1)", payload)
	}
	if err := w.Stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestDatabasesClockDecides: the server's clock seems to be a day off. Jobs that
// are due by it run, others do not, whatever the worker's clock says.
func TestDatabasesClockDecides(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, off := range map[string]time.Duration{"a day ahead": 24 * time.Hour, "a day behind": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			pool := migrated(t)
			// The server calls what it finds there only where it can inline it: so the
			// functions are as stable as their own.
			for _, clock := range []string{"now", "statement_timestamp"} {
				exec(t, pool, fmt.Sprintf(`create or replace function pg_catalog.%s() returns timestamptz language sql stable
					as $$ select pg_catalog.transaction_timestamp() + interval '%d seconds' $$`, clock, int(off.Seconds())))
			}
			var database time.Time
			scan(t, pool, "select now()", nil, &database)
			if d := time.Until(database) - off; d.Abs() > time.Hour {
				t.Fatalf("the database's clock is off by %s", d)
			}

			client := newClient(t, pool)
			at := func(name string, runAt time.Time) {
				add(t, client, gworker.JobSpec{Task: "x", Key: name, RunAt: runAt})
			}
			at("at once", time.Time{})
			at("due", database.Add(-time.Hour))
			at("not due", database.Add(time.Hour))
			fails := add(t, client, gworker.JobSpec{Task: "fails"})
			e := runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
				gworker.NewRawTask("x", nothing),
				gworker.NewRawTask("fails", func(context.Context, *gworker.RawJob) error { return context.Canceled }),
			}})
			var left []string
			scan(t, pool, "select array_agg(key order by key) from graphile_worker.jobs where key <> ''", nil, &left)
			if strings.Join(left, ",") != "not due" {
				t.Errorf("left: %q", left)
			}
			failed := waitFor(t, e, func(e event.JobFailed) bool { return e.Job.ID == fails.ID })
			if d := failed.NextRunAt.Sub(database); d < 0 || d > time.Hour {
				t.Errorf("the failed job runs again %s after the start by the database's clock", d)
			}
		})
	}
}

// Names that mean something to SQL or arrays find just their jobs.
func TestOddNamesInFilters(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	for _, name := range oddNames {
		job := add(t, client, gworker.JobSpec{Task: name, Queue: name, Key: name, Flags: []string{name}})
		exec(t, pool, "update graphile_worker._private_jobs set locked_at = now(), locked_by = $1, last_error = $1 where id = $2", name, job.ID)
		want := []int64{job.ID}
		for what, f := range map[string]gworker.JobFilter{
			"task": {Tasks: []string{name}}, "queue": {Queues: []string{name}}, "key": {Keys: []string{name}},
			"flag": {Flags: []string{name}}, "worker": {Workers: []string{name}},
		} {
			if diff := cmp.Diff(want, listed(t, client, f)); diff != "" {
				t.Errorf("%s %q (-want +got):\n%s", what, name, diff)
			}
		}
		if !slices.Contains(listed(t, client, gworker.JobFilter{ErrorContains: name}), job.ID) {
			t.Errorf("the job with the error %q was not found", name)
		}
		if found, err := client.GetJobByKey(t.Context(), name); err != nil || found.ID != job.ID || found.LockedBy != name {
			t.Errorf("by key %q: %+v, %v", name, found, err)
		}
		page, err := client.Queues(t.Context(), gworker.QueueFilter{Names: []string{name}})
		if err != nil || len(page.Queues) != 1 || page.Queues[0].Name != name || page.Queues[0].Running != 1 {
			t.Errorf("queue %q: %+v, %v", name, page, err)
		}
		held, err := client.ForceUnlockWorkers(t.Context(), []string{name})
		if err != nil || len(held) != 1 || len(held[0].Jobs) != 1 || held[0].Jobs[0].ID != job.ID {
			t.Errorf("unlocking %q: %+v, %v", name, held, err)
		}
	}
}

func listed(t *testing.T, client *gworker.Client, f gworker.JobFilter) []int64 {
	t.Helper()
	page, err := client.ListJobs(t.Context(), f)
	if err != nil {
		t.Fatalf("%+v: %v", f, err)
	}
	ids := []int64{}
	for _, job := range page.Jobs {
		ids = append(ids, job.ID)
	}
	return ids
}
