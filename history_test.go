package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/history"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// ways are the ways in which a worker's jobs are claimed and their ends are written.
var ways = map[string]gworker.Config{
	"held":       {},
	"locked":     {HoldTime: new(time.Duration)},
	"unprepared": {NoPreparedStatements: true},
}

// The tasks of these tests, and what each leaves behind.
func historyTasks() []gworker.Task {
	late := gworker.NewRawTask("late", func(ctx context.Context, _ *gworker.RawJob) error { <-ctx.Done(); return ctx.Err() })
	return []gworker.Task{
		gworker.NewRawTask("ok", testworker.Nothing),
		gworker.NewRawTask("fails", testworker.Fail(errors.New("no such host"))),
		gworker.NewRawTask("discards", testworker.Fail(gworker.Discard(errors.New("gone for good")))),
		gworker.NewRawTask("panics", func(context.Context, *gworker.RawJob) error { panic("out of cheese") }),
		gworker.NewRawTask("snoozes", testworker.Fail(gworker.Snooze(time.Hour))),
		late.With(gworker.TaskOptions{Timeout: 20 * time.Millisecond}),
		gworker.NewRawTask("quiet", testworker.Fail(errors.New("not told"))).With(gworker.TaskOptions{History: history.Off}),
	}
}

// What a run comes to is recorded with it, however its job was claimed.
func TestHistoryOfRuns(t *testing.T) {
	for name, config := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			client := newClient(t, pool)
			var specs []gworker.JobSpec
			for _, task := range historyTasks() {
				specs = append(specs, gworker.JobSpec{Task: task.Identifier(), Queue: "q " + task.Identifier(), Key: "k " + task.Identifier(), MaxAttempts: 3})
			}
			ids := testworker.AddEach(t, client, specs...)
			config.Pool, config.Tasks = pool, historyTasks()
			e := runOnce(t, config)
			if n := count[event.HistoryDropped](e) + count[event.HistoryUnwritten](e) + count[event.HoldLost](e); n > 0 {
				t.Errorf("events %s", testworker.Describe(seen(e)))
			}

			for task, want := range map[string]string{
				"fails":    "failed 1/3 no such host, again",
				"discards": "permanently_failed 1/3 gone for good",
				"panics":   "failed 1/3 panic: out of cheese, again",
				"snoozes":  "snoozed 1/3 , again",
				"late":     "timed_out 1/3 the job's time is up, again",
			} {
				found, err := client.JobHistory(t.Context(), ids[task])
				if err != nil {
					t.Fatal(err)
				}
				if len(found.Events) != 1 || found.Job == nil {
					t.Errorf("%s: %+v", task, found)
					continue
				}
				got := found.Events[0]
				text, _, _ := strings.Cut(got.Error, "\n")
				line := fmt.Sprintf("%s %d/%d %s", got.Kind, got.Attempt, got.MaxAttempts, text)
				if !got.NextRunAt.IsZero() {
					line += ", again"
					if d := got.NextRunAt.Sub(found.Job.RunAt).Abs(); d > time.Millisecond {
						t.Errorf("%s: runs again at %s, and the row says %s", task, got.NextRunAt, found.Job.RunAt)
					}
				}
				if !strings.HasPrefix(line, strings.TrimSuffix(want, ", again")) || strings.HasSuffix(line, "again") != strings.HasSuffix(want, "again") {
					t.Errorf("%s: %q, want %q", task, line, want)
				}
				if got.JobID != ids[task] || got.Task != task || got.Queue != "q "+task || got.Key != "k "+task || got.WorkerID == "" {
					t.Errorf("%s: %+v", task, got)
				}
				if got.Ran <= 0 || got.Ran > time.Minute || got.Waited <= 0 || got.Waited > time.Minute {
					t.Errorf("%s waited %s and ran %s", task, got.Waited, got.Ran)
				}
				if age := time.Since(got.At); age < -time.Minute || age > time.Minute {
					t.Errorf("%s: recorded %s ago", task, age)
				}
			}
			if found, err := client.JobHistory(t.Context(), ids["quiet"]); err != nil || len(found.Events) > 0 {
				t.Errorf("of a task without history: %+v, %v", found, err)
			}
			if _, err := client.JobHistory(t.Context(), ids["ok"]); !errors.Is(err, gworker.ErrJobNotFound) {
				t.Errorf("of a job that completed: %v", err)
			}

			stats, err := client.TaskStats(t.Context(), history.StatsOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, s := range stats {
				lines = append(lines, fmt.Sprintf("%s %d %d %d %d %d", s.Task, s.Completed, s.Failed, s.PermanentlyFailed, s.Returned, s.Snoozed))
				if s.Ran.P99 < s.Ran.P50 || s.Ran.P50 <= 0 || s.Waited.P50 <= 0 || s.Waited.P99 > time.Minute {
					t.Errorf("%+v", s)
				}
			}
			if got, want := strings.Join(lines, ", "), "discards 0 0 1 0 0, fails 0 1 0 0 0, late 0 1 0 0 0, ok 1 0 0 0 0, panics 0 1 0 0 0, snoozes 0 0 0 0 1"; got != want {
				t.Errorf("statistics\n%s, want\n%s", got, want)
			}
		})
	}
}

