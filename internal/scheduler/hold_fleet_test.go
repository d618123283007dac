package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

// TestHeldAndLockedClaimsSideBySide lets workers that hold jobs, for so short that
// many are spilled, and one that locks them empty a table together, without faults
// and while connections are killed. No job is lost, a queue runs one at a time, and
// without faults nothing runs twice.
func TestHeldAndLockedClaimsSideBySide(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, kills := range []int{0, 15} {
		t.Run(fmt.Sprintf("kills=%d", kills), func(t *testing.T) {
			const jobs, queues = 1500, 10
			var mu sync.Mutex
			runs, busy := map[int64]int{}, map[string]int{}
			var lost []error // why claims were, that nobody has killed
			f := newFixture(t, nil)
			handlers := map[string]scheduler.Handler{"x": func(ctx context.Context, j *job.Claimed) job.Outcome {
				mu.Lock()
				runs[j.ID]++
				if busy[j.Queue]++; j.Queue != "" && busy[j.Queue] > 1 && kills == 0 {
					t.Errorf("two jobs of queue %s at once", j.Queue)
				}
				mu.Unlock()
				work, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(4))*time.Millisecond)
				<-work.Done()
				cancel()
				mu.Lock()
				busy[j.Queue]--
				mu.Unlock()
				return job.Outcome{Kind: job.Completed}
			}}
			f.exec(t, `select graphile_worker.add_job('x', queue_name => case when n % 3 = 0 then 'q' || n % $2 end)
				from generate_series(1, $1) n`, jobs, queues)
			var fleet []*scheduler.Scheduler
			var stops []func()
			for i := range 3 {
				if f.holdFor(5 * time.Millisecond); i == 2 {
					f.config.Hold = scheduler.Hold{}
				}
				f.config.WorkerID, f.config.Handlers = "gworker_"+strconv.Itoa(i), handlers
				f.config.Events = eventstream.New(func(e event.Event) {
					if e, ok := e.(event.HoldLost); ok && kills == 0 {
						mu.Lock()
						defer mu.Unlock()
						lost = append(lost, e.Err)
					}
				})
				s := scheduler.New(f.config)
				fleet, stops = append(fleet, s), append(stops, run(t, s))
			}
			// One connection, which it does not kill itself.
			config := f.pool.Config()
			config.MaxConns = 1
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			watch := &fixture{pool: pool}
			for left, round := jobs, 0; left > 0; round++ {
				left = watch.jobs(t)
				if round < kills {
					watch.exec(t, `select pg_terminate_backend(pid) from pg_stat_activity
						where datname = current_database() and pid <> pg_backend_pid() order by random() limit 1`)
				}
				for _, s := range fleet {
					s.DatabaseBack() // waits after faults are cut short
				}
			}
			for _, stop := range stops {
				stop()
			}
			stoodStill := false
			for _, err := range lost {
				// The server takes a worker for stopped that is idle in its transaction
				// for 5 s: so long this machine can only have stood still.
				var pgErr *pgconn.PgError
				if errors.As(err, &pgErr) && pgErr.Code == "25P03" {
					stoodStill = true
					t.Logf("the machine stood still: %v", err)
					continue
				}
				t.Errorf("a claim was lost without a fault: %v", err)
			}
			for id, n := range runs {
				if n > 1 && kills == 0 && !stoodStill {
					t.Errorf("job %d ran %d times", id, n)
				}
			}
			if n := watch.locks(t); len(runs) != jobs || n != 0 {
				t.Errorf("%d of %d jobs ran, %d locks are left", len(runs), jobs, n)
			}
		})
	}
}
