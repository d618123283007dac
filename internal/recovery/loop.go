package recovery

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
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

// firstSweepTimeout bounds how long the first look may keep a worker from its jobs.
const firstSweepTimeout = 5 * time.Second

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

	sweeps, resets appointment

	mu      sync.Mutex
	started time.Time
	outage  time.Time // when it was last told of one
}

// Begin is the first look for dead workers, before anything else is done. A process
// that does not live for long has no other; all that it can take for dead is a worker
// whose silence an earlier process has noted, and else it notes it. Errors of the
// database are reported.
func (l *Loop) Begin(ctx context.Context) {
	l.mu.Lock()
	l.started = time.Now()
	l.mu.Unlock()
	if l.Interval == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, firstSweepTimeout)
	defer cancel()
	silent, err := l.Statements.On(l.Pool).AnySilentWorker(ctx, l.Options.StaleAfter.Seconds())
	if err != nil && ctx.Err() == nil {
		l.Events.Emit(event.SweepFailed{WorkerID: l.WorkerID, Err: fmt.Errorf("looking for silent workers: %w", err)})
	}
	if silent {
		l.sweep(ctx)
	}
}

// Hold tells of an outage, which may have been everybody's: it keeps the loop from
// sweeping for as long as it takes a healthy worker to be heard of again. It may be
// called from any goroutine.
func (l *Loop) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outage = time.Now()
}

// watched is SweepOptions.Watched.
func (l *Loop) watched() (here, unbroken time.Duration) {
	if l.late() {
		return 0, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	unbroken = math.MaxInt64
	if !l.outage.IsZero() {
		unbroken = time.Since(l.outage)
	}
	return min(unbroken, time.Since(l.started)), unbroken
}

func (l *Loop) late() bool { return l.Late != nil && l.Late() }

// holding reports whether this process has not seen enough yet to take anybody for
// dead by itself.
func (l *Loop) holding() bool {
	here, _ := l.watched()
	return here < l.Options.StaleAfter
}

// Run runs until ctx ends, after Begin. Errors of the database are reported, and the
// next time tries again.
func (l *Loop) Run(ctx context.Context) {
	var sweep <-chan time.Time // nil: never
	if l.Interval > 0 {
		sweep = l.sweeps.in(l.nextSweep())
		defer l.sweeps.never()
	}
	reset := l.resets.in(rand.N(firstReset))
	defer l.resets.never()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep:
			if !l.late() {
				l.sweep(ctx)
			}
			l.sweeps.in(l.nextSweep())
		case <-reset:
			if err := l.resetOldLocks(ctx); err != nil && ctx.Err() == nil {
				l.Events.Emit(event.SweepFailed{WorkerID: l.WorkerID, Err: err})
			}
			l.resets.in(nextReset())
		}
	}
}

func (l *Loop) sweep(ctx context.Context) {
	options := l.Options
	options.Watched = l.watched
	if _, err := Sweep(ctx, l.Pool, l.Statements, l.Events, options); err != nil && ctx.Err() == nil {
		l.Events.Emit(event.SweepFailed{WorkerID: l.WorkerID, Err: err})
	}
}

// sweepWithin and resetWithin report whether a sweep, or a reset, is due before so
// much time has passed.
func (l *Loop) sweepWithin(wait time.Duration) bool { return l.sweeps.within(wait) && !l.holding() }
func (l *Loop) resetWithin(wait time.Duration) bool { return l.resets.within(wait) }

// suspects tells whether a sweep might find a dead worker: then it comes at once, and
// else there is no need for it until the next is due.
func (l *Loop) suspects(some bool) {
	if some {
		l.sweeps.in(0)
		return
	}
	l.sweeps.in(l.nextSweep())
}

// outdated tells whether there is a lock that a reset would free.
func (l *Loop) outdated(some bool) {
	if some {
		l.resets.in(0)
		return
	}
	l.resets.in(nextReset())
}

func nextReset() time.Duration { return resetEvery + rand.N(resetSpread) }

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
	if refusal(err) {
		jobs, err = l.resetSingly(ctx, q, at)
	}
	if err != nil {
		return fmt.Errorf("resetting the locks of jobs that are older than 4 hours: %w", err)
	}
	queues, err := q.ResetOldQueueLocks(ctx, at)
	if refusal(err) {
		queues, err = l.resetQueuesSingly(ctx, q, at)
	}
	if err != nil {
		return fmt.Errorf("resetting the locks of queues that are older than 4 hours: %w", err)
	}
	l.Events.Emit(event.OldLocksReset{WorkerID: l.WorkerID, JobIDs: jobs, Queues: queues})
	return nil
}

// resetSingly leaves out the jobs whose locks the database does not let go.
func (l *Loop) resetSingly(ctx context.Context, q *dbgen.Queries, at pgtype.Timestamptz) (reset []int64, err error) {
	old, err := q.OldJobLocks(ctx, at)
	if err != nil {
		return nil, err
	}
	err = salvage(old, func(ids []int64) error {
		some, err := q.ResetSomeOldJobLocks(ctx, dbgen.ResetSomeOldJobLocksParams{At: at, Ids: ids})
		reset = append(reset, some...)
		return err
	}, func(id int64, err error) {
		if !errors.Is(err, errPutOff) {
			l.Events.Emit(event.SweepFailed{WorkerID: l.WorkerID, JobID: id, Err: fmt.Errorf("resetting the lock of job %d, older than 4 hours: %w", id, err)})
		}
	})
	return reset, err
}

// resetQueuesSingly leaves out the queues whose locks the database does not let go.
func (l *Loop) resetQueuesSingly(ctx context.Context, q *dbgen.Queries, at pgtype.Timestamptz) (reset []string, err error) {
	old, err := q.OldQueueLocks(ctx, at)
	if err != nil {
		return nil, err
	}
	err = salvage(old, func(names []string) error {
		some, err := q.ResetSomeOldQueueLocks(ctx, dbgen.ResetSomeOldQueueLocksParams{At: at, Names: names})
		reset = append(reset, some...)
		return err
	}, func(name string, err error) {
		if !errors.Is(err, errPutOff) {
			l.Events.Emit(event.SweepFailed{WorkerID: l.WorkerID, Err: fmt.Errorf("resetting the lock of queue %q, older than 4 hours: %w", name, err)})
		}
	})
	return reset, err
}
