// Package scheduler claims jobs, runs them in a bounded pool and writes their
// outcomes. It is the way of a job, in these files, to be read in this order:
//
//	scheduler.go       what the package offers
//	loop.go            when to claim; what else is due
//	demand.go          how much
//	claim.go           a claim, from its plan to its answer
//	claimer.go         what claims go by, and learn
//	locked.go          one statement takes as many jobs as there are free slots
//	rows.go            what comes back from it
//	answers.go         from claimed to waiting for a slot
//	pool.go            the slots, a goroutine each
//	order.go           what waits for a slot until better jobs are here
//	run.go             one run of one job
//	single.go          the same for a test, without a queue
//	completer          a package: outcomes become statements
//	refused_claim.go   jobs whose locks it refuses
//
// Where nothing stands against it, jobs that are known to be short take another way
// from the first step to the last, on which nothing is written about them before
// their end:
//
//	hold.go            held claims: jobs that an open transaction keeps from others
//	hold_loop.go       when they begin and end
//	claim_conn.go      a connection on which they follow one another
//	open_claim.go      one of them
//	claim_end.go       what its end writes
//	claim_lost.go      what is done where that is lost
//	access.go          how it gets its connection, and what is done without
//	release_early.go   how one ends early for a statement that waits for its row
//	refused_held.go    what is done where its end is refused
//	waits.go           what is done about handlers that wait for their own rows
//
// and used by both:
//
//	durations.go       how long jobs take
//	prefetch.go        locked jobs that wait for a slot
//	background.go      what the loop does not wait for
//	pausing.go         how claims wait after one that failed
//	scan.go            where claims begin if much lies before it that cannot run
//	distance.go        how much of a time is the way to the database and back
//	lookahead.go       how far they look for jobs of named queues
//	poll.go            what an idle worker asks before it claims
//	turn.go            when it looks where others look, too
//	localqueue.go      the local queue, which claims ahead as far as it is told to
//	waiting.go         jobs that go from there to a slot, or back
//	limits.go          tasks that may have only so many jobs here at once
//	flags.go           which jobs are left alone
//	clock.go           times that are not the database's
//	wake.go            how goroutines wake each other
//	shutdown.go        the end
//
// Wake-ups and handlers come in; statements and events go out. Without a local
// queue a claim takes what the free slots can start at once, and more only where
// jobs are known to be over within milliseconds, so nothing is locked for long that
// does not run. Polling covers whatever the wake-ups miss.
//
// The one thing not to break: between the claim's commit and the commit of its
// outcome, every job is in exactly one of local queue, pool and completer, or in an open
// claim. A claim is therefore never interrupted by a context that ends,
// an answer that got lost is asked for again, and an outcome is kept until the
// database has it.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/fleet"
	"github.com/gworker/gworker/internal/history"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler/completer"
	"github.com/gworker/gworker/internal/shutdown"
	"github.com/gworker/gworker/internal/statement"
)

// Handler runs one job and says how it ended. It is called on a pool goroutine;
// ctx ends when the worker can wait for it no longer.
type Handler func(ctx context.Context, j *job.Claimed) job.Outcome

// Config has no defaults: the caller has validated it.
type Config struct {
	// Database runs the texts of dbgen.
	Database statement.DB
	WorkerID string
	Handlers map[string]Handler
	// Policies are those of tasks that have one.
	Policies map[string]completer.Policy
	// Concurrency is the number of slots.
	Concurrency int
	// PollInterval is the longest time between two claims while a slot is free.
	PollInterval time.Duration
	// StatementTimeout is the bound under which Database runs each statement.
	StatementTimeout time.Duration
	// AbortTimeout is how long running jobs may go on after the context of Run
	// has ended.
	AbortTimeout time.Duration
	// GiveUpAfter is how long after that running jobs are waited for; then Run
	// returns without them, as after Force. 0 means as long as they take.
	GiveUpAfter time.Duration
	// ReturnDelay is how long jobs wait that the shutdown has interrupted.
	ReturnDelay time.Duration
	// Now is the worker's own clock, by which statements compare times; nil
	// means the database's.
	Now func() time.Time
	// Fleet is told what was found in a turn of this worker, see LookWithin; nil means
	// that it shares the looking with no other.
	Fleet *fleet.Fleet
	// Flags say which jobs are left alone.
	Flags Flags
	// TaskLimits are how many jobs of a task may be here at once, for tasks that
	// have such a limit.
	TaskLimits map[string]int
	// LocalQueue is how far to claim ahead of the slots.
	LocalQueue LocalQueue
	// TrustLocks is how long the locks of jobs that wait in the local queue are
	// taken for granted. 0 means without end.
	TrustLocks time.Duration
	// CompletionDelay and FailureDelay are how long outcomes linger.
	CompletionDelay, FailureDelay time.Duration
	// Hold is how jobs are held while they run only shortly.
	Hold Hold
	// History is told of the ends of jobs; nil records nothing.
	History *history.Recorder

	Events *eventstream.Stream
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
	limits    *limits
	durations *durations
	holds     *heldClaims // nil: nothing is held
	pool      *pool
	completer *completer.Completer
	wake      chan struct{}                       // there may be jobs
	nudges    chan struct{}                       // there may be something else to do
	turn      atomic.Pointer[time.Time]           // when to look, unless a claim begins before; nil for never
	askFirst  func(context.Context) (bool, error) // nil: polls are claims

	// These belong to the loop.
	lockedAim  aim
	overdueAt  time.Time // when jobs have waited for too long; zero: none waits
	background background

	deadline *shutdown.Deadline // of Run's end
	claiming context.Context    // of claims: they outlive the context of Run a little
	stopping sync.Once          // the beginning of the end is told

	forceOnce sync.Once
	forced    chan struct{}
}

