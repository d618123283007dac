package event

import (
	"log/slog"
	"time"

	"github.com/gworker/gworker/internal/logattr"
)

// OutcomesDelayed reports that the outcomes of runs could not be stored. They are kept and
// tried again. Logged at error.
type OutcomesDelayed struct {
	WorkerID string        // the worker's id
	Count    int           // the runs whose outcomes are kept
	Err      error         // why they could not be stored
	RetryIn  time.Duration // when they are tried again
}

func (OutcomesDelayed) level() slog.Level { return slog.LevelError }
func (e OutcomesDelayed) line() (string, []slog.Attr) {
	return "outcomes could not be stored; kept, trying again", []slog.Attr{slog.Int("jobs", e.Count), errAttr(e.Err), retryIn(e.RetryIn)}
}

// OutcomeRefused reports that the database refuses the outcome of a run for good, because a
// constraint or a trigger is against it, or because its encoding cannot hold the text in
// any form; or that it refuses to unlock the job's queue. If a failed attempt or the lock
// alone could be stored instead, JobFailed or JobPermanentlyFailed follows. Logged at error.
type OutcomeRefused struct {
	WorkerID string // the worker's id
	Job      *Job   // the job
	Err      error  // the database's answer
	Stored   Stored // what was stored instead
}

func (OutcomeRefused) level() slog.Level { return slog.LevelError }
func (e OutcomeRefused) line() (string, []slog.Attr) {
	return "the database refused to store how the run ended; look for a constraint or a trigger on the tables of jobs and queues",
		e.Job.attrs(slog.String("stored", string(e.Stored)), errAttr(e.Err))
}

// Stored is what the database took in place of an outcome that it had refused.
type Stored string

// What the database took in place of an outcome.
const (
	// StoredFailure: a failed attempt, with the refusal as its text.
	StoredFailure Stored = "a failed attempt"
	// StoredUnlocked: the job was unlocked, and the attempt counts.
	StoredUnlocked Stored = "nothing but that the job is unlocked"
	// StoredQueueFreed: the job stays locked, but its queue goes on. The outcome is
	// kept, and tried again until the worker ends.
	StoredQueueFreed Stored = "nothing but that the job's queue is unlocked"
	// StoredQueueKept: the outcome itself, which its own event reports. But the job's
	// queue stays locked, so that none of its jobs runs: a trigger or a constraint on the
	// queues table is against the unlocking, which is tried again until the worker ends.
	StoredQueueKept Stored = "the outcome, but the job's queue stays locked"
	// StoredNothing: the job stays as it is. If it is locked, the outcome is kept, and
	// tried again until the worker ends; if it was only held, it is free and runs again.
	StoredNothing Stored = "nothing"
)

// OutcomesAbandoned reports that the worker ended before outcomes could be stored. Their
// jobs stay locked until recovery unlocks them, and then run again. Logged at error.
type OutcomesAbandoned struct {
	WorkerID string  // the worker's id
	JobIDs   []int64 // the jobs that stay locked
	Err      error   // why the outcomes could not be stored
}

func (OutcomesAbandoned) level() slog.Level { return slog.LevelError }
func (e OutcomesAbandoned) line() (string, []slog.Attr) {
	return "outcomes could not be stored before the end; these jobs stay locked until recovery frees them",
		[]slog.Attr{logattr.List("job_ids", e.JobIDs), errAttr(e.Err)}
}
