package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// TestRefusedUnlockingOfQueues: whatever the database has against unlocking a queue, the
// outcomes of its jobs are stored as they are, and nothing else suffers.
func TestRefusedUnlockingOfQueues(t *testing.T) {
	var sample testdb.Sample
	outcomes := map[string]struct {
		err  error
		left string // of the job: attempts, and whether it waits
	}{
		"complete": {nil, ""},
		"fail":     {errors.New("of its own"), "1 true of its own"},
		"final":    {gworker.Discard(errors.New("of its own")), "25 true of its own"},
		"snooze":   {gworker.Snooze(time.Hour), "0 true "},
	}
	for _, c := range refusedUnlocking {
		for mode, hold := range map[string]*time.Duration{"held": nil, "locked": new(time.Duration)} {
			for kind, outcome := range outcomes {
				t.Run(fmt.Sprintf("%s, %s, %s", c.name, kind, mode), func(t *testing.T) {
					sample.Take(t)
					t.Parallel()
					pool := migrated(t)
					client := newClient(t, pool)
					poison := add(t, client, gworker.JobSpec{Task: "poison", Queue: "bad"})
					exec(t, pool, c.sql)
					jobs, err := client.AddJobs(t.Context(), []gworker.JobSpec{{Task: "x"}, {Task: "x", Queue: "good"}, {Task: "x", Queue: "good"}})
					if err != nil {
						t.Fatal(err)
					}
					w := start(t, gworker.Config{Pool: pool, HoldTime: hold, Concurrency: 3, StatementTimeout: time.Hour, Tasks: []gworker.Task{
						gworker.NewRawTask("poison", func(ctx context.Context, job *gworker.RawJob) error {
							// Its lock is to be written, as it is with a long run.
							for !lockIsWritten(t, pool, job.ID) {
								time.Sleep(time.Millisecond)
							}
							return outcome.err
						}), gworker.NewRawTask("x", nothing),
					}})
					for _, job := range jobs {
						waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == job.ID })
					}
					refused := waitFor[gworker.OutcomeRefused](t, w.events, nil)
					if refused.Job.ID != poison.ID || refused.Stored != gworker.StoredQueueKept || refused.Err == nil {
						t.Errorf("%+v", refused)
					}
					var left string
					scan(t, pool, `select coalesce((select concat_ws(' ', attempts::text, (run_at > created_at + interval '1 second' and locked_at is null)::text, coalesce(last_error, ''))
						from graphile_worker._private_jobs where id = $1), '')`, []any{poison.ID}, &left)
					if outcome.err == nil {
						waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == poison.ID })
					}
					if left != outcome.left {
						t.Errorf("the job is left as %q, want %q", left, outcome.left)
					}
					if err := w.stop(); err != nil {
						t.Error(err)
					}
					if n := count[gworker.OutcomeRefused](w.events); n != 1 {
						t.Errorf("%d refusals are told of, want 1", n)
					}
					if n := count[gworker.JobStarted](w.events); n != len(jobs)+1 {
						t.Errorf("%d runs, want %d", n, len(jobs)+1)
					}
				})
			}
		}
	}
}
