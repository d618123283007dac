// Package event is the one stream of everything observable. The flow emits
// typed events; logs, hooks, metrics, subscriptions and tests consume them and
// nothing else. No component logs or counts on its own.
//
// Events are values, emitted on the goroutine where the thing happened and
// handed to every observer before the flow goes on. The one thing not to break:
// an observer cannot hurt the flow; a panic in one is caught and itself
// reported.
package event

import (
	"time"

	"github.com/gworker/gworker/internal/job"
)

// Event is any of the types of this package.
type Event interface{ event() }

// WorkerStarted: the worker begins to claim jobs.
type WorkerStarted struct {
	WorkerID    string
	Concurrency int
	Tasks       []string
	Schema      string
}

// WorkerStopping: the worker claims no further jobs and waits for those that
// run.
type WorkerStopping struct {
	WorkerID string
	Running  int
	Cause    error
}

// JobsAborted: the time for a graceful shutdown is over, and the contexts of
// the jobs that still run have ended.
type JobsAborted struct {
	WorkerID string
	Running  int
}

// WorkerStopped: everything is in order; Err is what Run returns.
type WorkerStopped struct {
	WorkerID string
	Err      error
}

// JobsClaimed: a claim took jobs. Asked is how many it could have taken.
type JobsClaimed struct {
	WorkerID string
	Count    int
	Asked    int
	Duration time.Duration
}

// ClaimFailed: a claim ended with an error; the next try comes after RetryIn.
type ClaimFailed struct {
	WorkerID string
	Err      error
	RetryIn  time.Duration
}

// ClaimRefused: the database refuses the lock of a job: a constraint or a trigger is
// against it, or its texts cannot be read. Claims leave the job out for RetryIn, which
// grows up to a minute. Of Job are known: ID, Task, Queue, Priority, RunAt, Attempts,
// MaxAttempts, CreatedAt and UpdatedAt.
type ClaimRefused struct {
	WorkerID string
	Job      *job.Claimed
	// Err is the database's answer.
	Err     error
	RetryIn time.Duration
}

// JobsAdopted: a claim whose answer was lost turned out to have taken effect,
// and its jobs run after all.
type JobsAdopted struct {
	WorkerID string
	Count    int
}

// JobStarted: the handler is about to be called.
type JobStarted struct {
	WorkerID string
	Job      *job.Claimed
}

// JobEnded: the handler returned. Its outcome is not written yet.
type JobEnded struct {
	WorkerID string
	Job      *job.Claimed
	Outcome  job.Outcome
	Duration time.Duration
}

// JobCompleted: the job is done and its row deleted.
type JobCompleted struct {
	WorkerID string
	Job      *job.Claimed
	Duration time.Duration
}

// JobFailed: the attempt failed, its error is stored, and the job runs again at
// NextRunAt.
type JobFailed struct {
	WorkerID  string
	Job       *job.Claimed
	Err       error
	NextRunAt time.Time
	Duration  time.Duration
}

// JobPermanentlyFailed: the last attempt failed; the row stays with its error.
type JobPermanentlyFailed struct {
	WorkerID string
	Job      *job.Claimed
	Err      error
	Duration time.Duration
}

// JobReturned: the run was cut off and the job is runnable again.
type JobReturned struct {
	WorkerID string
	Job      *job.Claimed
	Err      error
	Duration time.Duration
	// Retired says that the job was replaced or removed through its key while
	// it ran: it has no attempts left, and stays failed.
	Retired bool
}

// JobLost: when its outcome was to be written, the job was no longer locked by
// this run's claim, so nothing was written. Err is the run's own error, if any.
// Unsure says that an earlier try to write had an unknown end and may have been
// the one that ended the job.
type JobLost struct {
	WorkerID string
	Job      *job.Claimed
	Err      error
	Unsure   bool
}

// OutcomesDelayed: outcomes could not be written; they are kept and tried again
// after RetryIn.
type OutcomesDelayed struct {
	WorkerID string
	Count    int
	Err      error
	RetryIn  time.Duration
}

// OutcomeRefused: the database refused for good what a run's end was to be stored as: a
// constraint or a trigger is against it, or its encoding cannot hold the text in any
// form; or to unlock the job's queue. Stored is what was stored instead. Where that is a failed attempt or the lock
// alone, JobFailed or JobPermanentlyFailed follows.
type OutcomeRefused struct {
	WorkerID string
	Job      *job.Claimed
	// Err is the database's answer.
	Err    error
	Stored Stored
}

// Stored is what the database took in place of an outcome that it had refused.
type Stored string

const (
	// StoredFailure: a failed attempt, with the refusal as its text.
	StoredFailure Stored = "a failed attempt"
	// StoredUnlocked: the lock was given back, and the attempt counts.
	StoredUnlocked Stored = "nothing but that the job is unlocked"
	// StoredQueueFreed: the job stays locked, but its queue goes on. The outcome is
	// kept, and tried again until the worker ends.
	StoredQueueFreed Stored = "nothing but that the job's queue is unlocked"
	// StoredQueueKept: the outcome itself, as its own event tells. But the job's queue
	// stays locked, so that none of its jobs runs: a trigger or a constraint on the
	// queues table is against the unlocking, which is tried again until the worker ends.
	StoredQueueKept Stored = "the outcome, but the job's queue stays locked"
	// StoredNothing: the job stays as it is. If it is locked, the outcome is kept, and
	// tried again until the worker ends; if it was only held, it is free and runs again.
	StoredNothing Stored = "nothing"
)

