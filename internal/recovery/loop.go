package recovery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/statement"
)

// When old locks are reset: the first time within a minute of the start, then
// every 8 to 10 minutes, at random, so that a fleet does not do it all at once.
const (
	firstReset  = time.Minute
	resetEvery  = 8 * time.Minute
	resetSpread = 2 * time.Minute
)

// Loop sweeps, and resets old locks, until its context ends.
type Loop struct {
	WorkerID   string
	Pool       *pgxpool.Pool
	Statements *statement.Set
	Events     *event.Stream
	// Interval is the time between two sweeps; 0 means that there are none.
	Interval time.Duration
	Options  SweepOptions
	// Now is the clock by which locks are old; nil means the database's. Who is
	// dead is always judged by the database's.
	Now func() time.Time
	// Late, if not nil, reports that this worker's own heartbeat is missing.
	Late func() bool

	mu     sync.Mutex
	paused time.Time // when it was last told to hold back
}

// Hold keeps the loop from sweeping for as long as it takes a healthy worker to
// be heard of again: after an outage, which may have been everybody's. It may be
// called from any goroutine.
func (l *Loop) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = time.Now()
}

func (l *Loop) holding() bool {
	if l.Late != nil && l.Late() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.paused) < l.Options.StaleAfter
}

// Run runs until ctx ends. Errors of the database are reported, and the next
// time tries again.
func (l *Loop) Run(ctx context.Context) {
	l.Hold() // it has started just as an outage ends, for all it knows
	l.Options.Hold = l.holding
	sweeps := time.NewTimer(l.nextSweep())
	defer sweeps.Stop()
	if l.Interval == 0 {
		sweeps.Stop()
	}
	resets := time.NewTimer(rand.N(firstReset))
	defer resets.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweeps.C:
			if l.holding() {
				sweeps.Reset(l.nextSweep())
				continue
			}
			if _, err := Sweep(ctx, l.Pool, l.Statements, l.Events, l.Options); err != nil && ctx.Err() == nil {
				l.Events.Emit(event.SweepFailed{WorkerID: l.WorkerID, Err: err})
			}
			sweeps.Reset(l.nextSweep())
		case <-resets.C:
			if err := l.resetOldLocks(ctx); err != nil && ctx.Err() == nil {
				l.Events.Emit(event.SweepFailed{WorkerID: l.WorkerID, Err: err})
			}
			resets.Reset(resetEvery + rand.N(resetSpread))
		}
	}
}

// nextSweep spreads the sweeps of a fleet that was started at once.
func (l *Loop) nextSweep() time.Duration {
	if l.Interval < 2 {
		return l.Interval
	}
	return l.Interval/2 + rand.N(l.Interval)
}

// resetOldLocks frees what has been locked for 4 hours, whoever holds it.
func (l *Loop) resetOldLocks(ctx context.Context) error {
	l.Events.Emit(event.OldLocksResetStarted{WorkerID: l.WorkerID})
	q := l.Statements.On(l.Pool)
	var at pgtype.Timestamptz // null: the database's time
	if l.Now != nil {
		at = pgtype.Timestamptz{Time: l.Now(), Valid: true}
	}
	jobs, err := q.ResetOldJobLocks(ctx, at)
	if err != nil {
		return fmt.Errorf("resetting the locks of jobs that are older than 4 hours: %w", err)
	}
	queues, err := q.ResetOldQueueLocks(ctx, at)
	if err != nil {
		return fmt.Errorf("resetting the locks of queues that are older than 4 hours: %w", err)
	}
	l.Events.Emit(event.OldLocksReset{WorkerID: l.WorkerID, JobIDs: jobs, Queues: queues})
	return nil
}
