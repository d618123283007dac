package e2e_test

import (
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testworker"
)

// Each time in a row can be infinity, which no time in Go can be. Such rows are read and
// changed like others.
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
			exec(t, pool, "insert into graphile_worker._private_workers (id, last_heartbeat_at, started_at) values ('other', 'infinity', $1)", infinity)

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
				{"Doctor", func() error { _, err := client.Doctor(t.Context()); return err }},
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
		})
	}
}