// OutcomesAbandoned: the worker ended before outcomes could be written. Their
// jobs stay locked until recovery frees them, and then run again.
type OutcomesAbandoned struct {
	WorkerID string
	JobIDs   []int64
	Err      error
}

// TaskOutput: a task that runs as a process of its own wrote a line.
type TaskOutput struct {
	WorkerID string
	Job      *job.Claimed
	Line     string
	// IsError is true for a line on the process's standard error.
	IsError bool
}

// ListenerConnected: notifications arrive from now on; earlier ones may be
// missed.
type ListenerConnected struct{ WorkerID string }

// ListenerLost: notifications do not arrive; polling goes on.
type ListenerLost struct {
	WorkerID string
	Err      error
	RetryIn  time.Duration
}

// DatabaseUnreachable: the database cannot be reached at start; the next try
// comes after RetryIn.
type DatabaseUnreachable struct {
	Err     error
	RetryIn time.Duration
}

// RevisionApplied: a migration ran.
type RevisionApplied struct {
	Schema   string
	Revision int
	Breaking bool
}

// SchemaWarning: something about the schema is worth a person's look.
type SchemaWarning struct {
	Schema  string
	Message string
}

// BreakingMigration: another process applied a breaking revision to this
// worker's schema; the worker stops.
type BreakingMigration struct {
	WorkerID string
	Schema   string
	Revision int
}

// ObserverPanicked: an observer, a log, or another hook, panicked or ended its goroutine
// (runtime.Goexit). On is the event that it was told; nil if it was none.
type ObserverPanicked struct {
	Value any
	Stack string
	On    Event
}

// HeartbeatFailed: the worker could not say that it lives; the next try comes
// after RetryIn.
type HeartbeatFailed struct {
	WorkerID string
	Err      error
	RetryIn  time.Duration
}

// WorkerDeclaredDead: the worker's registration is gone, so somebody has taken
// it for dead. It registers again, and looks which of its jobs it has lost.
type WorkerDeclaredDead struct{ WorkerID string }

// LocksLost: jobs that run here are no longer locked by this worker. Their
// contexts have ended, and their rows are left alone.
type LocksLost struct {
	WorkerID string
	JobIDs   []int64
}

// WorkerRecovered: a dead worker's jobs are back in the queue.
type WorkerRecovered struct {
	WorkerID string // who swept
	Dead     string // the dead worker
	Silence  time.Duration
	JobIDs   []int64
	// GivenUp are jobs that stay failed: they have been started MaxAttempts
	// times, have no key and no attempt left, or were cancelled.
	GivenUp []int64
	// Skipped are jobs that are left with the dead worker for now.
	Skipped []int64
	// Refused are jobs that the database does not let go from the dead worker;
	// SweepFailed has its answers. The next sweep tries again.
	Refused []int64
}

// SweepFailed: a look for dead workers or old locks ended with an error, or the
// database refused to have a single job's lock taken away; the next one comes at its
// time.
type SweepFailed struct {
	WorkerID string
	// JobID, if not 0, is the job that stays locked: a constraint or a trigger is
	// against the change of its row. The others were seen to. At most 100 such jobs
	// are told of each time; then what is left waits for the next.
	JobID int64
	Err   error
}

// OldLocksReset: locks older than 4 hours were looked for, and taken away from
// these jobs and queues, if any.
type OldLocksReset struct {
	WorkerID string
	JobIDs   []int64
	Queues   []string
}

func (HeartbeatFailed) event()      {}
func (WorkerDeclaredDead) event()   {}
func (LocksLost) event()            {}
func (WorkerRecovered) event()      {}
func (SweepFailed) event()          {}
func (OldLocksReset) event()        {}
func (WorkerStarted) event()        {}
func (WorkerStopping) event()       {}
func (JobsAborted) event()          {}
func (WorkerStopped) event()        {}
func (JobsClaimed) event()          {}
func (ClaimFailed) event()          {}
func (ClaimRefused) event()         {}
func (JobsAdopted) event()          {}
func (JobStarted) event()           {}
func (JobEnded) event()             {}
func (JobCompleted) event()         {}
func (JobFailed) event()            {}
func (JobPermanentlyFailed) event() {}
func (JobReturned) event()          {}
func (JobLost) event()              {}
func (OutcomesDelayed) event()      {}
func (OutcomeRefused) event()       {}
func (OutcomesAbandoned) event()    {}
func (TaskOutput) event()           {}
func (ListenerConnected) event()    {}
func (ListenerLost) event()         {}
func (DatabaseUnreachable) event()  {}
func (RevisionApplied) event()      {}
func (SchemaWarning) event()        {}
func (BreakingMigration) event()    {}
func (ObserverPanicked) event()     {}
