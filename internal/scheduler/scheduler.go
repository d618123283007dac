// Package scheduler claims jobs, runs them in a bounded pool and writes their
// outcomes. It is the way of a job, in five files to read in this order:
//
//	scheduler.go  the loop: when to claim, and how much
//	claim.go      one statement takes as many jobs as there are free slots
//	pool.go       the slots, a goroutine each
//	run.go        one run of one job
//	release.go    outcomes, grouped while the last group is being written
//
// Wake-ups and handlers come in; statements and events go out. A claim takes
// exactly what the free slots can start at once, so nothing is locked that does
// not run. Polling covers whatever the wake-ups miss.
//
// The one thing not to break: between the claim's commit and the commit of its
// outcome, every job is in exactly one of pool and releaser. A claim is
// therefore never cut off by a context that ends, an answer that got lost is
// asked for again, and an outcome is kept until the database has it.
package scheduler

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// Handler runs one job and says how it ended. It is called on a pool goroutine;
// ctx ends when the worker can wait for it no longer.
type Handler func(ctx context.Context, j *job.Claimed) job.Outcome

// Config has no defaults: the caller has validated it.
type Config struct {
	Queries  *dbgen.Queries
	WorkerID string
	Handlers map[string]Handler
	// Concurrency is the number of slots.
	Concurrency int
	// PollInterval is the longest time between two claims while a slot is free.
	PollInterval time.Duration
	// StatementTimeout is the bound under which Queries runs each statement.
	StatementTimeout time.Duration
	// AbortTimeout is how long running jobs may go on after the context of Run
	// has ended.
	AbortTimeout time.Duration
	// Now is the worker's own clock, by which statements compare times; nil
	// means the database's.
	Now    func() time.Time
	Events *event.Stream
}

// maxClaimWait bounds the wait after a failed claim: it is what a worker adds
// at most to the time that its database was away.
const maxClaimWait = 5 * time.Second

// onceTries is how often RunOnce lets the database fail before it gives up.
const onceTries = 3

// ErrShutdown is the cause of a job context that ends because the worker has
// waited for the job as long as it may.
var ErrShutdown = errors.New("the worker shuts down")

// Scheduler runs jobs until it is told to stop. It is used once.
type Scheduler struct {
	config  Config
	claims  *claimer
	pool    *pool
	release *releaser
	wake    chan struct{}

	forceOnce sync.Once
	forced    chan struct{}
}

// New makes a scheduler. Nothing starts before Run or RunOnce.
func New(c Config) *Scheduler {
	s := &Scheduler{config: c, wake: make(chan struct{}, 1), forced: make(chan struct{})}
	s.release = newReleaser(c, s.Wake)
	s.pool = newPool(c, s.release.add)
	s.claims = newClaimer(c)
	return s
}

// Wake makes the scheduler claim as soon as a slot is free. It never blocks and
// may be called from any goroutine.
func (s *Scheduler) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// DatabaseBack tells that the database answers again after a time when it did
// not: waits are cut short.
func (s *Scheduler) DatabaseBack() {
	s.release.kick()
	s.Wake()
}

// Running lists the jobs that run now, in no order.
func (s *Scheduler) Running() []*job.Claimed { return s.pool.claimed() }

// Lose ends the contexts of running jobs whose locks are gone, with a cause.
// Nothing is written about them any more.
func (s *Scheduler) Lose(jobs []*job.Claimed, cause error) { s.pool.lose(jobs, cause) }

// Force ends a shutdown that takes too long: Run returns without waiting for
// handlers, and the jobs that they run are returned to the queue. A handler
// that goes on all the same may then overlap with the job's next run.
func (s *Scheduler) Force() { s.forceOnce.Do(func() { close(s.forced) }) }

// Run claims and runs jobs until ctx ends; then it lets the running jobs
// finish, ends their contexts after the abort time-out, writes all outcomes and
// returns nil.
func (s *Scheduler) Run(ctx context.Context) error { return s.run(ctx, false) }

