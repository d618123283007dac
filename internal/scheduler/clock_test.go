package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

// TestWorkerTime: the worker's clock is days away from the database's, and
// decides alone.
func TestWorkerTime(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const days = 24 * time.Hour
	for _, offset := range []time.Duration{-100 * days, 100 * days} {
		for _, size := range []int{0, 5} {
			t.Run(fmt.Sprintf("%s, local queue of %d", offset, size), func(t *testing.T) {
				clock := time.Now().Add(offset).Truncate(time.Microsecond) // stands still
				var ran seen
				f := newFixture(t, nil)
				f.config.Handlers = map[string]scheduler.Handler{
					"x": ran.handler,
					"fails": func(ctx context.Context, j *job.Claimed) job.Outcome {
						var lockedAt time.Time
						if err := f.pool.QueryRow(ctx, "select locked_at from graphile_worker._private_jobs where id = $1", j.ID).Scan(&lockedAt); err != nil ||
							lockedAt.Sub(clock).Abs() > time.Millisecond || !lockedAt.Equal(j.Lock.At) {
							t.Errorf("locked at %s (%v), want the worker's %s", lockedAt, err, clock)
						}
						ran.handler(ctx, j)
						return job.Outcome{Kind: job.Failed, Err: errors.New("no")}
					},
					"waits": func(ctx context.Context, j *job.Claimed) job.Outcome {
						ran.handler(ctx, j)
						hour := time.Hour
						return job.Outcome{Kind: job.Returned, Err: errors.New("later"), Delay: &hour}
					},
				}
				f.config.Now = func() time.Time { return clock }
				f.config.LocalQueue = scheduler.LocalQueue{Size: size, TTL: patience}
				f.exec(t, "select graphile_worker.add_job('x')") // 1: due by the database's clock
				f.exec(t, "select graphile_worker.add_job('x', run_at => $1)", clock)
				f.exec(t, "select graphile_worker.add_job('x', run_at => $1)", clock.Add(time.Second))
				f.exec(t, "select graphile_worker.add_job('fails', queue_name => 'q', run_at => $1)", clock.Add(-time.Hour))
				f.exec(t, "select graphile_worker.add_job('waits', run_at => $1)", clock)
				if err := scheduler.New(f.config).RunOnce(t.Context()); err != nil {
					t.Fatal(err)
				}
				want := []int64{2, 4, 5}
				if offset > 0 {
					want = []int64{1, 2, 4, 5}
				}
				if got := ran.sorted(); !slices.Equal(got, want) {
					t.Errorf("ran %v, want %v", got, want)
				}
				for id, after := range map[int64]time.Duration{4: 2718 * time.Millisecond, 5: time.Hour} {
					var runAt time.Time
					if err := f.pool.QueryRow(t.Context(), "select run_at from graphile_worker._private_jobs where id = $1", id).Scan(&runAt); err != nil {
						t.Fatal(err)
					}
					if off := runAt.Sub(clock.Add(after)).Abs(); off > time.Second {
						t.Errorf("job %d is due again at %s, want %s after the worker's %s", id, runAt, after, clock)
					}
				}
			})
		}
	}
}
