package e2e_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testworker"
)

// Each time in a row can be infinity, which no time in Go can be, and which PostgreSQL does
// not subtract before version 17. Such rows are read and changed like others.
func TestInfiniteTimes(t *testing.T) {
	for _, infinity := range []string{"infinity", "-infinity"} {
		t.Run(infinity, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			client := newClient(t, pool)
			ids := testworker.AddEach(t, client,
				gworker.JobSpec{Task: "waits", Queue: "q", Key: "k"}, gworker.JobSpec{Task: "locked"}, gworker.JobSpec{Task: "fails"},
				gworker.JobSpec{Task: "moves"}, gworker.JobSpec{Task: "cancelled"}, gworker.JobSpec{Task: "ends"})
			exec(t, pool, "update graphile_worker._private_jobs set run_at = $1, created_at = $1, updated_at = $1", infinity)
			exec(t, pool, `update graphile_worker._private_jobs set locked_by = 'other', locked_at = $1, attempts = 1
				where id = any($2)`, infinity, []int64{ids["locked"], ids["cancelled"]})
			exec(t, pool, "update graphile_worker._private_job_queues set locked_by = 'other', locked_at = $1", infinity)
			exec(t, pool, "insert into graphile_worker._private_workers (id, last_heartbeat_at, started_at) values ('other', $1, $1)", infinity)
			exec(t, pool, "update graphile_worker.migrations set ts = $1 where id = 3", infinity)

			page, err := client.ListJobs(t.Context(), gworker.JobFilter{})
			if err != nil || len(page.Jobs) != len(ids) {
				t.Errorf("ListJobs: %d of %d jobs, %v", len(page.Jobs), len(ids), err)
			}
			for _, job := range page.Jobs {
				if !job.RunAt.IsZero() || !job.CreatedAt.IsZero() || !job.UpdatedAt.IsZero() || !job.LockedAt.IsZero() || job.ReadAt.IsZero() {
					t.Errorf("%+v", job)
				}
			}
			for _, c := range []struct {
				what string
				call func() error
			}{
				{"GetJob", func() error { _, err := client.GetJob(t.Context(), ids["waits"]); return err }},
				{"GetJobByKey", func() error { _, err := client.GetJobByKey(t.Context(), "k"); return err }},
				{"PreviewJobs", func() error { _, err := client.PreviewJobs(t.Context(), []int64{ids["waits"]}); return err }},
				{"Doctor", func() error { return doctored(t, client) }},
				{"Stats", func() error { return statistics(t, client, infinity, int64(len(ids))) }},
				{"Queues", func() error { return lockedQueues(t, client, infinity) }},
				{"Workers", func() error { return workers(t, client, infinity) }},
				{"LockedBy", func() error { return locks(t, client, infinity) }},
				{"SchemaStatus", func() error { _, err := client.SchemaStatus(t.Context()); return err }},
				{"Cancel", func() error { _, err := client.Cancel(t.Context(), ids["cancelled"], "stop"); return err }},
				{"RescheduleJobs", func() error {
					_, err := client.RescheduleJobs(t.Context(), []int64{ids["moves"]}, gworker.RescheduleOptions{Priority: new(3)})
					return err
				}},
				{"CompleteJobs", func() error { _, err := client.CompleteJobs(t.Context(), []int64{ids["ends"]}); return err }},
				{"PermanentlyFailJobs", func() error {
					_, err := client.PermanentlyFailJobs(t.Context(), []int64{ids["fails"]}, "no")
					return err
				}},
				{"AddJob with its key", func() error {
					_, err := client.AddJob(t.Context(), gworker.JobSpec{Task: "waits", Key: "k"})
					return err
				}},
				{"RemoveJob by its key", func() error { _, err := client.RemoveJob(t.Context(), "k"); return err }},
			} {
				if err := c.call(); err != nil {
					t.Errorf("%s: %v", c.what, err)
				}
			}
			var lockedAt string
			scan(t, pool, "select locked_at::text from graphile_worker._private_jobs where id = $1", []any{ids["cancelled"]}, &lockedAt)
			if lockedAt != infinity {
				t.Errorf("the lock of the cancelled job is of %s, want %s", lockedAt, infinity)
			}

			// What is due from the beginning of time on is run, held or locked.
			for _, task := range []string{"held", "locked first"} {
				id := add(t, client, gworker.JobSpec{Task: task}).ID
				exec(t, pool, "update graphile_worker._private_jobs set run_at = '-infinity', created_at = $1 where id = $2", infinity, id)
				config := gworker.Config{Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask(task, nothing)}}
				if task == "locked first" {
					config.HoldTime = new(time.Duration)
				}
				e := runOnce(t, config)
				if n := count[event.JobCompleted](e); n != 1 {
					t.Errorf("%s: %d jobs completed", task, n)
				}
			}

			result, err := client.Cleanup(t.Context(), gworker.CleanupOptions{
				Tasks: []gworker.CleanupTask{gworker.GCTaskIdentifiers, gworker.GCJobQueues, gworker.DeletePermafailedJobs},
			})
			if err != nil || result.FailedJobs != 1 {
				t.Errorf("Cleanup: %+v, %v", result, err)
			}
		})
	}
}

