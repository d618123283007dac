package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
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
	t.Parallel()
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
				waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
			}
			refused := waitFor[event.ClaimRefused](t, w.Events, nil)
			if refused.Job.Queue != "bad" || refused.Err == nil {
				t.Errorf("%+v", refused)
			}
			if err := w.Stop(); err != nil {
				t.Error(err)
			}
			if n := count[event.JobCompleted](w.Events); n != len(jobs) {
				t.Errorf("%d jobs ran, want %d", n, len(jobs))
			}
			if n := count[event.ClaimFailed](w.Events); n > 0 {
				t.Errorf("%d claims failed", n)
			}
			if n := count[event.ClaimRefused](w.Events); n > 50 {
				t.Errorf("%d refusals of one queue are told of", n)
			}
		})
	}
}

// TestQueuesOfRefusedLocksAreFreed: no queue stays locked for a job whose lock was refused,
// neither while the worker runs and polls once an hour, nor after its end.
func TestQueuesOfRefusedLocksAreFreed(t *testing.T) {
	const locked = "select count(*) from graphile_worker._private_job_queues where locked_at is not null"
	for _, c := range []struct {
		name, body string
		hold       time.Duration
		first      int // the priority of the job whose lock is refused, that of the other being 0
	}{
		{"it runs, held", "return null", time.Millisecond, -1},
		{"it runs, locked", "return null", 0, -1},
		{"it runs, locked after", "raise exception 'not this one'", 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			exec(t, pool, fmt.Sprintf(`create function poison() returns trigger language plpgsql as $$ begin
					if old.payload::text = '{"bad":true}' and new.locked_at is not null then %s; end if;
					return new;
				end $$;
				create trigger poison before update on graphile_worker._private_jobs for each row execute function poison()`, c.body))
			_, err := newClient(t, pool).AddJobs(t.Context(), []gworker.JobSpec{
				{Task: "x", Queue: "q", Priority: c.first, Payload: map[string]bool{"bad": true}}, {Task: "x"},
			})
			if err != nil {
				t.Fatal(err)
			}
			release := make(chan struct{})
			w := start(t, gworker.Config{
				Pool: pool, HoldTime: &c.hold, Concurrency: 2, PollInterval: time.Hour, NoListen: true, // nothing wakes it
				Tasks: []gworker.Task{gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error {
					<-release
					return nil
				})},
			})
			t.Cleanup(func() { close(release) }) // before the worker is stopped
			waitFor[event.ClaimRefused](t, w.Events, nil)
			if n := 1; !eventually(t, pool, locked, func(now int) bool { n = now; return n == 0 }) {
				t.Errorf("%d queues are locked for no job", n)
			}
		})
	}
	for _, body := range []string{"return null", "raise exception 'not this one'"} {
		t.Run("the worker ends, "+body, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			exec(t, pool, fmt.Sprintf(`create function poison() returns trigger language plpgsql as $$ begin
					if new.locked_at is not null then %s; end if;
					return new;
				end $$;
				create trigger poison before update on graphile_worker._private_jobs for each row execute function poison()`, body))
			add(t, newClient(t, pool), gworker.JobSpec{Task: "x", Queue: "q"})
			w := start(t, gworker.Config{Pool: pool, HoldTime: new(time.Duration), Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
			waitFor[event.ClaimRefused](t, w.Events, nil)
			if err := w.Stop(); err != nil {
				t.Error(err)
			}
			var n int
			if scan(t, pool, locked, nil, &n); n > 0 {
				t.Errorf("%d queues are locked for no job", n)
			}
		})
	}
}

// eventually asks again until a count is as it is to be.
func eventually(t *testing.T, pool *pgxpool.Pool, sql string, is func(int) bool) bool {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var n int
		if scan(t, pool, sql, nil, &n); is(n) {
			return true
		}
	}
	return false
}
