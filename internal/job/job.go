// Package job holds the values that travel along the way of a job: the row as stored,
// the claim's lock on it, and the outcome of one run. Every other package of that way
// imports this one and it imports none of them; it has no SQL and no loops.
//
// The one thing not to break: a Lock identifies one claim and no other. Everything that
// ends a run uses it to prove that the row is still the one that was claimed.
package job

import (
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/gworker/gworker/gworkertype"
)

// Row is a job as it stands in the database. gworker.JobRow and event.Job are the same to
// users: a Row is converted to them, so that the compiler keeps the fields equal.
type Row struct {
	// ID identifies the job for as long as its row exists.
	ID int64 `json:"id"`
	// Task is the identifier of the task that runs the job.
	Task string `json:"task_identifier"`
	// Queue is the named queue in which jobs run one after another, or "".
	Queue string `json:"queue_name,omitempty"`
	// Payload is the job's argument, a JSON text exactly as stored.
	Payload json.RawMessage `json:"payload,omitempty"`
	// Priority orders runnable jobs; lower numbers run first.
	Priority int `json:"priority"`
	// RunAt is the time before which the job does not run.
	RunAt time.Time `json:"run_at"`
	// Attempts counts the runs started so far; while a job runs, the present
	// run is included.
	Attempts int `json:"attempts"`
	// MaxAttempts is the number of runs after which a failing job stays failed.
	MaxAttempts int `json:"max_attempts"`
	// LastError is the text of the last failure, or "".
	LastError string `json:"last_error,omitempty"`
	// CreatedAt is when the job was added.
	CreatedAt time.Time `json:"created_at"`
	// UpdatedAt is when the row was last changed.
	UpdatedAt time.Time `json:"updated_at"`
	// Key is the job key that other adds can replace the job by, or "".
	Key string `json:"key,omitempty"`
	// Revision counts how often the job was replaced through its key.
	Revision int `json:"revision"`
	// Flags are the job's flags, sorted; nil if it has none.
	Flags []string `json:"flags,omitempty"`
	// LockedAt is when a worker claimed the job; zero if none has.
	LockedAt time.Time `json:"locked_at,omitzero"`
	// LockedBy is the id of the worker that claimed the job, or "".
	LockedBy string `json:"locked_by,omitempty"`
	// Duplicate says that an add has added nothing, and this is the job that was added before
	// (see gworker.JobSpec.UniqueFor): nil on every other row. If that job is gone, or this role
	// may not see it, only ID and Task of the row are known.
	Duplicate *gworkertype.Duplicate `json:"duplicate,omitempty"`
}

// Lock is what a claim wrote on a row. It changes with every claim, also when
// the same worker claims the same job again, so "locked by me" alone is never
// taken as proof.
type Lock struct {
	By      string
	At      time.Time
	Attempt int
}

// Claimed is a job that this worker holds. It is made anew by every claim, and
// passed on by its address.
type Claimed struct {
	Row
	Lock Lock
	// Here is when the claim's answer was here, by this machine's clock.
	Here time.Time

	completion atomic.Int64
	queueKept  atomic.Bool
}

// Completing is the completion of a job that is just being written.
const Completing int64 = -1

// Completion is the id of the transaction in which the job's own handler has
// completed it, or 0 for none. Whether that transaction commits is for the
// database to say.
func (c *Claimed) Completion() int64 { return c.completion.Load() }

// SetCompletion notes such a transaction. It must be noted before it can commit.
func (c *Claimed) SetCompletion(transaction int64) { c.completion.Store(transaction) }

// QueueKept reports whether the completion has left the lock of the job's queue to the
// worker, which gives it back once the completion has taken effect.
func (c *Claimed) QueueKept() bool { return c.queueKept.Load() }

// KeepQueue notes that.
func (c *Claimed) KeepQueue() { c.queueKept.Store(true) }

// WithPayload is the job with another payload: what runs a part of it.
func (c *Claimed) WithPayload(payload json.RawMessage) *Claimed {
	other := &Claimed{Row: c.Row, Lock: c.Lock, Here: c.Here}
	other.Payload = payload
	return other
}

// Waited is how long the job could have run and did not, until then: from its time, or from
// when it was added, to the claim by the database's clock, and from then on by this
// machine's.
func (c *Claimed) Waited(began time.Time) time.Duration {
	since := c.RunAt
	if c.CreatedAt.After(since) {
		since = c.CreatedAt
	}
	if since.IsZero() {
		return max(0, began.Sub(c.Here))
	}
	return max(0, c.Lock.At.Sub(since)) + max(0, began.Sub(c.Here))
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
	// Snoozed: the handler wants to be called later; the job goes back with its
	// attempt restored.
	Snoozed
)

// Outcome is the end of one run.
type Outcome struct {
	Kind Kind
	// Err is the reason for every kind but Completed and Settled; of a Settled
	// run it is an error that came too late to be stored.
	Err error

	// Delay is how long the job waits before it can run again. Of a Failed run
	// nil means the backoff that all Graphile Workers share; of a Returned or
	// Snoozed one it means not at all.
	Delay *time.Duration
	// Permanent says of a Failed run that the job is not tried again, whatever
	// attempts it has left.
	Permanent bool
	// Capped says of a Permanent one that its task allows no more attempts than this
	// run's, however many the row does. It is what the row says then.
	Capped bool
	// Bare says of a Snoozed run that Err gives no reason: it is the wish and no more.
	Bare bool
	// Payload, if not nil, replaces the stored payload of a Failed, Returned or
	// Snoozed job: what is left to do.
	Payload json.RawMessage
}

// Final reports whether a failure of this run is the job's last.
func (c *Claimed) Final() bool { return c.Attempts >= c.MaxAttempts }
