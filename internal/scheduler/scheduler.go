// Package scheduler claims jobs, runs them in a bounded pool and writes their
// outcomes. It is the way of a job, in seven files to read in this order:
//
//	scheduler.go  the loop: when to claim, and how much
//	claim.go      one statement takes as many jobs as there are free slots
//	rows.go       what comes back from it
//	dispatch.go   from claimed to started
//	pool.go       the slots, a goroutine each
//	run.go        one run of one job
//	release.go    outcomes, grouped while the last group is being written
//
// Where nothing stands against it, jobs that are known to be short take another way
// from the first step to the last, on which nothing is written about them before
// their end:
//
//	hold.go       held claims: jobs that an open transaction keeps from others
//	lane.go       a connection on which they follow one another
//	group.go      one of them
//	endgroup.go   what its end writes, and what is done where that is lost
//	hurry.go      how one ends early for somebody who waits for its row
//
// and beside both:
//
//	estimate.go   how long jobs take
//	ahead.go      how many more jobs than slots a claim takes where they are short
//	overlap.go    claims that are under way while the loop goes on
//	survey.go     where claims begin if much lies ahead that cannot run
//	depth.go      how far they look for jobs of named queues
//	lookout.go    when they come again for jobs that somebody else had in his hands
//	prefetch.go   the local queue, which claims ahead as far as it is told to
//	limits.go     tasks that may have only so many jobs here at once
//	flags.go      which jobs are left alone
//	clock.go      times that are not the database's
//	shutdown.go   the end
//
// Wake-ups and handlers come in; statements and events go out. Without a local
// queue a claim takes what the free slots can start at once, and more only where
// jobs are known to be over within milliseconds, so nothing is locked for long that
// does not run. Polling covers whatever the wake-ups miss.
//
// The one thing not to break: between the claim's commit and the commit of its
// outcome, every job is in exactly one of local queue, pool and releaser, or in the
// group of a held claim. A claim is therefore never cut off by a context that ends,
// an answer that got lost is asked for again, and an outcome is kept until the
// database has it.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
)

// Handler runs one job and says how it ended. It is called on a pool goroutine;
// ctx ends when the worker can wait for it no longer.
type Handler func(ctx context.Context, j *job.Claimed) job.Outcome

// Config has no defaults: the caller has validated it.
type Config struct {
	// Database runs the texts of dbgen.
	Database dbgen.DBTX
	WorkerID string
	Handlers map[string]Handler
	// Policies are those of tasks that have one.
	Policies map[string]Policy
	// Concurrency is the number of slots.
	Concurrency int
	// PollInterval is the longest time between two claims while a slot is free.
	PollInterval time.Duration
	// StatementTimeout is the bound under which Database runs each statement.
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
	// Hold is how jobs are held while they run only shortly.
	Hold Hold

	Events *event.Stream
}

func (c Config) queries() *dbgen.Queries { return dbgen.New(c.Database) }

// ErrShutdown is the cause of a job context that ends because the worker has
// waited for the job as long as it may.
var ErrShutdown = errors.New("the worker shuts down")

// Scheduler runs jobs until it is told to stop. It is used once.
type Scheduler struct {
	config    Config
	claims    *claimer
	local     *localQueue
	ahead     ahead
	overlap   overlap
	limits    *limits
	estimates *estimates
	holds     *holds // nil: nothing is held
	pool      *pool
	release   *releaser
	wake      chan struct{}

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
	s.estimates = newEstimates(c)
	if s.holds = newHolds(c, s); s.holds == nil {
		s.ahead = newAhead(c)
	}
	s.overlap = newOverlap(c, s.ahead)
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
	s.holds.kick()
	s.Wake()
}

// Running lists the jobs that run now, or wait in the local queue, in no order.
func (s *Scheduler) Running() []*job.Claimed { return append(s.local.claimed(), s.pool.claimed()...) }

// Held lists those of the jobs that run, or wait for a slot, about which nothing
// is written: an open transaction keeps them from others.
func (s *Scheduler) Held() []*job.Claimed { return s.pool.held() }

// Locked lists those of Running whose locks are written.
func (s *Scheduler) Locked() []*job.Claimed { return append(s.local.claimed(), s.pool.locked()...) }

// Write has the lock of a job written that is held, if it is, and returns when it
// is: for those that are to use its row in another transaction. Jobs of its task
// are not held any more.
func (s *Scheduler) Write(ctx context.Context, j *job.Claimed) (held bool, err error) {
	over := s.pool.want(j)
	if over == nil {
		return false, nil
	}
	s.estimates.neverHold(j.Task)
	select {
	case <-over:
		return true, nil
	case <-ctx.Done():
		return true, fmt.Errorf("waiting until the lock of job %d is written: %w", j.ID, context.Cause(ctx))
	}
}

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

