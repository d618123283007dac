package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

func TestStats(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	arrangeStates(t, pool)
	exec(t, pool, "update graphile_worker._private_jobs set run_at = now() - interval '1 hour', created_at = now() - interval '10 minutes' where id = 1")
	got, err := client.Stats(t.Context(), gworker.StatsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Added ten minutes ago, it has not waited for an hour.
	if got.LongestWait < 10*time.Minute || got.LongestWait > 30*time.Minute || got.LongestWait != got.Tasks[0].LongestWait {
		t.Errorf("the longest wait is %s", got.LongestWait)
	}
	want := gworker.Stats{
		JobCounts: gworker.JobCounts{Scheduled: 1, Ready: 3, Blocked: 1, Running: 3, Retrying: 1, Failed: 1},
		Tasks: []gworker.TaskStats{
			{Task: "a", JobCounts: gworker.JobCounts{Scheduled: 1, Ready: 2, Running: 1, Failed: 1}},
			{Task: "b", JobCounts: gworker.JobCounts{Ready: 1, Blocked: 1, Running: 2, Retrying: 1}},
		},
		Queues: []gworker.QueueStats{
			{Queue: "held", JobCounts: gworker.JobCounts{Blocked: 1, Running: 1}},
			{Queue: "free", JobCounts: gworker.JobCounts{Ready: 1}},
		},
	}
	waits := cmpopts.IgnoreFields(gworker.QueueStats{}, "LongestWait")
	options := []cmp.Option{waits, cmpopts.IgnoreFields(gworker.TaskStats{}, "LongestWait"), cmpopts.IgnoreFields(gworker.Stats{}, "LongestWait")}
	if diff := cmp.Diff(want, got, options...); diff != "" {
		t.Errorf("Stats (-want +got):\n%s", diff)
	}
	want.Queues = want.Queues[:1]
	if got, err = client.Stats(t.Context(), gworker.StatsOptions{MaxQueues: 1}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, options...); diff != "" {
		t.Errorf("with one queue (-want +got):\n%s", diff)
	}
	if got, err = client.Stats(t.Context(), gworker.StatsOptions{MaxQueues: -1}); err != nil || got.Queues != nil {
		t.Errorf("without queues: %+v, %v", got, err)
	}
}

func TestQueues(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	arrangeStates(t, pool)
	exec(t, pool, "insert into graphile_worker._private_job_queues (queue_name) values ('without jobs'), ('')")
	var got []gworker.QueueInfo
	filter := gworker.QueueFilter{Limit: 3}
	for {
		page, err := client.Queues(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page.Queues...)
		if filter.Cursor = page.NextCursor; filter.Cursor == "" {
			break
		}
	}
	want := []gworker.QueueInfo{
		{Name: ""}, {Name: "free", JobCounts: gworker.JobCounts{Ready: 1}},
		{Name: "held", JobCounts: gworker.JobCounts{Blocked: 1, Running: 1}, LockedBy: "gworker_x"}, {Name: "without jobs"},
	}
	times := cmpopts.IgnoreFields(gworker.QueueInfo{}, "LockedAt", "LockedFor", "LongestWait")
	if diff := cmp.Diff(want, got, times); diff != "" {
		t.Errorf("queues (-want +got):\n%s", diff)
	}
	page, err := client.Queues(t.Context(), gworker.QueueFilter{LockedOnly: true})
	if err != nil || len(page.Queues) != 1 || page.Queues[0].Name != "held" || page.Queues[0].LockedFor < 59*time.Minute || page.Queues[0].LockedAt.IsZero() {
		t.Errorf("locked: %+v, %v", page, err)
	}
}

func TestWorkers(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	arrangeStates(t, pool)
	exec(t, pool, `select graphile_worker.worker_heartbeat(id, metadata::json) from (values
		('gworker_x', '{"host":"h","pid":7,"version":"v1","tasks":["a","b"],"concurrency":4}'),
		('graphile_worker_1', '{"hostname":"r","pid":"many","tasks":{"a":1}}'), ('mine', null), ('odd', '[1]')) v (id, metadata)`)
	exec(t, pool, "update graphile_worker._private_workers set last_heartbeat_at = now() - interval '3 minutes' where id = 'mine'")
	got, err := client.Workers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []gworker.WorkerInfo{
		{ID: "graphile_worker_1", Runtime: "rust", Registered: true, Host: "r"},
		{ID: "gworker_x", Runtime: "gworker", Registered: true, Host: "h", PID: 7, Version: "v1", Tasks: []string{"a", "b"}, Concurrency: 4, Jobs: 2, Queues: 1},
		{ID: "mine", Registered: true},
		{ID: "odd", Registered: true},
		{ID: "pool-old", Runtime: "node", Jobs: 1},
	}
	changing := cmpopts.IgnoreFields(gworker.WorkerInfo{}, "StartedAt", "LastHeartbeatAt", "Silence", "OldestLock", "Metadata")
	if diff := cmp.Diff(want, got, changing); diff != "" {
		t.Errorf("workers (-want +got):\n%s", diff)
	}
	if s := got[2].Silence; s < 3*time.Minute || s > time.Hour || got[1].OldestLock < time.Hour || got[4].OldestLock < 5*time.Hour {
		t.Errorf("times: %+v", got)
	}

	// As on a schema of Node's.
	exec(t, pool, "drop table graphile_worker._private_workers")
	got, err = client.Workers(t.Context())
	if err != nil || len(got) != 2 || got[0].ID != "gworker_x" || got[0].Registered || got[1].ID != "pool-old" {
		t.Errorf("without the table of workers: %+v, %v", got, err)
	}
	if _, err := client.Cleanup(t.Context(), gworker.CleanupOptions{}); err != nil {
		t.Errorf("cleanup without the table of workers: %v", err)
	}
}

func TestCleanup(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	arrangeStates(t, pool)
	exec(t, pool, `insert into graphile_worker._private_tasks (identifier) values ('unused'), ('kept'), ('registered'), ('own'), ('it''s "odd"')`)
	exec(t, pool, `insert into graphile_worker._private_job_queues (queue_name, locked_at) values ('unused', null), ('{a,"b"}', null), ('locked', now())`)
	exec(t, pool, `select graphile_worker.worker_heartbeat('gworker_y', '{"tasks":["registered"]}'),
		graphile_worker.worker_heartbeat('other', '{"tasks":"registered"}')`)
	stored := func() (tasks, queues []string, jobs int) {
		t.Helper()
		scan(t, pool, `select array(select identifier from graphile_worker._private_tasks order by identifier collate "C"),
			array(select queue_name from graphile_worker._private_job_queues order by queue_name collate "C"),
			(select count(*) from graphile_worker._private_jobs)`, nil, &tasks, &queues, &jobs)
		return
	}
	want := func(tasks, queues []string, jobs int) {
		t.Helper()
		gotTasks, gotQueues, gotJobs := stored()
		if !slices.Equal(gotTasks, tasks) || !slices.Equal(gotQueues, queues) || gotJobs != jobs {
			t.Errorf("left: %q, %q, %d jobs, want %q, %q, %d", gotTasks, gotQueues, gotJobs, tasks, queues, jobs)
		}
	}
	worker, err := gworker.NewWorker(gworker.Config{Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask("own", nothing)}})
	if err != nil {
		t.Fatal(err)
	}
	own := worker.Client()
	beforeTasks, beforeQueues, beforeJobs := stored()
	all := []gworker.CleanupTask{gworker.DeletePermafailedJobs, gworker.GCJobQueues, gworker.GCTaskIdentifiers}
	result, err := own.Cleanup(t.Context(), gworker.CleanupOptions{Tasks: all, KeepTasks: []string{"kept"}, DryRun: true})
	expected := gworker.CleanupResult{FailedJobs: 1, Tasks: []string{`it's "odd"`, "unused"}, Queues: []string{"unused", `{a,"b"}`}}
	if diff := cmp.Diff(expected, result); diff != "" || err != nil {
		t.Errorf("dry run: %v (-want +got):\n%s", err, diff)
	}
	want(beforeTasks, beforeQueues, beforeJobs)

	result, err = own.Cleanup(t.Context(), gworker.CleanupOptions{KeepTasks: []string{"kept"}})
	expected.FailedJobs = 0
	if diff := cmp.Diff(expected, result); diff != "" || err != nil {
		t.Errorf("by default: %v (-want +got):\n%s", err, diff)
	}
	want([]string{"a", "b", "kept", "own", "registered"}, []string{"free", "held", "locked"}, beforeJobs)

	// More failed jobs than one statement deletes; the last task loses all of its.
	exec(t, pool, `insert into graphile_worker._private_jobs (task_id, attempts, max_attempts)
		select id, 4, 3 from graphile_worker._private_tasks, generate_series(1, 5100) where identifier = 'kept'`)
	result, err = client.Cleanup(t.Context(), gworker.CleanupOptions{Tasks: all})
	expected = gworker.CleanupResult{FailedJobs: 5101, Tasks: []string{"kept", "own"}}
	if diff := cmp.Diff(expected, result); diff != "" || err != nil {
		t.Errorf("all: %v (-want +got):\n%s", err, diff)
	}
	want([]string{"a", "b", "registered"}, []string{"free", "held", "locked"}, beforeJobs-1)
	if result, err = client.Cleanup(t.Context(), gworker.CleanupOptions{Tasks: all}); err != nil || result.FailedJobs != 0 || result.Tasks != nil || result.Queues != nil {
		t.Errorf("a second time: %+v, %v", result, err)
	}
}

