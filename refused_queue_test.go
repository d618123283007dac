package gworker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gworker/gworker"
)

// queueTrigger is a trigger on the table of queues against the queue "bad".
func queueTrigger(condition, body string) string {
	return fmt.Sprintf(`create function poison() returns trigger language plpgsql as $$ begin
			if old.queue_name = 'bad' and (%s) then %s; end if;
			return new;
		end $$;
		create trigger poison before update on graphile_worker._private_job_queues for each row execute function poison()`,
		condition, body)
}

// TestRefusedLocksOfQueues: a queue whose lock the database refuses keeps no other job
// from running, however many jobs it has, and none of its own runs without it.
func TestRefusedLocksOfQueues(t *testing.T) {
	for _, c := range []struct{ name, body string }{
		{"raises", "raise exception 'not this one'"}, {"returns null", "return null"}, {"returns old", "return old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			exec(t, pool, queueTrigger("new.locked_at is not null", c.body))
			exec(t, pool, `select graphile_worker.add_job('x', queue_name := 'bad') from generate_series(1, 1200)`)
			jobs, err := newClient(t, pool).AddJobs(t.Context(), []gworker.JobSpec{{Task: "x"}, {Task: "x", Queue: "good"}})
			if err != nil {
				t.Fatal(err)
			}
			w := start(t, gworker.Config{
				Pool: pool, HoldTime: new(time.Duration), Concurrency: 1, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)},
			})
			for _, job := range jobs {
				waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == job.ID })
			}
			refused := waitFor[gworker.ClaimRefused](t, w.events, nil)
			if refused.Job.Queue != "bad" || refused.Err == nil {
				t.Errorf("%+v", refused)
			}
			if err := w.stop(); err != nil {
				t.Error(err)
			}
			if n := count[gworker.JobCompleted](w.events); n != len(jobs) {
				t.Errorf("%d jobs ran, want %d", n, len(jobs))
			}
			if n := count[gworker.ClaimFailed](w.events); n > 0 {
				t.Errorf("%d claims failed", n)
			}
			if n := count[gworker.ClaimRefused](w.events); n > 50 {
				t.Errorf("%d refusals of one queue are told of", n)
			}
		})
	}
}