// Run claims and runs jobs until ctx ends; then it lets the running jobs
// finish, ends their contexts after the abort time-out, writes all outcomes and
// returns nil.
func (s *Scheduler) Run(ctx context.Context) error { return s.run(ctx, false) }

// RunOnce is Run, but returns as soon as nothing is runnable and nothing runs.
// It returns an error if the database refuses a claim, or fails several in a
// row.
func (s *Scheduler) RunOnce(ctx context.Context) error { return s.run(ctx, true) }

func (s *Scheduler) run(ctx context.Context, once bool) error {
	s.release.start(ctx)
	s.pool.start(context.WithoutCancel(ctx))
	s.holds.start(ctx)

	err := s.loop(ctx, once)
	s.shutDown(ctx)
	return err
}

// loop decides when to claim. more is true while there may be runnable jobs
// that nobody has told us of.
func (s *Scheduler) loop(ctx context.Context, once bool) error {
	poll := time.NewTimer(s.config.PollInterval)
	defer poll.Stop()
	s.local.begin(once)
	p := newPausing()
	defer p.timer.Stop()
	// polled says that nobody has told us of jobs at all: then a claim that writes
	// nothing if it finds nothing is one statement.
	more, polled := true, false
	for ctx.Err() == nil {
		err := s.startWaiting(ctx)
		more = more || s.limitOpened()
		if s.holds != nil {
			// Two claims at once may each have missed that the other found nothing.
			more = more || once && s.holds.lookout.next.IsZero() && s.idle()
			more = s.holds.tend(ctx, more && !polled && !p.paused, once && s.idle()) || more && (polled || p.paused)
		}
		ask := 0
		if err == nil && !p.paused && s.holds.trusted() && (polled || !s.holds.prefers()) {
			ask = s.ask(more)
		}
		beside, wait := s.overlaps(ask)
		switch {
		case ask == 0 || wait:
		case beside && !once:
			if more, err = s.claimBeside(ctx, ask); err == nil {
				polled = false
				continue
			}
		default:
			quiet := once && s.idle()
			var took taken
			if took, err = s.claim(ctx, ask); err == nil {
				if p.ok() {
					s.release.kick()
				}
				if quiet && took.count == 0 {
					if s.claims.survey.partial() {
						s.claims.survey.forget() // nothing is to run anywhere, not only from there on
						continue
					}
					return nil
				}
				more, polled = took.more, false
				poll.Reset(s.claims.recheck(s.config.PollInterval))
				continue
			}
		}
		if err != nil && !p.paused {
			if err := s.failed(ctx, once, err, p); err != nil {
				return err
			}
		}
		if once && s.pool.running() == 0 {
			s.release.flush() // nothing is left whose company is worth a wait
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
			more, polled, p.paused = true, false, false
			if s.holds != nil {
				s.holds.woken++
			}
			s.overlap.woken++
			s.local.heard()
		case <-poll.C:
			polled = s.holds != nil && s.pool.running() == 0
			more = true
			poll.Reset(s.config.PollInterval)
		case <-p.timer.C:
			p.paused = false
		case <-s.pool.freed:
		case <-s.pool.attention:
		case <-s.holds.due():
		case a := <-s.holds.heard():
			more = s.holds.answered(a, more) || once && a.end != nil
			switch {
			case a.claim == 0:
			case a.err != nil:
				if err := s.failed(ctx, once, a.err, p); err != nil {
					return err
				}
			case a.quiet && a.count == 0 && !a.from.used() && !s.claims.survey.partial() && s.idle():
				// Idle still: no other claim of this worker has taken what this one looked
				// for. What others hold is theirs to run.
				return nil
			default:
				if p.ok() {
					s.release.kick()
				}
				if a.quiet && a.count == 0 {
					s.claims.survey.forget() // nothing is to run anywhere, not only from there on
					more = true
				}
				poll.Reset(s.claims.survey.recheck(s.config.PollInterval))
			}
		case a := <-s.overlap.answers:
			took, err := s.overlapEnded(ctx, a, more)
			more = took.more
			if err != nil {
				more = true
				if err := s.failed(ctx, once, err, p); err != nil {
					return err
				}
				break
			}
			if p.ok() {
				s.release.kick()
			}
			poll.Reset(s.claims.recheck(s.config.PollInterval))
		case <-s.release.wrote:
		case <-s.release.emptied:
			// The last outcome may have made a job of its queue runnable.
			more = more || once
		case <-s.ahead.over():
			s.returnOverdue()
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
	return s.local.len() == 0 && s.pool.running() == 0 && s.release.pending() == 0 && s.holds.idle()
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
	if s.config.Events.WantsFrequent() {
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
	s.start(jobs, forbidden)
	if err != nil {
		return taken{}, err
	}
	count := len(adopted) + len(jobs)
	s.tellClaimed(count, ask, time.Since(began))
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
	known := append(s.Running(), s.Held()...)
	return append(known, s.release.claimed()...)
}