// A worker that was never heard of, or holds a lock of -infinity, is as dead as one that has
// been silent for long; one of infinity is not. What was cancelled stays cancelled.
func TestSweepOfInfiniteTimes(t *testing.T) {
	for _, infinity := range []string{"infinity", "-infinity"} {
		t.Run(infinity, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			client := newClient(t, pool)
			ids := testworker.AddEach(t, client, gworker.JobSpec{Task: "registered", Queue: "q"}, gworker.JobSpec{Task: "cancelled"},
				gworker.JobSpec{Task: "unregistered"}, gworker.JobSpec{Task: "usual"})
			exec(t, pool, `insert into graphile_worker._private_workers (id, last_heartbeat_at, started_at)
				values ('gworker_dead', $1, $1), ('gworker_usual', now() - interval '1 hour', now() - interval '2 hours')`, infinity)
			lock := func(worker, at string, ids ...int64) {
				exec(t, pool, "update graphile_worker._private_jobs set locked_by = $1, locked_at = $2, attempts = 1 where id = any($3)", worker, at, ids)
			}
			lock("gworker_dead", infinity, ids["registered"], ids["cancelled"])
			lock("gworker_gone", infinity, ids["unregistered"])
			lock("gworker_usual", "2020-01-01Z", ids["usual"])
			exec(t, pool, "update graphile_worker._private_job_queues set locked_by = 'gworker_dead', locked_at = $1", infinity)
			if _, err := client.Cancel(t.Context(), ids["cancelled"], "stop"); err != nil {
				t.Fatal(err)
			}

			want := map[string]int{"gworker_usual": 1}
			if infinity == "-infinity" {
				want = map[string]int{"gworker_dead": 2, "gworker_gone": 1, "gworker_usual": 1}
			}
			for _, dry := range []bool{true, false} {
				result, err := client.Sweep(t.Context(), gworker.SweepOptions{DryRun: dry})
				if err != nil {
					t.Fatal(err)
				}
				got := make(map[string]int)
				for _, w := range result.Workers {
					got[w.ID] = len(w.Jobs)
					if w.Silence < time.Hour {
						t.Errorf("%s has been silent for %s", w.ID, w.Silence)
					}
					for _, j := range w.Jobs {
						if j.Refused != nil || j.LockedFor < time.Hour {
							t.Errorf("%+v", j)
						}
					}
				}
				if !maps.Equal(got, want) {
					t.Errorf("swept %v, want %v", got, want)
				}
			}
			var free []string
			scan(t, pool, `select coalesce(array_agg(t.identifier order by 1) filter (where j.is_available), '{}')
				from graphile_worker._private_jobs j join graphile_worker._private_tasks t on t.id = j.task_id`, nil, &free)
			wantFree := []string{"usual"}
			if infinity == "-infinity" {
				wantFree = []string{"registered", "unregistered", "usual"}
			}
			if !slices.Equal(free, wantFree) {
				t.Errorf("%q can run, want %q", free, wantFree)
			}
		})
	}
}

// A worker goes on when its own heartbeat is put at infinity.
func TestHeartbeatAfterInfiniteTimes(t *testing.T) {
	for _, infinity := range []string{"infinity", "-infinity"} {
		t.Run(infinity, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			w := start(t, gworker.Config{
				Pool: pool, Recovery: testworker.FastRecovery, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)},
			})
			add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
			waitFor[event.JobCompleted](t, w.Events, nil) // a worker registers before its first claim
			exec(t, pool, "update graphile_worker._private_workers set last_heartbeat_at = $1", infinity)
			finite := "select count(*) from graphile_worker._private_workers where isfinite(last_heartbeat_at)"
			if !eventually(t, pool, finite, func(n int) bool { return n == 1 }) {
				t.Error("no heartbeat follows")
			}
			if err := w.Stop(); err != nil {
				t.Error(err)
			}
			if n := count[event.HeartbeatFailed](w.Events); n != 0 {
				t.Errorf("%d heartbeats failed", n)
			}
		})
	}
}

// never is how long ago -infinity is said to be, and 0 is how long ago infinity is.
func never(infinity string) time.Duration {
	if infinity == "infinity" {
		return 0
	}
	return 36500 * 24 * time.Hour
}

func doctored(t *testing.T, client *gworker.Client) error {
	report, err := client.Doctor(t.Context())
	for _, f := range report.Findings {
		if strings.Contains(f.What, "could not be checked") {
			t.Errorf("Doctor: %+v", f)
		}
	}
	return err
}

func statistics(t *testing.T, client *gworker.Client, infinity string, jobs int64) error {
	stats, err := client.Stats(t.Context(), gworker.StatsOptions{})
	if err == nil && (stats.Total() != jobs || stats.LongestWait != never(infinity)) {
		t.Errorf("Stats: %+v", stats)
	}
	return err
}

func lockedQueues(t *testing.T, client *gworker.Client, infinity string) error {
	page, err := client.Queues(t.Context(), gworker.QueueFilter{})
	if err == nil && (len(page.Queues) != 1 || page.Queues[0].LockedBy != "other" || page.Queues[0].LockedFor != never(infinity)) {
		t.Errorf("Queues: %+v", page)
	}
	return err
}

func workers(t *testing.T, client *gworker.Client, infinity string) error {
	found, err := client.Workers(t.Context())
	if err == nil && (len(found) != 1 || found[0].Silence != never(infinity) || found[0].OldestLock != never(infinity) || found[0].Jobs != 2) {
		t.Errorf("Workers: %+v", found)
	}
	return err
}

func locks(t *testing.T, client *gworker.Client, infinity string) error {
	found, err := client.LockedBy(t.Context(), []string{"other"})
	if err == nil && (len(found) != 1 || len(found[0].Jobs) != 2 || found[0].Jobs[0].LockedFor != never(infinity)) {
		t.Errorf("LockedBy: %+v", found)
	}
	return err
}
