package recovery

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
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

// Sweeper sweeps, and resets old locks, until its context ends.
type Sweeper struct {
	WorkerID   string
	Pool       *pgxpool.Pool
	Statements *statement.Set
	Events     *eventstream.Stream
	// Interval is the time between two sweeps; 0 means that there are none.
	Interval time.Duration
	Options  SweepOptions
	// Now is the clock that decides which locks are old; nil means the database's. Which
	// workers are dead is always decided by the database's clock.
	Now func() time.Time
	// Late, if not nil, reports that this worker's own heartbeat is missing.
	Late func() bool

	sweeps, resets deadline

	mu      sync.Mutex
	started time.Time
	outage  time.Time // the last one that was reported
}

// Begin is the first look for dead workers, before anything else is done. A short-lived
// process has no other one: it can declare dead only workers whose silence an earlier
// process has noted, and notes the silence of others. Errors of the database are reported.
func (s *Sweeper) Begin(ctx context.Context) {
	s.mu.Lock()
	s.started = time.Now()
	s.mu.Unlock()
	if s.Interval == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, firstSweepTimeout)
	defer cancel()
	silent, err := s.Statements.On(s.Pool).AnySilentWorker(ctx, s.Options.StaleAfter.Seconds())
	if err != nil && ctx.Err() == nil {
		s.Events.Emit(event.SweepFailed{WorkerID: s.WorkerID, Err: fmt.Errorf("looking for silent workers: %w", err)})
	}
	if silent {
		s.sweep(ctx)
	}
}

// Pause reports an outage, which may have hit all workers: the sweeper does not sweep until
// every healthy worker has had time to write a heartbeat. It may be called from any
// goroutine.
func (s *Sweeper) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outage = time.Now()
}

// watched is SweepOptions.Watched.
func (s *Sweeper) watched() (here, unbroken time.Duration) {
	if s.late() {
		return 0, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	unbroken = math.MaxInt64
	if !s.outage.IsZero() {
		unbroken = time.Since(s.outage)
	}
	return min(unbroken, time.Since(s.started)), unbroken
}

func (s *Sweeper) late() bool { return s.Late != nil && s.Late() }

// paused reports whether this process has not observed the database for long enough to
// declare a worker dead by itself.
func (s *Sweeper) paused() bool {
	here, _ := s.watched()
	return here < s.Options.StaleAfter
}

// Run runs until ctx ends, after Begin. Errors of the database are reported and do not end
// it.
func (s *Sweeper) Run(ctx context.Context) {
	var sweep <-chan time.Time // nil: never
	if s.Interval > 0 {
		sweep = s.sweeps.set(s.nextSweep())
		defer s.sweeps.stop()
	}
	reset := s.resets.set(rand.N(firstReset))
	defer s.resets.stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep:
			if !s.late() {
				s.sweep(ctx)
			}
			s.sweeps.set(s.nextSweep())
		case <-reset:
			if err := s.resetOldLocks(ctx); err != nil && ctx.Err() == nil {
				s.Events.Emit(event.SweepFailed{WorkerID: s.WorkerID, Err: err})
			}
			s.resets.set(nextReset())
		}
	}
}

func (s *Sweeper) sweep(ctx context.Context) {
	options := s.Options
	options.Watched = s.watched
	if _, err := Sweep(ctx, s.Pool, s.Statements, s.Events, options); err != nil && ctx.Err() == nil {
		s.Events.Emit(event.SweepFailed{WorkerID: s.WorkerID, Err: err})
	}
}

// sweepWithin and resetWithin report whether a sweep, or a reset, is due before wait has
// passed.
func (s *Sweeper) sweepWithin(wait time.Duration) bool { return s.sweeps.within(wait) && !s.paused() }
func (s *Sweeper) resetWithin(wait time.Duration) bool { return s.resets.within(wait) }

// suspects says whether a sweep might find a dead worker. If so, the sweep is due at once;
// otherwise this one is skipped.
func (s *Sweeper) suspects(some bool) {
	if some {
		s.sweeps.set(0)
		return
	}
	s.sweeps.set(s.nextSweep())
}

// outdated says whether there is a lock that a reset would free.
func (s *Sweeper) outdated(some bool) {
	if some {
		s.resets.set(0)
		return
	}
	s.resets.set(nextReset())
}

func nextReset() time.Duration { return resetEvery + rand.N(resetSpread) }

// nextSweep spreads the sweeps of workers that were started together.
func (s *Sweeper) nextSweep() time.Duration {
	if s.Interval < 2 {
		return s.Interval
	}
	return s.Interval/2 + rand.N(s.Interval)
}

// resetOldLocks frees all locks that are older than 4 hours.
func (s *Sweeper) resetOldLocks(ctx context.Context) error {
	s.Events.Emit(event.OldLocksResetStarted{WorkerID: s.WorkerID})
	q := s.Statements.On(s.Pool)
	var at *time.Time // nil: the database's time
	if s.Now != nil {
		at = new(s.Now())
	}
	jobs, err := q.ResetOldJobLocks(ctx, at)
	if refusal(err) {
		jobs, err = s.resetSingly(ctx, q, at)
	}
	if err != nil {
		return fmt.Errorf("resetting the locks of jobs that are older than 4 hours: %w", err)
	}
	queues, err := q.ResetOldQueueLocks(ctx, at)
	if refusal(err) {
		queues, err = s.resetQueuesSingly(ctx, q, at)
	}
	if err != nil {
		return fmt.Errorf("resetting the locks of queues that are older than 4 hours: %w", err)
	}
	s.Events.Emit(event.OldLocksReset{WorkerID: s.WorkerID, JobIDs: jobs, Queues: queues})
	return nil
}

// resetSingly leaves out the jobs that the database refuses to unlock.
func (s *Sweeper) resetSingly(ctx context.Context, q *dbgen.Queries, at *time.Time) (reset []int64, err error) {
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
			s.Events.Emit(event.SweepFailed{WorkerID: s.WorkerID, JobID: id, Err: fmt.Errorf("resetting the lock of job %d, older than 4 hours: %w", id, err)})
		}
	})
	return reset, err
}

// resetQueuesSingly leaves out the queues that the database refuses to unlock.
func (s *Sweeper) resetQueuesSingly(ctx context.Context, q *dbgen.Queries, at *time.Time) (reset []string, err error) {
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
			s.Events.Emit(event.SweepFailed{WorkerID: s.WorkerID, Err: fmt.Errorf("resetting the lock of queue %q, older than 4 hours: %w", name, err)})
		}
	})
	return reset, err
}