// A cleanup must not delete the task or queue of a job that is being added: no
// worker would ever find that job.
func TestCleanupDuringAdding(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	exec(t, pool, "insert into graphile_worker._private_tasks (identifier) values ('x')")
	exec(t, pool, "insert into graphile_worker._private_job_queues (queue_name) values ('q')")
	for _, task := range []gworker.CleanupTask{gworker.GCTaskIdentifiers, gworker.GCJobQueues} {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		job := add(t, client.WithTx(tx), gworker.JobSpec{Task: "x", Queue: "q"})
		result, err := client.Cleanup(t.Context(), gworker.CleanupOptions{Tasks: []gworker.CleanupTask{task}})
		if !errors.Is(err, gworker.ErrCleanupBusy) || result.Tasks != nil || result.Queues != nil {
			t.Errorf("%s while a job is added: %+v, %v", task, result, err)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if result, err := client.Cleanup(t.Context(), gworker.CleanupOptions{}); err != nil || result.Tasks != nil || result.Queues != nil {
			t.Errorf("%s after a job was added: %+v, %v", task, result, err)
		}
		if found, err := client.GetJob(t.Context(), job.ID); err != nil || found.Task != "x" || found.Queue != "q" {
			t.Errorf("the job is %+v, %v", found, err)
		}
		if _, err := client.CompleteJobs(t.Context(), []int64{job.ID}); err != nil {
			t.Fatal(err)
		}
	}
}

// Everything works in a schema of any name, prepared or not.
func TestAdministrationInAnySchema(t *testing.T) {
	t.Parallel()
	for _, unprepared := range []bool{false, true} {
		client, err := gworker.NewClient(gworker.ClientConfig{
			Pool: testdb.Pool(t, testdb.Empty(t)), Schema: `it's "odd" $1 -- $gw$`, NoPreparedStatements: unprepared,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		// Not installed yet: an error of the server's, that says so.
		_, err = client.ListJobs(ctx, gworker.JobFilter{})
		var answer *pgconn.PgError
		if !errors.As(err, &answer) || answer.Code != "42P01" && answer.Code != "3F000" {
			t.Errorf("without the schema: %v", err)
		}
		if err := client.Migrate(ctx); err != nil {
			t.Fatal(err)
		}
		// And then empty.
		for what, f := range map[string]func() (any, error){
			"[]": func() (any, error) { p, err := client.ListJobs(ctx, gworker.JobFilter{}); return p.Jobs, err },
			"[] ": func() (any, error) {
				p, err := client.ListJobs(ctx, gworker.JobFilter{Order: "next"})
				return p.Jobs, err
			},
			"[]  ": func() (any, error) {
				p, err := client.ListJobs(ctx, gworker.JobFilter{Order: "newest"})
				return p.Jobs, err
			},
			"[]   ":  func() (any, error) { return client.Workers(ctx) },
			"[]    ": func() (any, error) { p, err := client.Queues(ctx, gworker.QueueFilter{}); return p.Queues, err },
			"{0 [] []}": func() (any, error) {
				return client.Cleanup(ctx, gworker.CleanupOptions{Tasks: []gworker.CleanupTask{"GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES", "DELETE_PERMAFAILED_JOBS"}})
			},
			"0":                func() (any, error) { s, err := client.Stats(ctx, gworker.StatsOptions{}); return s.Total(), err },
			"[{nobody [] []}]": func() (any, error) { return client.ForceUnlockWorkers(ctx, []string{"nobody"}) },
		} {
			if got, err := f(); err != nil || fmt.Sprint(got) != strings.TrimSpace(what) {
				t.Errorf("empty: %v, %v, want %s", got, err, what)
			}
		}
		var ids []int64
		for range 4 {
			ids = append(ids, add(t, client, gworker.JobSpec{Task: "x", Queue: "q"}).ID)
		}
		for what, f := range map[string]func() (gworker.ChangedJobs, error){
			"preview": func() (gworker.ChangedJobs, error) { return client.PreviewJobs(ctx, ids) },
			"fail":    func() (gworker.ChangedJobs, error) { return client.PermanentlyFailJobs(ctx, ids, "why") },
			"reschedule": func() (gworker.ChangedJobs, error) {
				return client.RescheduleJobs(ctx, ids, gworker.RescheduleOptions{RunAt: new(time.Time)})
			},
		} {
			if got, err := f(); err != nil || len(got.Jobs) != len(ids) {
				t.Errorf("%s: %+v, %v", what, got, err)
			}
		}
		if got, err := client.Cleanup(ctx, gworker.CleanupOptions{Tasks: []gworker.CleanupTask{gworker.DeletePermafailedJobs}}); err != nil || got.FailedJobs != 4 {
			t.Errorf("cleanup: %+v, %v", got, err)
		}
		if got, err := client.Cleanup(ctx, gworker.CleanupOptions{}); err != nil || len(got.Tasks) != 1 || len(got.Queues) != 1 {
			t.Errorf("cleanup: %+v, %v", got, err)
		}
	}
}
