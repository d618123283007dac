// Package scheduler claims jobs, runs them in a bounded pool and writes their
// outcomes. It is the way of a job, in six files to read in this order:
//
//	scheduler.go  the loop: when to claim, and how much
//	claim.go      one statement takes as many jobs as there are free slots
//	dispatch.go   from claimed to started
//	pool.go       the slots, a goroutine each
//	run.go        one run of one job
//	release.go    outcomes, grouped while the last group is being written
//
// and beside it, for those who ask for it:
//
//	prefetch.go   the local queue: jobs that are claimed ahead of the slots
//	limits.go     tasks that may have only so many jobs here at once
//	flags.go      which jobs are left alone
//	clock.go      times that are not the database's
//	survey.go     where claims begin if much lies ahead that cannot run
//
// Wake-ups and handlers come in; statements and events go out. Without a local
// queue a claim takes exactly what the free slots can start at once, so nothing
// is locked that does not run. Polling covers whatever the wake-ups miss.
//
// The one thing not to break: between the claim's commit and the commit of its
// outcome, every job is in exactly one of local queue, pool and releaser. A claim
// is therefore never cut off by a context that ends, an answer that got lost is
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
	// Policies are those of tasks that have one.
	Policies map[string]Policy
	// Concurrency is the number of slots.
	Concurrency int
	// PollInterval is the longest time between two claims while a slot is free.
	PollInterval time.Duration
	// StatementTimeout is the bound under which Queries runs each statement.
	StatementTimeout time.Duration
	// AbortTimeout is how long running jobs may go on after the context of Run
	// has ended.
	AbortTimeout time.Duration
	// ReturnDelay is how long jobs wait that the shutdown has cut off.
	ReturnDelay time.Duration
	// Now is the worker's own clock, by which statements compare times; nil
	// means the database's.
	Now func() time.Time
	// Flags say which jobs are left alone.
	Flags Flags
	// TaskLimits are how many jobs of a task may be here at once, for tasks that
	// have such a limit.
	TaskLimits map[string]int
	// LocalQueue is how far to claim ahead of the slots.
	LocalQueue LocalQueue
	// TrustLocks is how long the locks of jobs that wait in the local queue are
	// taken for granted. 0 means for ever.
	TrustLocks time.Duration
	// CompletionDelay and FailureDelay are how long outcomes wait for company.
	CompletionDelay, FailureDelay time.Duration

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
	local   *localQueue
	limits  *limits
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
	s.pool = newPool(c, s.ended)
	s.limits = newLimits(c.TaskLimits)
	s.local = newLocalQueue(c)
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

// Announce is Wake for jobs that were added. The number matters to the local
// queue only: so many of them end its refetch delay.
func (s *Scheduler) Announce(jobs int) {
	s.local.announced.Add(int64(jobs))
	s.Wake()
}

// DatabaseBack tells that the database answers again after a time when it did
// not: waits are cut short.
func (s *Scheduler) DatabaseBack() {
	s.release.kick()
	s.Wake()
}

// Running lists the jobs that run now, or wait in the local queue, in no order.
func (s *Scheduler) Running() []*job.Claimed { return append(s.local.claimed(), s.pool.claimed()...) }

// Lose ends the contexts of running jobs whose locks are gone, with a cause.
// Those in the local queue never start. Nothing is written about them any more.
func (s *Scheduler) Lose(jobs []*job.Claimed, cause error) {
	s.local.lose(jobs)
	s.pool.lose(jobs, cause)
	s.Wake() // the local queue may have run empty
}

// Cancel ends the context of a running job that somebody has cancelled, with the
// cause (see job.Cancelled). However its run ends then, the job stays failed; one
// that waits in the local queue does not start. It does nothing where the run has
// ended, or its context has.
func (s *Scheduler) Cancel(j *job.Claimed, cause error) {
	if s.local.drop(j, func() { s.giveUp(j, cause) }) {
		s.Wake() // the local queue may have run empty
		return
	}
	s.pool.cancel(j, cause)
}

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
	s.local.begin(once)
	more, failures := true, 0
	for ctx.Err() == nil {
		err := s.startWaiting(ctx)
		more = more || s.limitOpened()
		ask := 0
		if err == nil {
			ask = s.local.ask(more, s.pool.free())
		}
		if ask > 0 {
			quiet := once && s.idle()
			var took taken
			if took, err = s.claim(ctx, ask); err == nil {
				if failures > 0 {
					failures = 0
					s.release.kick()
				}
				if quiet && took.count == 0 {
					if s.claims.survey.place.used() {
						s.claims.survey.forget() // nothing is to run anywhere, not only from there on
						continue
					}
					return nil
				}
				more = took.more
				poll.Reset(s.claims.survey.recheck(s.config.PollInterval))
				continue
			}
		}
		if err != nil {
			failures++
			if once && ctx.Err() == nil && (retry.Of(err) == retry.No || failures >= onceTries) {
				return err
			}
			s.waitAfter(ctx, err, failures)
			continue
		}
		if once && s.pool.running() == 0 {
			s.release.flush() // nothing is left whose company is worth a wait
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
			more = true
			s.local.heard()
		case <-poll.C:
			more = true
			poll.Reset(s.config.PollInterval)
		case <-s.pool.freed:
		case <-s.release.emptied:
			// The last outcome may have made a job of its queue runnable.
			more = more || once
		case <-s.local.expired():
			s.local.expire(s.giveBack)
		case <-s.local.refetch():
			s.local.delayOver()
		}
	}
	return nil
}

