package gworker

import (
	"encoding/json"
	"log/slog"
	"time"

	"github.com/gworker/gworker/internal/job"
)

// JobRow is a job as it stands in the database. As JSON its fields have the names of the
// columns that the jobs view shows.
type JobRow struct {
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
	// Attempts counts the runs started so far. Within a handler the present run is
	// included.
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
}

// Added reports, of a row that an add has returned, whether the add made it. It is
// false where a job with the same key was there, which was then replaced or, with
// KeyUnsafeDedupe, kept.
func (r *JobRow) Added() bool { return r.Revision == 0 }

// jobRows are rows as the client returns them. Each is the same memory.
func jobRows(rows []*job.Row) []*JobRow {
	if rows == nil {
		return nil
	}
	public := make([]*JobRow, len(rows))
	for i, r := range rows {
		public[i] = (*JobRow)(r)
	}
	return public
}

// Job is a job as its handler gets it. T is the type of the payload. It must not be used
// after the handler has returned.
type Job[T any] struct {
	// JobRow is the row as it was when the job was claimed. Its own Payload
	// field, reachable as job.JobRow.Payload, is the stored JSON.
	JobRow

	// Payload is the decoded payload.
	Payload T `json:"payload"`

	env     *environment
	claimed *job.Claimed
	run     *run // of a RawJob that is on its way through middleware
}

// RawJob is a job whose payload is left as the JSON text that is stored.
type RawJob = Job[json.RawMessage]

// Logger returns the worker's logger, see Config.Logger, with the attributes job_id, task and
// attempt of this job. It is never nil; a job that was not made by a worker has
// slog.Default().
func (j *Job[T]) Logger() *slog.Logger {
	if j.env == nil {
		return slog.Default()
	}
	return j.env.jobLogger(j.claimed)
}

// Client returns a client on the worker's own database and schema, or nil if
// the job was not made by a worker.
func (j *Job[T]) Client() *Client {
	if j.env == nil {
		return nil
	}
	return j.env.client
}

// LastAttempt reports whether a failure of this run would be permanent, because
// the job, or TaskOptions.MaxAttempts, allows no further attempt.
func (j *Job[T]) LastAttempt() bool {
	limit := j.MaxAttempts
	if j.env != nil && j.env.maxAttempts > 0 {
		limit = min(limit, j.env.maxAttempts)
	}
	return j.Attempts >= limit
}
