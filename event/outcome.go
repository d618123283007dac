package event

import (
	"time"

	"github.com/gworker/gworker/internal/job"
)

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

func (OutcomesDelayed) event()   {}
func (OutcomeRefused) event()    {}
func (OutcomesAbandoned) event() {}
