// Package job holds the values that travel along the way of a job: the row as
// stored, the claim's lock on it, and the outcome of one run. Every other room
// imports this one and it imports none of them; it holds no SQL and no loops.
//
// The one thing not to break: a Lock names one claim and no other. Everything
// that ends a run proves with it that the row is still the one that was
// claimed.
package job

import (
	"encoding/json"
	"time"
)

// Row is a job as it stands in the database.
type Row struct {
	// ID identifies the job for as long as its row exists.
	ID int64
	// Task is the identifier of the task that runs the job.
	Task string
	// Queue is the named queue in which jobs run one after another, or "".
	Queue string
	// Payload is the job's argument, a JSON text exactly as stored.
	Payload json.RawMessage
	// Priority orders runnable jobs; lower numbers run first.
	Priority int
	// RunAt is the time before which the job does not run.
	RunAt time.Time
	// Attempts counts the runs started so far; while a job runs, the present
	// run is included.
	Attempts int
	// MaxAttempts is the number of runs after which a failing job stays failed.
	MaxAttempts int
	// LastError is the text of the last failure, or "".
	LastError string
	// CreatedAt is when the job was added.
	CreatedAt time.Time
	// UpdatedAt is when the row was last changed.
	UpdatedAt time.Time
	// Key is the job key that other adds can replace the job by, or "".
	Key string
	// Revision counts how often the job was replaced through its key.
	Revision int
	// Flags are the job's flags, sorted; nil if it has none.
	Flags []string
	// LockedAt is when a worker claimed the job; zero if none has.
	LockedAt time.Time
	// LockedBy is the id of the worker that claimed the job, or "".
	LockedBy string
}

// Lock is what a claim wrote on a row. It changes with every claim, also when
// the same worker claims the same job again, so "locked by me" alone is never
// taken as proof.
type Lock struct {
	By      string
	At      time.Time
	Attempt int
}

// Claimed is a job that this worker holds.
type Claimed struct {
	Row
	Lock Lock
}

// Kind says how a run ended.
type Kind uint8

const (
	// Completed: the handler returned nil; the row is to be deleted.
	Completed Kind = iota
	// Failed: the attempt is used up and the job retried or permanently failed.
	Failed
	// Returned: the job was cut off before it could end and goes back with its
	// attempt restored.
	Returned
	// Settled: the run has written its outcome itself, in its own transaction;
	// nothing is left to write.
	Settled
	// Lost: the run found that the lock is no longer its own; nothing may be
	// written.
	Lost
)

// Outcome is the end of one run.
type Outcome struct {
	Kind Kind
	// Err is the reason for every kind but Completed and Settled.
	Err error

	// Delay is how long the job waits before it can run again. Of a Failed run
	// nil means the backoff that all Graphile Workers share; of a Returned one
	// it means not at all.
	Delay *time.Duration
	// Permanent says of a Failed run that the job is not tried again, whatever
	// attempts it has left.
	Permanent bool
	// Payload, if not nil, replaces the stored payload of a Failed job: what is
	// left to do.
	Payload json.RawMessage
}

// Final reports whether a failure of this run is the job's last.
func (c *Claimed) Final() bool { return c.Attempts >= c.MaxAttempts }