// idle reports whether no job is anywhere in this worker.
func (s *Scheduler) idle() bool {
	return s.local.len() == 0 && s.pool.running() == 0 && s.release.pending() == 0
}

// limitOpened reports whether a task that was at its limit may have more jobs.
func (s *Scheduler) limitOpened() bool {
	return !s.limits.none() && s.limits.opened(s.local.perTask())
}

type taken struct {
	count int
	more  bool
}

// claim takes up to ask jobs and starts them, as far as slots are free.
func (s *Scheduler) claim(ctx context.Context, ask int) (taken, error) {
	began := time.Now()
	frequent := s.config.Events.WantsFrequent()
	if frequent {
		s.config.Events.Emit(event.ClaimStarted{WorkerID: s.config.WorkerID, Asked: ask})
	}
	adopted, err := s.claims.adopt(context.WithoutCancel(ctx), s.known)
	if err != nil {
		return taken{}, err
	}
	s.local.put(adopted)
	forbidden, err := s.config.Flags.forbidden(ctx, s.config.StatementTimeout)
	if err != nil {
		return taken{}, err
	}
	jobs, more := []*job.Claimed(nil), true
	if rest := ask - len(adopted); rest > 0 {
		jobs, more, err = s.claims.claim(context.WithoutCancel(ctx), rest, s.selection(forbidden))
	}
	s.local.put(jobs)
	s.limits.claimed(jobs)
	s.dispatch(forbidden)
	if err != nil {
		return taken{}, err
	}
	count := len(adopted) + len(jobs)
	if count > 0 {
		s.config.Events.Emit(event.JobsClaimed{
			WorkerID: s.config.WorkerID, Count: count, Asked: ask, Duration: time.Since(began),
		})
	} else if frequent {
		s.config.Events.Emit(event.ClaimEmpty{WorkerID: s.config.WorkerID, Asked: ask, Duration: time.Since(began)})
	}
	s.local.fetched(count, ask)
	return taken{count: count, more: more}, nil
}

// selection is what a claim may take now.
func (s *Scheduler) selection(forbidden []string) selection {
	c := selection{tasks: s.claims.tasks, forbidden: forbidden}
	if !s.limits.none() {
		c.tasks = s.claims.unlimited
		c.limited, c.rooms = s.limits.rooms(s.local.perTask())
	}
	return c
}

// known lists the jobs of this worker. A job moves from the local queue to the
// pool to the releaser and never back, so none is missed in between.
func (s *Scheduler) known() []*job.Claimed {
	return append(s.Running(), s.release.claimed()...)
}

// waitAfter waits before the next claim, as long as the error asks for, unless
// something happens that makes a try worthwhile.
func (s *Scheduler) waitAfter(ctx context.Context, err error, failures int) {
	waits := retry.Backoff(retry.Of(err))
	wait := waits.NextBackOff()
	for range min(failures, 20) - 1 {
		wait = waits.NextBackOff()
	}
	wait = min(wait, max(s.config.PollInterval, 0), maxClaimWait)
	if ctx.Err() != nil {
		return
	}
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
	began := time.Now()
	s.config.Events.Emit(event.WorkerStopping{
		WorkerID: s.config.WorkerID, Running: s.pool.running(), Cause: context.Cause(ctx),
	})
	s.local.close(s.giveBack)
	s.release.hurry()
	drained := s.pool.close()
	timer := time.NewTimer(s.config.AbortTimeout)
	defer timer.Stop()
	select {
	case <-drained:
	case <-s.forced:
	case <-timer.C:
		running := s.pool.claimed()
		abort(ErrShutdown)
		s.config.Events.Emit(event.JobsAborted{WorkerID: s.config.WorkerID, Running: len(running)})
		s.pool.interrupted(running, ErrShutdown)
		select {
		case <-drained:
		case <-s.forced:
		}
	}
	forced := false
	select {
	case <-drained:
	default:
		forced = true
		abort(ErrShutdown)
		s.pool.abandon()
	}
	s.release.close(s.forced)
	s.config.Events.Emit(event.ShutdownComplete{
		WorkerID: s.config.WorkerID, Forced: forced, Duration: time.Since(began),
	})
}
