package gworker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gworker/gworker"
)

// TestPolicyAgainstOneJob: what the check of a row level security policy has against a
// job is an answer about that job, as a constraint's is, although its code is that of a
// missing right. The job does not stay locked, and its queue goes on.
func TestPolicyAgainstOneJob(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, c := range []struct {
		name, policy string
		locked       bool // the refusal comes with the lock, and the job does not run
	}{
		{name: "failure", policy: "as restrictive for update using (true) with check (last_error is null)"},
		{name: "lock", policy: "as restrictive for update using (true) with check (locked_at is null or priority = 0)", locked: true},
	} {
		for mode, hold := range map[string]*time.Duration{"held": nil, "locked": new(time.Duration)} {
			if c.locked && hold == nil {
				continue // no lock is written
			}
			t.Run(c.name+", "+mode, func(t *testing.T) {
				t.Parallel()
				owner := migrated(t)
				admin := newClient(t, owner)
				role, pool := newRole(t, owner)
				if _, err := admin.Grant(t.Context(), gworker.RightsWorker, role, gworker.GrantOptions{}); err != nil {
					t.Fatal(err)
				}
				exec(t, owner, "create policy mine on graphile_worker._private_jobs "+c.policy)
				ran := make(chan int64, 10)
				w := start(t, gworker.Config{Pool: pool, HoldTime: hold, NoMigrations: true, StatementTimeout: time.Hour, Tasks: []gworker.Task{
					gworker.NewRawTask("poison", func(_ context.Context, job *gworker.RawJob) error {
						ran <- job.ID
						return errors.New("no")
					}), gworker.NewRawTask("x", nothing),
				}})
				jobs, err := admin.AddJobs(t.Context(), []gworker.JobSpec{
					{Task: "poison", Queue: "q", Priority: 1}, {Task: "x", Queue: "q", Priority: 0, RunAt: time.Now()}, {Task: "x"},
				})
				if err != nil {
					t.Fatal(err)
				}
				poison := jobs[0]
				if c.locked {
					waitFor(t, w.events, func(e gworker.ClaimRefused) bool { return e.Job.ID == poison.ID })
				} else {
					refused := waitFor(t, w.events, func(e gworker.OutcomeRefused) bool { return e.Job.ID == poison.ID })
					if refused.Stored != gworker.StoredUnlocked {
						t.Errorf("stored: %s", refused.Stored)
					}
					waitFor(t, w.events, func(e gworker.JobFailed) bool { return e.Job.ID == poison.ID })
				}
				for _, job := range jobs[1:] {
					waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == job.ID })
				}
				if err := w.stop(); err != nil {
					t.Error(err)
				}
				var locked, queue bool
				scan(t, owner, `select (select locked_at is not null from graphile_worker._private_jobs where id = $1),
					exists (select from graphile_worker._private_job_queues where locked_at is not null)`, []any{poison.ID}, &locked, &queue)
				if locked || queue {
					t.Errorf("the job is locked: %v; its queue: %v", locked, queue)
				}
				if n := len(ran); n > 2 || c.locked && n > 0 {
					t.Errorf("the job ran %d times", n)
				}
			})
		}
	}
}
