package scheduler

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

// TestCursorMovesOn: between two scans from the start, the cursor follows the
// claims by shorter ones.
func TestCursorMovesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	c, pool := slowClaimer(t)
	exec(t, pool, `
		select graphile_worker.add_job('foreign', priority => -1);
		select graphile_worker.add_job('x', run_at => now() - interval '1 hour' + n * interval '1 s') from generate_series(1, 500) n`)
	for range 200 {
		before, fullAt, stepAt := c.scan.cursor, c.scan.fullAt, c.scan.stepAt
		take(t, c, 1)
		after := c.scan.cursor
		if !before.used() || c.scan.fullAt != fullAt {
			continue
		}
		if c.scan.stepAt == stepAt {
			if !after.runAt.Time.Equal(before.runAt.Time) {
				t.Fatal("the cursor moved without a scan")
			}
			continue
		}
		if after.runAt.Time.After(before.runAt.Time) {
			var first time.Time
			if err := pool.QueryRow(t.Context(), "select min(run_at) from graphile_worker._private_jobs where is_available and priority = 0").Scan(&first); err != nil {
				t.Fatal(err)
			}
			if after.runAt.Time.After(first) {
				t.Errorf("it moved to %s, past %s", after.runAt.Time, first)
			}
			return
		}
	}
	t.Error("the cursor never moved but by scans from the start")
}

// TestRunOnceWithACursor: with a cursor in use, RunOnce returns only when nothing can
// run before it either.
func TestRunOnceWithACursor(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, hold := range map[string]time.Duration{"locked": 0, "held": time.Minute} {
		t.Run(name, func(t *testing.T) {
			url := testdb.Migrated(t)
			pool := testdb.Pool(t, url)
			exec(t, pool, `
				select graphile_worker.add_job('x', queue_name => 'stuck', priority => -1);
				update graphile_worker._private_job_queues set locked_by = 'other', locked_at = now() - interval '1 minute';
				select graphile_worker.add_job('foreign', priority => -1);
				select graphile_worker.add_job('x', run_at => now() - interval '1 hour' + n * interval '1 s') from generate_series(1, 60) n`)
			var mu sync.Mutex
			var ran []int64
			set := statement.NewSet(statement.Options{})
			s := New(Config{
				Database: set.Bind(pool, nil), WorkerID: "gworker_test", Concurrency: 2, PollInterval: time.Minute,
				StatementTimeout: time.Minute, AbortTimeout: time.Minute, Events: eventstream.New(nil),
				Hold: Hold{
					Time: hold, Statements: set,
					Connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) },
				},
				Handlers: map[string]Handler{"x": func(ctx context.Context, j *job.Claimed) job.Outcome {
					mu.Lock()
					ran = append(ran, j.ID)
					mu.Unlock()
					if j.ID == 62 { // the last: nobody tells of these
						_, err := pool.Exec(ctx, `insert into graphile_worker._private_jobs (task_id, priority)
							select id, -5 from graphile_worker._private_tasks where identifier = 'x'`)
						return job.Outcome{Err: err}
					}
					return job.Outcome{}
				}},
			})
			at, used := time.Now(), false
			var clock sync.Mutex
			s.claims.scan.now = func() time.Time { // every statement takes its time
				clock.Lock()
				defer clock.Unlock()
				if used = used || s.claims.scan.fullTook > 0 && s.claims.scan.cursor.used(); used {
					return at // and no further scan is due
				}
				at = at.Add(10 * time.Millisecond)
				return at
			}
			if s.holds != nil {
				s.claims.scan.expensive = true // by its own clock no claim is
			}
			if err := s.RunOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
			slices.Sort(ran)
			if len(ran) != 61 || ran[60] != 63 {
				t.Errorf("ran %v", ran)
			}
			if !used {
				t.Error("no place was used")
			}
		})
	}
}

// TestLooksAgainForAJobInOtherHands: a claim that finds a queue's job and cannot have
// it is repeated soon, and less soon each time. Where it has no queue nothing becomes
// runnable when it is let go, but for itself.
func TestLooksAgainForAJobInOtherHands(t *testing.T) {
	var sample testdb.Sample
	for name, queue := range map[string]string{"queued": "'q'", "plain": "null"} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			c, pool := slowClaimer(t)
			at := time.Now()
			c.scan.now = func() time.Time { return at }
			exec(t, pool, "select graphile_worker.add_job('x', queue_name => "+queue+") from generate_series(1, 2)")
			tx, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback(context.WithoutCancel(t.Context()))
			if _, err := tx.Exec(t.Context(), "select from graphile_worker._private_jobs for update"); err != nil {
				t.Fatal(err)
			}
			var waits []time.Duration
			for range 12 {
				if ids := take(t, c, 1); len(ids) > 0 {
					t.Fatalf("took %v", ids)
				}
				waits = append(waits, untilRecheck(c))
			}
			if queue == "null" {
				if waits[11] != time.Hour {
					t.Errorf("looks again after %v", waits)
				}
				return
			}
			if waits[0] > 2*time.Millisecond || !slices.IsSorted(waits) || waits[11] != time.Second {
				t.Errorf("looks again after %v", waits)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			take(t, c, 1)
			if wait := untilRecheck(c); wait != time.Hour {
				t.Errorf("after a job was taken it looks again in %s", wait)
			}
		})
	}
}

// untilRecheck is the time until claims look again for jobs that others had; an hour where
// they do not.
func untilRecheck(c *claimer) time.Duration {
	if c.recheck.next.IsZero() {
		return time.Hour
	}
	return c.recheck.next.Sub(c.scan.now())
}
