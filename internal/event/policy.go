package event

import (
	"time"

	"github.com/gworker/gworker/internal/job"
)

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

// ErrorAfterCompletion: a run ended with an error although its job is done,
// because the handler, or the SQL task, had completed it in a transaction that
// committed. Nothing is left that the error could be stored with.
type ErrorAfterCompletion struct {
	WorkerID string
	Job      *job.Claimed
	Err      error
}

// BackoffPanicked: a task's Backoff panicked; the job waits as long as the
// formula says that all Graphile Workers share.
type BackoffPanicked struct {
	WorkerID string
	Job      *job.Claimed
	Value    any
	Stack    string
}

func (JobSnoozed) event()           {}
func (ErrorAfterCompletion) event() {}
func (BackoffPanicked) event()      {}
