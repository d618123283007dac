package event

import (
	"time"

	"github.com/gworker/gworker/internal/job"
)

// JobStarted: the handler is about to be called.
type JobStarted struct {
	WorkerID string
	Job      *job.Claimed
}

// TaskOutput: a task that runs as a process of its own wrote a line.
type TaskOutput struct {
	WorkerID string
	Job      *job.Claimed
	Line     string
	// IsError is true for a line on the process's standard error.
	IsError bool
}

// JobInterrupted: the context of a running job has ended, and Cause is why: the
// job was cancelled, it is no longer this worker's, or the worker shuts down and
// has waited as long as it may. The run's end comes when the handler returns.
type JobInterrupted struct {
	WorkerID string
	Job      *job.Claimed
	Cause    error
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

// JobSnoozed: the handler has put its job off, and the attempt does not count.
type JobSnoozed struct {
	WorkerID string
	Job      *job.Claimed
	// For is how long the job waits at least.
	For time.Duration
	// Err is what the handler returned: the wish, and what wraps it.
	Err      error
	Duration time.Duration
	// Retired says that the job was replaced or removed through its key while
	// it ran: it has no attempts left, and stays failed.
	Retired bool
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

// BackoffPanicked: a task's Backoff panicked; the job waits as long as the
// formula says that all Graphile Workers share.
type BackoffPanicked struct {
	WorkerID string
	Job      *job.Claimed
	Value    any
	Stack    string
}

// ErrorAfterCompletion: a run ended with an error although its job is done,
// because the handler, or the SQL task, had completed it in a transaction that
// committed. Nothing is left that the error could be stored with.
type ErrorAfterCompletion struct {
	WorkerID string
	Job      *job.Claimed
	Err      error
}

func (JobStarted) event()           {}
func (TaskOutput) event()           {}
func (JobInterrupted) event()       {}
func (JobEnded) event()             {}
func (JobCompleted) event()         {}
func (JobFailed) event()            {}
func (JobPermanentlyFailed) event() {}
func (JobSnoozed) event()           {}
func (JobReturned) event()          {}
func (JobLost) event()              {}
func (BackoffPanicked) event()      {}
func (ErrorAfterCompletion) event() {}
