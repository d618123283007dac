package gworker_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
)

// administrator is what a client and the clients of transactions have in common.
type administrator interface {
	CompleteJobs(context.Context, []int64) (gworker.ChangedJobs, error)
	PermanentlyFailJobs(context.Context, []int64, string) (gworker.ChangedJobs, error)
	RescheduleJobs(context.Context, []int64, gworker.RescheduleOptions) (gworker.ChangedJobs, error)
	PreviewJobs(context.Context, []int64) (gworker.ChangedJobs, error)
	GetJob(context.Context, int64) (*gworker.JobInfo, error)
	GetJobByKey(context.Context, string) (*gworker.JobInfo, error)
	ListJobs(context.Context, gworker.JobFilter) (gworker.JobPage, error)
	ForceUnlockWorkers(context.Context, []string) ([]gworker.WorkerLocks, error)
	LockedBy(context.Context, []string) ([]gworker.WorkerLocks, error)
}

var (
	_ administrator = (*gworker.Client)(nil)
	_ administrator = (*gworker.TxClient)(nil)
)

// eachWay runs a test on a database of its own for each way to reach it. end
// commits, where there is something to commit.
func eachWay(t *testing.T, test func(t *testing.T, pool *pgxpool.Pool, c administrator, end func())) {
	var sample testdb.Sample
	way := func(name string, config gworker.ClientConfig, use func(*testing.T, *gworker.Client, *pgxpool.Pool, string) (administrator, func())) {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			url := testdb.Migrated(t)
			pool := testdb.Pool(t, url)
			config.Pool = pool
			client, err := gworker.NewClient(config)
			if err != nil {
				t.Fatal(err)
			}
			arrangeStates(t, pool)
			c, end := use(t, client, pool, url)
			test(t, pool, c, end)
		})
	}
	plain := func(_ *testing.T, client *gworker.Client, _ *pgxpool.Pool, _ string) (administrator, func()) {
		return client, func() {}
	}
	way("pool", gworker.ClientConfig{}, plain)
	way("unprepared", gworker.ClientConfig{NoPreparedStatements: true}, plain)
	way("pgx transaction", gworker.ClientConfig{}, func(t *testing.T, client *gworker.Client, pool *pgxpool.Pool, _ string) (administrator, func()) {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
		return client.WithTx(tx), func() {
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
	for _, driver := range []string{"pgx", "postgres"} {
		way("database/sql "+driver, gworker.ClientConfig{}, func(t *testing.T, client *gworker.Client, _ *pgxpool.Pool, url string) (administrator, func()) {
			db, err := sql.Open(driver, url)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = tx.Rollback() })
			return client.WithSQLTx(tx), func() {
				if err := tx.Commit(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// The jobs of arrangeStates.
const (
	idReady = iota + 1
	idScheduled
	idRetrying
	idRunning
	idBlocked
	idFailed
	idOldLock
	idDue // has been tried, and its time has come again
	idFirstOfQueue
	idLastAttempt // runs for the last time
	idMissing     = 1000
)

// arrangeStates makes a job in each situation.
func arrangeStates(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	exec(t, pool, `select graphile_worker.add_job(task, json_build_object('n', n), queue_name => queue, job_key => 'key ' || n, max_attempts => 5)
		from (values (1, 'a', null), (2, 'a', null), (3, 'b', null), (4, 'b', 'held'), (5, 'b', 'held'), (6, 'a', null),
			(7, 'a', null), (8, 'a', null), (9, 'b', 'free'), (10, 'b', null)) v (n, task, queue) order by n`)
	for _, set := range []string{
		"run_at = now() + interval '1 hour' where id in (2, 3)",
		"attempts = 1, last_error = 'Boom' where id in (3, 8)",
		"attempts = 1, locked_at = now() - interval '1 hour', locked_by = 'gworker_x' where id = 4",
		"attempts = 5, last_error = 'boom for good' where id = 6",
		"attempts = 1, locked_at = now() - interval '5 hours', locked_by = 'pool-old' where id = 7",
		"attempts = 5, locked_at = now() - interval '1 minute', locked_by = 'gworker_x' where id = 10",
	} {
		exec(t, pool, "update graphile_worker._private_jobs set "+set)
	}
	exec(t, pool, "update graphile_worker._private_job_queues set locked_at = now() - interval '1 hour', locked_by = 'gworker_x' where queue_name = 'held'")
}

var stateOf = map[int64]gworker.JobState{
	idReady: gworker.StateReady, idScheduled: gworker.StateScheduled, idRetrying: gworker.StateRetrying, idRunning: gworker.StateRunning,
	idBlocked: gworker.StateBlocked, idFailed: gworker.StateFailed, idOldLock: gworker.StateRunning, idDue: gworker.StateReady,
	idFirstOfQueue: gworker.StateReady, idLastAttempt: gworker.StateRunning,
}

// touchable are the ids that the schema's functions change, of everyID.
var (
	everyID   = []int64{idMissing, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1, 4}
	touchable = []int64{1, 2, 3, 5, 6, 7, 8, 9}
)

// sameChange compares a result for everyID with what it has to be.
func sameChange(t *testing.T, got gworker.ChangedJobs) {
	t.Helper()
	var ids []int64
	for _, job := range got.Jobs {
		ids = append(ids, job.ID)
	}
	if diff := cmp.Diff(touchable, ids); diff != "" {
		t.Errorf("touched (-want +got):\n%s", diff)
	}
	type untouched struct {
		id     int64
		reason gworker.UntouchedReason
		by     string
	}
	var left []untouched
	for _, u := range got.Untouched {
		one := untouched{id: u.ID, reason: u.Reason}
		if u.Job != nil {
			one.by = u.Job.LockedBy
			if u.Job.State != gworker.StateRunning || u.Job.ReadAt.Sub(u.Job.LockedAt) < time.Minute {
				t.Errorf("job %d is shown as %+v", u.ID, u.Job)
			}
		}
		left = append(left, one)
	}
	want := []untouched{
		{idRunning, gworker.UntouchedLocked, "gworker_x"}, {idLastAttempt, gworker.UntouchedLocked, "gworker_x"},
		{idMissing, gworker.UntouchedNotFound, ""},
	}
	if diff := cmp.Diff(want, left, cmp.AllowUnexported(untouched{})); diff != "" {
		t.Errorf("not touched (-want +got):\n%s", diff)
	}
}

// snapshot is every column of every job, but for when it was updated.
func snapshot(t *testing.T, pool *pgxpool.Pool) map[int64]string {
	t.Helper()
	rows, err := pool.Query(t.Context(), "select id, (to_jsonb(j) - 'updated_at')::text from graphile_worker._private_jobs j")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	found := map[int64]string{}
	for rows.Next() {
		var id int64
		var text string
		if err := rows.Scan(&id, &text); err != nil {
			t.Fatal(err)
		}
		found[id] = text
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestPreviewJobs(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, pool *pgxpool.Pool, c administrator, end func()) {
		before := snapshot(t, pool)
		got, err := c.PreviewJobs(t.Context(), everyID)
		if err != nil {
			t.Fatal(err)
		}
		sameChange(t, got)
		end()
		if diff := cmp.Diff(before, snapshot(t, pool)); diff != "" {
			t.Errorf("a preview changed something:\n%s", diff)
		}
	})
}

func TestCompleteJobs(t *testing.T) {
	eachWay(t, func(t *testing.T, pool *pgxpool.Pool, c administrator, end func()) {
		before := snapshot(t, pool)
		got, err := c.CompleteJobs(t.Context(), everyID)
		if err != nil {
			t.Fatal(err)
		}
		sameChange(t, got)
		for _, job := range got.Jobs {
			if job.State != stateOf[job.ID] || job.Key == "" || !strings.HasPrefix(string(job.Payload), `{"n"`) {
				t.Errorf("deleted %+v, which was %s", job, stateOf[job.ID])
			}
		}
		end()
		for _, id := range touchable {
			delete(before, id)
		}
		if diff := cmp.Diff(before, snapshot(t, pool)); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
	})
}

func TestPermanentlyFailJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for reason, want := range map[string]string{"": "Manually marked as failed", "it's \"over\" \\ $1\n☃": "it's \"over\" \\ $1\n☃"} {
		eachWay(t, func(t *testing.T, pool *pgxpool.Pool, c administrator, end func()) {
			untouched := snapshot(t, pool)[idRunning]
			got, err := c.PermanentlyFailJobs(t.Context(), everyID, reason)
			if err != nil {
				t.Fatal(err)
			}
			sameChange(t, got)
			for _, job := range got.Jobs {
				// A job with an old lock keeps it until workers reset it.
				if job.LastError != want || job.Attempts != 5 || job.State != gworker.StateFailed && job.ID != idOldLock {
					t.Errorf("job %+v", job)
				}
			}
			end()
			var n int
			scan(t, pool, "select count(*) from graphile_worker.jobs where attempts = max_attempts and last_error = $1", []any{want}, &n)
			if n != len(touchable) || snapshot(t, pool)[idRunning] != untouched {
				t.Errorf("%d jobs failed", n)
			}
		})
	}
}

func TestRescheduleJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	at := time.Date(2031, 2, 3, 4, 5, 6, 789000000, time.UTC)
	eachWay(t, func(t *testing.T, pool *pgxpool.Pool, c administrator, end func()) {
		untouched := snapshot(t, pool)[idRunning]
		got, err := c.RescheduleJobs(t.Context(), everyID, gworker.RescheduleOptions{
			RunAt: &at, Priority: new(-7), Attempts: new(0), MaxAttempts: new(9),
		})
		if err != nil {
			t.Fatal(err)
		}
		sameChange(t, got)
		for _, job := range got.Jobs {
			if !job.RunAt.Equal(at) || job.Priority != -7 || job.Attempts != 0 || job.MaxAttempts != 9 ||
				job.State != gworker.StateScheduled && job.ID != idOldLock {
				t.Errorf("job %+v", job)
			}
		}
		end()
		var n int
		scan(t, pool, `select count(*) from graphile_worker.jobs
			where run_at = $1 and priority = -7 and attempts = 0 and max_attempts = 9`, []any{at}, &n)
		if n != len(touchable) || snapshot(t, pool)[idRunning] != untouched {
			t.Errorf("%d jobs were rescheduled", n)
		}
	})
}

// What is not given stays, and the zero time is the database's now.
func TestRescheduleJobsOneFieldAtATime(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	one := func(job *gworker.JobRow, o gworker.RescheduleOptions) *gworker.JobInfo {
		t.Helper()
		got, err := client.RescheduleJobs(t.Context(), []int64{job.ID}, o)
		if err != nil || len(got.Jobs) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		return got.Jobs[0]
	}
	for name, o := range map[string]gworker.RescheduleOptions{
		"RunAt": {RunAt: new(time.Time)}, "Priority": {Priority: new(3)}, "Attempts": {Attempts: new(2)}, "MaxAttempts": {MaxAttempts: new(4)},
	} {
		job := add(t, client, gworker.JobSpec{Task: "x", RunAt: time.Now().Add(time.Hour), Priority: 1, MaxAttempts: 7})
		want := *job
		got := one(job, o)
		switch name {
		case "RunAt":
			if d := got.ReadAt.Sub(got.RunAt); d != 0 || got.State != gworker.StateReady {
				t.Errorf("the zero RunAt became %s, %s after the database's now", got.RunAt, d)
			}
			want.RunAt = got.RunAt
		case "Priority":
			want.Priority = 3
		case "Attempts":
			want.Attempts = 2
		case "MaxAttempts":
			want.MaxAttempts = 4
		}
		want.UpdatedAt = got.UpdatedAt
		if diff := cmp.Diff(want, got.JobRow); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestAdministrationRefuses(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	job := add(t, client, gworker.JobSpec{Task: "x"})
	ids := []int64{job.ID}
	before := snapshot(t, pool)
	far := time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)
	reschedule := func(o gworker.RescheduleOptions) error {
		_, err := client.RescheduleJobs(t.Context(), ids, o)
		return err
	}
	list := func(f gworker.JobFilter) error {
		_, err := client.ListJobs(t.Context(), f)
		return err
	}
	byID, err := client.ListJobs(t.Context(), gworker.JobFilter{Limit: 1})
	if err != nil || byID.NextCursor != "" {
		t.Fatalf("%+v, %v", byID, err)
	}
	add(t, client, gworker.JobSpec{Task: "x"})
	if byID, err = client.ListJobs(t.Context(), gworker.JobFilter{Limit: 1}); err != nil || byID.NextCursor == "" {
		t.Fatalf("%+v, %v", byID, err)
	}
	for field, err := range map[string]error{
		"RescheduleOptions":             reschedule(gworker.RescheduleOptions{}),
		"RescheduleOptions.RunAt":       reschedule(gworker.RescheduleOptions{RunAt: &far}),
		"RescheduleOptions.Priority":    reschedule(gworker.RescheduleOptions{Priority: new(1 << 15)}),
		"RescheduleOptions.Attempts":    reschedule(gworker.RescheduleOptions{Attempts: new(-1)}),
		"RescheduleOptions.MaxAttempts": reschedule(gworker.RescheduleOptions{MaxAttempts: new(0)}),
		"reason": func() error {
			_, err := client.PermanentlyFailJobs(t.Context(), ids, "a\x00b")
			return err
		}(),
		"key": func() error {
			_, err := client.GetJobByKey(t.Context(), "\xff")
			return err
		}(),
		"workerIDs[1]": func() error {
			_, err := client.ForceUnlockWorkers(t.Context(), []string{"ok", "a\x00"})
			return err
		}(),
		"JobFilter.Order":            list(gworker.JobFilter{Order: "size"}),
		"JobFilter.States[1]":        list(gworker.JobFilter{States: []gworker.JobState{gworker.StateReady, "done"}}),
		"JobFilter.States[0]":        list(gworker.JobFilter{States: []gworker.JobState{gworker.StateFailed}, Order: gworker.OrderNext}),
		"JobFilter.Limit":            list(gworker.JobFilter{Limit: -1}),
		"JobFilter.Cursor":           list(gworker.JobFilter{Cursor: "nonsense"}),
		"JobFilter.Tasks[0]":         list(gworker.JobFilter{Tasks: []string{"a\x00"}}),
		"JobFilter.ErrorContains":    list(gworker.JobFilter{ErrorContains: "\xff"}),
		"JobFilter.CreatedAt.Before": list(gworker.JobFilter{CreatedAt: gworker.TimeRange{Before: far}}),
		"QueueFilter.Limit": func() error {
			_, err := client.Queues(t.Context(), gworker.QueueFilter{Limit: gworker.MaxPageSize + 1})
			return err
		}(),
		"QueueFilter.Cursor": func() error {
			_, err := client.Queues(t.Context(), gworker.QueueFilter{Cursor: byID.NextCursor})
			return err
		}(),
		"StatsOptions.MaxQueues": func() error {
			_, err := client.Stats(t.Context(), gworker.StatsOptions{MaxQueues: -2})
			return err
		}(),
		"CleanupOptions.Tasks[0]": func() error {
			_, err := client.Cleanup(t.Context(), gworker.CleanupOptions{Tasks: []gworker.CleanupTask{"EVERYTHING"}})
			return err
		}(),
		"CleanupOptions.KeepTasks[0]": func() error {
			_, err := client.Cleanup(t.Context(), gworker.CleanupOptions{KeepTasks: []string{"a\x00"}})
			return err
		}(),
	} {
		var refused *gworker.FieldError
		if !errors.As(err, &refused) || refused.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	var refused *gworker.FieldError
	if err := list(gworker.JobFilter{Cursor: byID.NextCursor, Order: gworker.OrderNext}); !errors.As(err, &refused) || refused.Field != "JobFilter.Cursor" {
		t.Errorf("the cursor of another order: %v", err)
	}
	if after := snapshot(t, pool); after[job.ID] != before[job.ID] {
		t.Errorf("the job was %s and is %s", before[job.ID], after[job.ID])
	}
	// Nothing named is nothing to do, and no statement.
	nowhere, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: "host=127.0.0.1 port=1"})
	if err != nil {
		t.Fatal(err)
	}
	defer nowhere.Close()
	if got, err := nowhere.CompleteJobs(t.Context(), nil); err != nil || len(got.Jobs)+len(got.Untouched) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := nowhere.ForceUnlockWorkers(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A job that is retired while it runs is a failed job without a key afterwards.
func TestRetiredJobsCanBeAdministered(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	job := add(t, client, gworker.JobSpec{Task: "x", Key: "k"})
	exec(t, pool, "update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'gworker_x'")
	if removed, err := client.RemoveJob(t.Context(), "k"); err != nil || removed.Key != "" {
		t.Fatalf("%+v, %v", removed, err)
	}
	got, err := client.CompleteJobs(t.Context(), []int64{job.ID})
	if err != nil || len(got.Jobs) != 0 || len(got.Untouched) != 1 || got.Untouched[0].Reason != gworker.UntouchedLocked {
		t.Errorf("a retired job that runs: %+v, %v", got, err)
	}
	if _, err := client.GetJobByKey(t.Context(), "k"); !errors.Is(err, gworker.ErrJobNotFound) {
		t.Errorf("by its old key: %v", err)
	}
	held, err := client.ForceUnlockWorkers(t.Context(), []string{"gworker_x"})
	if err != nil || len(held) != 1 || len(held[0].Jobs) != 1 {
		t.Errorf("unlocked %+v, %v", held, err)
	}
	if found, err := client.GetJob(t.Context(), job.ID); err != nil || found.State != gworker.StateFailed {
		t.Errorf("after its lock is gone: %+v, %v", found, err)
	}
	if got, err := client.CompleteJobs(t.Context(), []int64{job.ID}); err != nil || len(got.Jobs) != 1 {
		t.Errorf("completing it: %+v, %v", got, err)
	}
	if _, err := client.GetJob(t.Context(), job.ID); !errors.Is(err, gworker.ErrJobNotFound) {
		t.Errorf("a completed job: %v", err)
	}
}

func TestForceUnlockWorkers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	eachWay(t, func(t *testing.T, pool *pgxpool.Pool, c administrator, end func()) {
		before := snapshot(t, pool)
		asked := []string{"gworker_x", "nobody", "gworker_x"}
		want := []gworker.WorkerLocks{
			{WorkerID: "gworker_x", Queues: []string{"held"}, Jobs: []gworker.LockedJob{
				{ID: idRunning, Task: "b", Attempts: 1, MaxAttempts: 5}, {ID: idLastAttempt, Task: "b", Attempts: 5, MaxAttempts: 5},
			}},
			{WorkerID: "nobody"},
		}
		sameLocks(t, c.LockedBy, asked, want)
		sameLocks(t, c.ForceUnlockWorkers, asked, want)
		end()
		after := snapshot(t, pool)
		for id, text := range before {
			if id != idRunning && id != idLastAttempt && after[id] != text {
				t.Errorf("job %d was %s and is %s", id, text, after[id])
			}
		}
		var jobs, queues int
		scan(t, pool, `select (select count(*) from graphile_worker._private_jobs where locked_by = 'gworker_x' or (locked_at is null) <> (locked_by is null)),
			(select count(*) from graphile_worker._private_job_queues where locked_at is not null)`, nil, &jobs, &queues)
		if jobs+queues != 0 {
			t.Errorf("%d jobs and %d queues are still locked", jobs, queues)
		}
	})
}

func sameLocks(t *testing.T, call func(context.Context, []string) ([]gworker.WorkerLocks, error), asked []string, want []gworker.WorkerLocks) {
	t.Helper()
	got, err := call(t.Context(), asked)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range got {
		for i, job := range w.Jobs {
			if job.LockedFor < time.Minute {
				t.Errorf("job %d is locked for %s", job.ID, job.LockedFor)
			}
			w.Jobs[i].LockedFor = 0
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("locks (-want +got):\n%s", diff)
	}
}

// A worker that polls once an hour runs what is rescheduled or unlocked at once.
func TestAdministrationWakesWorkers(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	later := add(t, client, gworker.JobSpec{Task: "x", RunAt: time.Now().Add(time.Hour)})
	held := add(t, client, gworker.JobSpec{Task: "x", Queue: "q"})
	exec(t, pool, "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'pool-dead' where id = $1", held.ID)
	exec(t, pool, "update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'pool-dead'")
	w := start(t, gworker.Config{Pool: pool, PollInterval: time.Hour, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	waitFor[event.ListenerConnected](t, w.Events, nil)
	// Its first claims are over when it has run this one.
	first := add(t, client, gworker.JobSpec{Task: "x"})
	completed := func(id int64) func(event.JobCompleted) bool {
		return func(e event.JobCompleted) bool { return e.Job.ID == id }
	}
	waitFor(t, w.Events, completed(first.ID))
	if _, err := client.RescheduleJobs(t.Context(), []int64{later.ID}, gworker.RescheduleOptions{RunAt: new(time.Time)}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, w.Events, completed(later.ID))
	if _, err := client.ForceUnlockWorkers(t.Context(), []string{"pool-dead"}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, w.Events, completed(held.ID))
}
