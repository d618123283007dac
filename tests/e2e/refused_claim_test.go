package e2e_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// refusedLocks are what may be against the lock of the job with the payload
// {"bad":true}, and against every other update of it.
var refusedLocks = []struct{ name, sql string }{
	{"trigger", poisonTrigger("update", "true", "raise exception 'not this one'")},
	{"trigger that raises 40001", poisonTrigger("update", "true", "raise exception 'not this one' using errcode = '40001'")},
	{"trigger with a mistake", poisonTrigger("update", "true", "perform nosuch()")},
	{"trigger that returns null", poisonTrigger("update", "true", "return null")},
	{"trigger that returns old", poisonTrigger("update", "true", "return old")},
	{"constraint", `alter table graphile_worker._private_jobs add check (payload::text <> '{"bad":true}' or attempts < 1)`},
	{"deferred trigger", `create function poison() returns trigger language plpgsql as $$ begin
			if old.payload::text = '{"bad":true}' then raise exception 'not this one'; end if;
			return null;
		end $$;
		create constraint trigger poison after update on graphile_worker._private_jobs
			deferrable initially deferred for each row execute function poison()`},
}

// TestRefusedLocks: a job whose lock the database refuses keeps no other job from
// running, of its queue or of others, and the worker says which it is.
func TestRefusedLocks(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	fails := func(context.Context, *gworker.RawJob) error { return errors.New("no") }
	for _, c := range refusedLocks {
		for mode, config := range map[string]gworker.Config{
			"held": {}, "locked": {HoldTime: new(time.Duration)}, "one slot": {HoldTime: new(time.Duration), Concurrency: 1},
			"local queue": {LocalQueue: gworker.LocalQueueConfig{Size: 10}},
		} {
			t.Run(c.name+", "+mode, func(t *testing.T) {
				sample.Take(t)
				t.Parallel()
				pool := migrated(t)
				exec(t, pool, c.sql)
				specs := []gworker.JobSpec{
					{Task: "poison", Queue: "q", Payload: map[string]bool{"bad": true}}, {Task: "x", Queue: "q"},
					{Task: "poison", Payload: map[string]bool{"bad": true}}, {Task: "poison", Payload: map[string]bool{"bad": true}},
				}
				for range 20 {
					specs = append(specs, gworker.JobSpec{Task: "x"})
				}
				jobs, err := newClient(t, pool).AddJobs(t.Context(), specs)
				if err != nil {
					t.Fatal(err)
				}
				poison := map[int64]bool{jobs[0].ID: true, jobs[2].ID: true, jobs[3].ID: true}
				config.Pool, config.Tasks = pool, []gworker.Task{gworker.NewRawTask("poison", fails), gworker.NewRawTask("x", nothing)}
				config.StatementTimeout = time.Hour
				w := start(t, config)
				for _, job := range jobs {
					if !poison[job.ID] {
						waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
					}
				}
				for id := range poison {
					refused := waitFor(t, w.Events, func(e event.ClaimRefused) bool { return e.Job.ID == id })
					if refused.Err == nil || refused.RetryIn <= 0 || refused.Job.Task != "poison" {
						t.Errorf("%+v", refused)
					}
				}
				if err := w.Stop(); err != nil { // within less than a statement time-out
					t.Error(err)
				}
				seen, _ := w.Events.Seen()
				runs := map[int64]int{}
				for _, e := range seen {
					switch e := e.(type) {
					case event.JobStarted:
						runs[e.Job.ID]++
					case event.ClaimFailed:
						t.Errorf("a claim failed: %v", e.Err)
						t.Log(testworker.Describe(seen))
					}
				}
				for id, n := range runs {
					// One that is held runs before anything is written about it.
					if !poison[id] && n != 1 || n > 1 && mode != "held" || n > 2 {
						t.Errorf("job %d ran %d times", id, n)
					}
				}
				var locks, left int
				scan(t, pool, `select count(*), count(*) filter (where locked_at is not null) from graphile_worker._private_jobs`, nil, &left, &locks)
				if left != len(poison) || locks > 0 {
					t.Errorf("%d jobs are left, %d locked", left, locks)
				}
				scan(t, pool, `select count(*) from graphile_worker._private_job_queues where locked_at is not null`, nil, &locks)
				if locks > 0 {
					t.Errorf("%d queues are locked", locks)
				}
			})
		}
	}
}

// TestRefusedLocksOnce: a run until nothing is left to run ends.
func TestRefusedLocksOnce(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for mode, hold := range map[string]*time.Duration{"held": nil, "locked": new(time.Duration)} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			exec(t, pool, refusedLocks[0].sql)
			var specs []gworker.JobSpec
			for range 50 {
				specs = append(specs, gworker.JobSpec{Task: "x", Payload: map[string]bool{"bad": true}})
			}
			specs = append(specs, gworker.JobSpec{Task: "y"})
			if _, err := newClient(t, pool).AddJobs(t.Context(), specs); err != nil {
				t.Fatal(err)
			}
			fails := func(context.Context, *gworker.RawJob) error { return errors.New("no") }
			events := runOnce(t, gworker.Config{Pool: pool, HoldTime: hold, Concurrency: 4, Tasks: []gworker.Task{
				gworker.NewRawTask("x", fails), gworker.NewRawTask("y", nothing),
			}})
			if n := count[event.JobCompleted](events); n != 1 {
				t.Errorf("%d jobs completed, want 1", n)
			}
		})
	}
}