// History outlives the job.
func TestHistoryOfJobsThatAreGone(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	id := testworker.Add(t, client, gworker.JobSpec{Task: "fails"}).ID
	runOnce(t, gworker.Config{Pool: pool, Tasks: historyTasks()})
	if _, err := client.CompleteJobs(t.Context(), []int64{id}); err != nil {
		t.Fatal(err)
	}
	found, err := client.JobHistory(t.Context(), id)
	if err != nil || found.Job != nil || len(found.Events) == 0 {
		t.Errorf("%+v, %v", found, err)
	}
}

// Whatever is wrong with the tables of history, jobs go on, and one warning says why.
func TestJobsDoNotSufferFromHistory(t *testing.T) {
	for fault, sql := range map[string]string{
		"no partition":      "do $$ declare p text; begin for p in select inhrelid::regclass from pg_inherits where inhparent = 'graphile_worker._gworker_events'::regclass loop execute 'drop table ' || p; end loop; end $$",
		"no table":          "drop table graphile_worker._gworker_events",
		"another table":     "alter table graphile_worker._gworker_events drop column kind",
		"no function":       "drop function graphile_worker._gworker_record",
		"nothing":           "drop table graphile_worker._gworker_events, graphile_worker._gworker_stats, graphile_worker._gworker_journal; drop function graphile_worker._gworker_record, graphile_worker._gworker_record_stats, graphile_worker._gworker_upkeep",
		"refused by a rule": "alter table graphile_worker._gworker_events add constraint refused check (false) not valid",
	} {
		for name, config := range ways {
			t.Run(fault+", "+name, func(t *testing.T) {
				t.Parallel()
				pool := migrated(t)
				client := newClient(t, pool)
				runs := make(chan int64, 100)
				config.Pool, config.Tasks = pool, []gworker.Task{gworker.NewRawTask("fails", func(_ context.Context, j *gworker.RawJob) error {
					runs <- j.ID
					return errors.New("no such host")
				})}
				w := testworker.Start(t, config)
				first := testworker.Add(t, client, gworker.JobSpec{Task: "fails", MaxAttempts: 1}).ID
				waitFor(t, w.Events, func(e event.JobPermanentlyFailed) bool { return e.Job.ID == first })
				testdb.Exec(t, pool, sql)
				for range 3 {
					id := testworker.Add(t, client, gworker.JobSpec{Task: "fails", MaxAttempts: 1}).ID
					waitFor(t, w.Events, func(e event.JobPermanentlyFailed) bool { return e.Job.ID == id })
					if got := testworker.Row(t, pool, id); got != "1/1|no such host|failed" {
						t.Errorf("left %q", got)
					}
				}
				dropped := waitFor(t, w.Events, func(event.HistoryDropped) bool { return true })
				if dropped.Err == nil || dropped.Count < 1 {
					t.Errorf("%+v", dropped)
				}
				if err := w.Stop(); err != nil {
					t.Error(err)
				}
				total := 0
				for _, e := range testworker.Seen[event.HistoryDropped](w.Events) {
					total += e.Count
				}
				if total != 3 {
					t.Errorf("%d events reported as dropped, want 3", total)
				}
				if n := count[event.HoldLost](w.Events) + count[event.JobLost](w.Events) + count[event.OutcomesDelayed](w.Events); n > 0 {
					t.Errorf("jobs have suffered: %s", testworker.Describe(seen(w.Events)))
				}
				if len(runs) != 4 {
					t.Errorf("%d runs of 4 jobs", len(runs))
				}
			})
		}
	}
}

