package gworker

import (
	"encoding/json"
	"log/slog"

	"github.com/gworker/gworker/internal/job"
)

// JobRow is a job as it stands in the database. Within a handler its Attempts
// includes the present run.
type JobRow = job.Row

// Job is a job as its handler gets it. T is the type of the payload.
//
// A Job belongs to its handler's call; it must not be used after the handler
// has returned.
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

// Logger returns the worker's logger, see Config.Logger, with the attributes
// job_id, task and attempt of this job. It is never nil; a job that no worker made
// has slog.Default().
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
