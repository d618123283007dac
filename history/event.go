package history

import (
	"encoding/json"
	"time"
)

// Kind says what happened.
type Kind string

// The kinds of events about runs.
const (
	// Failed: the run failed, and the job is tried again.
	Failed Kind = "failed"
	// TimedOut: the run took longer than TaskOptions.Timeout, and the job is tried again.
	TimedOut Kind = "timed_out"
	// PermanentlyFailed: the run failed, and the job is not tried again.
	PermanentlyFailed Kind = "permanently_failed"
	// Cancelled: the job was cancelled while it ran, and stays failed.
	Cancelled Kind = "cancelled"
	// Snoozed: the handler has put the job off.
	Snoozed Kind = "snoozed"
	// Lost: the run's worker had lost the job when the run ended, so that its end was not
	// stored.
	Lost Kind = "lost"
	// Recovered: the job's worker was found dead, and the job put back.
	Recovered Kind = "recovered"
)

// The kinds of events about what administrators did. Details says who and how many.
const (
	ActionRetry      Kind = "retry"        // failed jobs run again
	ActionCancel     Kind = "cancel"       // jobs were cancelled
	ActionReschedule Kind = "reschedule"   // times, priorities or attempts were changed
	ActionComplete   Kind = "complete"     // jobs were deleted as if done
	ActionFail       Kind = "fail"         // jobs were failed for good
	ActionUnlock     Kind = "force_unlock" // locks of workers were taken away
	ActionCleanup    Kind = "cleanup"      // what nobody needs any longer was deleted
)

// Kinds are all kinds.
var Kinds = []Kind{
	Failed, TimedOut, PermanentlyFailed, Cancelled, Snoozed, Lost, Recovered,
	ActionRetry, ActionCancel, ActionReschedule, ActionComplete, ActionFail, ActionUnlock, ActionCleanup,
}

// Event is something that happened to a job, or that an administrator did.
type Event struct {
	// At is when it was recorded, by the database's clock.
	At time.Time `json:"at"`
	// Kind says what happened.
	Kind Kind `json:"kind"`
	// JobID is the job's id, 0 for an event that is about several jobs or none.
	JobID int64 `json:"job_id,omitempty"`
	// JobIDs are the jobs of an event that is about several, the first 1,000 of them.
	JobIDs []int64 `json:"job_ids,omitempty"`
	// Task is the identifier of the job's task, or "".
	Task string `json:"task_identifier,omitempty"`
	// Queue is the job's named queue, or "".
	Queue string `json:"queue_name,omitempty"`
	// Key is the job's key, or "".
	Key string `json:"key,omitempty"`
	// Attempt is the number of the run, from 1; 0 if the event is about none.
	Attempt int `json:"attempt,omitempty"`
	// MaxAttempts is how many runs the job may have.
	MaxAttempts int `json:"max_attempts,omitempty"`
	// WorkerID is the id of the worker whose run it was, or "".
	WorkerID string `json:"worker_id,omitempty"`
	// Waited is how long the job could have run before the run began, and Ran how long
	// the run took. Both are 0 for an event about no run.
	Waited time.Duration `json:"waited_ns,omitempty"`
	Ran    time.Duration `json:"ran_ns,omitempty"` // see Waited
	// Error is the run's error, 8 KiB of it at most, or another reason.
	Error string `json:"error,omitempty"`
	// NextRunAt is when the job was to run again; the zero time if it was not.
	NextRunAt time.Time `json:"next_run_at,omitzero"`
	// Details is a JSON object with the rest, or nil.
	Details json.RawMessage `json:"details,omitempty"`
}

// Filter chooses events. The zero value chooses all; all conditions that are given must
// hold.
type Filter struct {
	// Since and Until bound At: from Since on, and before Until. The zero time is no bound.
	Since time.Time
	Until time.Time // see Since
	// Kinds and Tasks are those that events may have.
	Kinds []Kind
	Tasks []string // see Kinds
	// Queue and Key are the job's, and WorkerID is the worker whose run it was.
	Queue    string
	Key      string // see Queue
	WorkerID string // see Queue
	// Error is a part of the error, in letters of either case.
	Error string
	// Limit is how many events a page has at most, 1 to 1000. 0 means 100.
	Limit int
	// Cursor is the NextCursor of the previous page, with the same conditions. "" means
	// the first page.
	Cursor string
}

// Page is a page of events, the latest first.
type Page struct {
	// Events are the events.
	Events []Event `json:"events"`
	// NextCursor asks for the next page; it is "" on the last one.
	NextCursor string `json:"next_cursor,omitempty"`
}