// New makes a scheduler. Nothing starts before Run or RunOnce.
func New(c Config) *Scheduler {
	s := &Scheduler{
		config: c, wake: make(chan struct{}, 1), nudges: make(chan struct{}, 1), forced: make(chan struct{}),
		background: newBackground(),
	}
	s.completer = completer.New(completer.Config{
		Database: c.Database, WorkerID: c.WorkerID, Now: c.Now, Policies: c.Policies,
		CompletionDelay: c.CompletionDelay, FailureDelay: c.FailureDelay, History: c.History, Events: c.Events,
	}, s.Wake, s.nudge)
	s.limits = newLimits(c.TaskLimits)
	s.pool = newPool(c, s.limits, s.ended, s.nudge)
	s.local = newLocalQueue(c)
	s.claims = newClaimer(c)
	s.durations = newDurations(c)
	s.holds = newHeldClaims(c, s)
	s.lockedAim = lockedAim(c, s.holds)
	return s
}

// nudge has the loop take a step. It never blocks.
func (s *Scheduler) nudge() { wake(s.nudges) }

// Wake makes the scheduler claim as soon as a slot is free. It never blocks and
// may be called from any goroutine.
func (s *Scheduler) Wake() { wake(s.wake) }

// Announce is Wake for jobs that were added. The number matters to the local
// queue only: so many of them end its refetch delay.
func (s *Scheduler) Announce(jobs int) {
	s.local.announced.Add(int64(jobs))
	s.Wake()
}

// DatabaseBack tells that the database answers again after a time when it did
// not: waits are cut short.
func (s *Scheduler) DatabaseBack() {
	s.completer.Wake()
	s.holds.wake()
	s.Wake()
}

// Suspect tells that connections to the database may lead nowhere.
func (s *Scheduler) Suspect() { s.holds.checkConns() }

// Running lists the jobs that run now, or wait in the local queue, in no order.
func (s *Scheduler) Running() []*job.Claimed { return append(s.local.claimed(), s.pool.claimed()...) }

// Held lists those of the jobs that run, or wait for a slot, about which nothing
// is written: an open transaction keeps them from others.
func (s *Scheduler) Held() []*job.Claimed { return s.pool.held() }

// Locked lists those of Running whose locks are written.
func (s *Scheduler) Locked() []*job.Claimed { return append(s.local.claimed(), s.pool.locked()...) }

// Write has the lock of a job written that is held, if it is, and returns when it
// is: for those that are to use its row in another transaction. Jobs of its task
// are no longer held.
func (s *Scheduler) Write(ctx context.Context, j *job.Claimed) (held bool, err error) {
	over := s.pool.want(j)
	if over == nil {
		return false, nil
	}
	s.durations.neverHold(j.Task)
	select {
	case <-over:
		return true, nil
	case <-ctx.Done():
		return true, fmt.Errorf("waiting until the lock of job %d is written: %w", j.ID, context.Cause(ctx))
	}
}

// Lose ends the contexts of running jobs whose locks are gone, with a cause.
// Those in the local queue never start. Nothing more is written about them.
func (s *Scheduler) Lose(jobs []*job.Claimed, cause error) {
	s.local.lose(jobs)
	s.pool.lose(jobs, cause)
	s.Wake() // the local queue may have run empty
}

// Cancel ends the context of a running job that was cancelled, with the
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

// ended is told by the pool that a run is over.
func (s *Scheduler) ended(a *active, e completer.Result) {
	if a.started && !e.Unstarted {
		if t := s.durations.ran(e.Job.Task, e.Duration); t != nil {
			t.waits.ended(a, e, s.holds)
		}
	}
	if a.claim != nil && a.claim.end(a, e) {
		return
	}
	if a.returns {
		e = lockReturned(e)
	}
	s.completer.Add(e)
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
	if s.deadline == nil {
		s.deadline = shutdown.New(ctx, 0)
		defer s.deadline.Close()
	}
	s.deadline.Working()
	stop := s.beginAtEnd(ctx)
	defer stop()
	s.completer.Start(s.deadline.Context())
	s.pool.start(job.WithForced(context.WithoutCancel(ctx), s.forced))
	s.holds.start(s.deadline.Context(), s.claiming)

	err := s.loop(ctx, once)
	s.shutDown(ctx)
	return err
}