// RunOnce is Run, but returns as soon as nothing is runnable and nothing runs.
// It returns an error if the database refuses a claim, or fails several in a
// row.
func (s *Scheduler) RunOnce(ctx context.Context) error { return s.run(ctx, true) }

func (s *Scheduler) run(ctx context.Context, once bool) error {
	work, abort := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abort(nil)
	s.release.start(work)
	s.pool.start(work)

	err := s.loop(ctx, once)
	s.shutDown(ctx, abort)
	return err
}

// loop decides when to claim. more is true while there may be runnable jobs
// that nobody has told us of.
func (s *Scheduler) loop(ctx context.Context, once bool) error {
	poll := time.NewTimer(s.config.PollInterval)
	defer poll.Stop()
	more, failures := true, 0
	for ctx.Err() == nil {
		if free := s.pool.free(); more && free > 0 {
			quiet := once && s.idle()
			took, err := s.claim(ctx, free)
			if err != nil {
				failures++
				if once && (retry.Of(err) == retry.No || failures >= onceTries) {
					return err
				}
				s.waitAfter(ctx, err, failures)
				continue
			}
			if failures > 0 {
				failures = 0
				s.release.kick()
			}
			if quiet && took.count == 0 {
				return nil
			}
			more = took.more
			poll.Reset(s.config.PollInterval)
			continue
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
			more = true
		case <-poll.C:
			more = true
			poll.Reset(s.config.PollInterval)
		case <-s.pool.freed:
		case <-s.release.emptied:
			// The last outcome may have made a job of its queue runnable.
			more = more || once
		}
	}
	return nil
}

// idle reports whether no job is anywhere in this worker.
func (s *Scheduler) idle() bool { return s.pool.running() == 0 && s.release.pending() == 0 }

type taken struct {
	count int
	more  bool
}

// claim takes up to free jobs and starts them.
func (s *Scheduler) claim(ctx context.Context, free int) (taken, error) {
	began := time.Now()
	jobs, more, err := s.claims.claim(context.WithoutCancel(ctx), free, s.known)
	if err != nil {
		return taken{}, err
	}
	for _, j := range jobs {
		s.pool.run(j)
	}
	if len(jobs) > 0 {
		s.config.Events.Emit(event.JobsClaimed{
			WorkerID: s.config.WorkerID, Count: len(jobs), Asked: free, Duration: time.Since(began),
		})
	}
	return taken{count: len(jobs), more: more}, nil
}

// known lists the jobs of this worker. The pool is asked first: a job moves
// from there to the releaser and never back, so none is missed in between.
func (s *Scheduler) known() []int64 { return append(s.pool.ids(), s.release.ids()...) }

// waitAfter waits before the next claim, as long as the error asks for, unless
// something happens that makes a try worthwhile.
func (s *Scheduler) waitAfter(ctx context.Context, err error, failures int) {
	waits := retry.Backoff(retry.Of(err))
	wait := waits.NextBackOff()
	for range min(failures, 20) - 1 {
		wait = waits.NextBackOff()
	}
	wait = min(wait, max(s.config.PollInterval, 0), maxClaimWait)
	s.config.Events.Emit(event.ClaimFailed{WorkerID: s.config.WorkerID, Err: err, RetryIn: wait})
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-s.wake:
	}
}

// shutDown ends everything that run has started, in order.
func (s *Scheduler) shutDown(ctx context.Context, abort context.CancelCauseFunc) {
	s.config.Events.Emit(event.WorkerStopping{
		WorkerID: s.config.WorkerID, Running: s.pool.running(), Cause: context.Cause(ctx),
	})
	drained := s.pool.close()
	timer := time.NewTimer(s.config.AbortTimeout)
	defer timer.Stop()
	select {
	case <-drained:
	case <-s.forced:
	case <-timer.C:
		abort(ErrShutdown)
		s.config.Events.Emit(event.JobsAborted{WorkerID: s.config.WorkerID, Running: s.pool.running()})
		select {
		case <-drained:
		case <-s.forced:
		}
	}
	select {
	case <-drained:
	default:
		abort(ErrShutdown)
		s.pool.abandon()
	}
	s.release.close(s.forced)
}