// Tables that another session has locked delay nothing for long, and history is back afterwards.
func TestLockedHistory(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	w := testworker.Start(t, gworker.Config{Pool: pool, Tasks: historyTasks()})
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), "lock table graphile_worker._gworker_events in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	id := testworker.Add(t, client, gworker.JobSpec{Task: "fails"}).ID
	waitFor(t, w.Events, func(e event.JobFailed) bool { return e.Job.ID == id })
	dropped := waitFor(t, w.Events, func(event.HistoryDropped) bool { return true })
	if !strings.Contains(dropped.Err.Error(), "55P03") {
		t.Errorf("dropped because of %v", dropped.Err)
	}
}

// A task that fails without end writes no more events than the cap allows.
func TestHistoryCap(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	specs := make([]gworker.JobSpec, 500)
	for i := range specs {
		specs[i] = gworker.JobSpec{Task: "fails"}
	}
	if _, err := client.AddJobs(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	e := runOnce(t, gworker.Config{Pool: pool, Tasks: historyTasks(), HistoryCap: 7})
	dropped := 0
	for _, e := range testworker.Seen[event.HistoryDropped](e) {
		dropped += e.Count
	}
	recorded := 0
	testdb.Scan(t, pool, "select count(*) from graphile_worker._gworker_events", nil, &recorded)
	if most := 7 * (int(time.Since(began).Seconds()) + 2); recorded == 0 || recorded > most || recorded+dropped != 500 {
		t.Errorf("%d recorded, %d dropped of 500; at most %d were to be recorded", recorded, dropped, most)
	}
	stats, err := client.TaskStats(t.Context(), history.StatsOptions{})
	if err != nil || len(stats) != 1 || stats[0].Failed != 500 {
		t.Errorf("%+v, %v", stats, err)
	}
}

// seen are the events so far.
func seen(e *testworker.Events) []event.Event { all, _ := e.Seen(); return all }

// A role that was given a worker's rights records and reads history, a reader reads it, and
// others do neither.
func TestRightsOnHistory(t *testing.T) {
	pool := migrated(t)
	owner := newClient(t, pool)
	id := testworker.Add(t, owner, gworker.JobSpec{Task: "fails"}).ID
	clients := map[gworker.Rights]*gworker.Client{}
	for _, rights := range []gworker.Rights{gworker.RightsWorker, gworker.RightsReader, gworker.RightsProducer} {
		role, as := testdb.Role(t, pool)
		if _, err := owner.Grant(t.Context(), rights, role, gworker.GrantOptions{}); err != nil {
			t.Fatal(err)
		}
		clients[rights] = newClient(t, as)
		if rights != gworker.RightsWorker {
			for _, sql := range []string{
				"select graphile_worker._gworker_record_action('retry', array[1]::bigint[], '{}')",
				"select graphile_worker._gworker_upkeep('1 day', '1 day', '1 day')",
				"insert into graphile_worker._gworker_events (kind) values ('failed')",
				"delete from graphile_worker._gworker_stats",
			} {
				if _, err := as.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "42501") {
					t.Errorf("a %s may do %q: %v", rights, sql, err)
				}
			}
			continue
		}
		e := runOnce(t, gworker.Config{Pool: as, Tasks: historyTasks(), NoMigrations: true})
		if n := count[event.HistoryDropped](e) + count[event.HistoryUnwritten](e) + count[event.SchemaWarning](e); n > 0 {
			t.Errorf("a worker: %s", testworker.Describe(seen(e)))
		}
		if _, err := as.Exec(t.Context(), "delete from graphile_worker._gworker_events"); err == nil {
			t.Error("a worker may delete events")
		}
	}
	for rights, client := range clients {
		found, err := client.JobHistory(t.Context(), id)
		if rights == gworker.RightsProducer {
			if !errors.Is(err, gworker.ErrNoHistory) {
				t.Errorf("a producer: %+v, %v", found, err)
			}
			continue
		}
		if err != nil || len(found.Events) != 1 {
			t.Errorf("a %s: %+v, %v", rights, found, err)
		}
		if stats, err := client.TaskStats(t.Context(), history.StatsOptions{}); err != nil || len(stats) != 1 {
			t.Errorf("a %s: %+v, %v", rights, stats, err)
		}
	}
	role, as := testdb.Role(t, pool)
	if _, err := owner.Grant(t.Context(), gworker.RightsReader, role, gworker.GrantOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Revoke(t.Context(), gworker.RightsReader, role, gworker.GrantOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := as.Exec(t.Context(), "select from graphile_worker._gworker_events"); err == nil {
		t.Error("after its rights were taken, a reader reads events")
	}
}

// A worker that may neither make the tables nor write them says once what helps, and works.
func TestWorkersWithoutHistory(t *testing.T) {
	pool := testdb.Pool(t, testdb.Migrated(t))
	owner := newClient(t, pool)
	role, as := testdb.Role(t, pool)
	if _, err := owner.Grant(t.Context(), gworker.RightsWorker, role, gworker.GrantOptions{}); err != nil {
		t.Fatal(err)
	}
	testdb.Exec(t, pool, "revoke execute on all functions in schema graphile_worker from "+pgx.Identifier{role}.Sanitize())
	testdb.Exec(t, pool, "grant execute on function graphile_worker.worker_heartbeat, graphile_worker.worker_deregister to "+pgx.Identifier{role}.Sanitize())
	run := func(says string) {
		t.Helper()
		id := testworker.Add(t, owner, gworker.JobSpec{Task: "fails", MaxAttempts: 1}).ID
		e := runOnce(t, gworker.Config{Pool: as, Tasks: historyTasks()})
		warnings := testworker.Seen[event.SchemaWarning](e)
		if len(warnings) != 1 || !strings.Contains(warnings[0].Message, says) || !strings.Contains(warnings[0].Message, fmt.Sprintf("%q", role)) {
			t.Errorf("warnings %v, want one that says %q", warnings, says)
		}
		if got := testworker.Row(t, pool, id); got != "1/1|no such host|failed" {
			t.Errorf("left %q", got)
		}
	}
	run("grant worker")
	if err := owner.UninstallHistory(t.Context()); err != nil {
		t.Fatal(err)
	}
	run("grant create on the schema")
	e := runOnce(t, gworker.Config{Pool: as, Tasks: historyTasks(), History: history.Off})
	if n := count[event.SchemaWarning](e); n > 0 {
		t.Errorf("%d warnings with history off", n)
	}
	if _, err := owner.Events(t.Context(), history.Filter{}); !errors.Is(err, gworker.ErrNoHistory) || !strings.Contains(err.Error(), "migrate") {
		t.Errorf("without tables: %v", err)
	}
}
