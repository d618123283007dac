package event

import (
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/gworker/gworker/gworkertype"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/logattr"
)

// Job is the job of an event: the row as it was when this worker claimed it. It has the
// fields of a gworker.JobRow, which it can be converted to: gworker.JobRow(*e.Job). All who
// get the event have the same Job, so it must not be changed.
type Job struct {
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
	// Attempts counts the runs started so far, this one included.
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
	// LockedAt is when this worker claimed the job.
	LockedAt time.Time `json:"locked_at,omitzero"`
	// LockedBy is the id of this worker.
	LockedBy string `json:"locked_by,omitempty"`
	// Duplicate is nil: it is for rows that an add returns (see gworker.JobSpec.UniqueFor).
	Duplicate *gworkertype.Duplicate `json:"duplicate,omitempty"`
}

// attrs are the attributes of a line about the job: those that name it, and more.
func (j *Job) attrs(more ...slog.Attr) []slog.Attr {
	if j == nil {
		return more
	}
	attrs := make([]slog.Attr, 0, 5+len(more))
	attrs = append(attrs, slog.Int64("job_id", j.ID), slog.String("task", j.Task),
		slog.Int("attempt", j.Attempts), slog.Int("max_attempts", j.MaxAttempts))
	if j.Queue != "" {
		attrs = append(attrs, slog.String("queue", j.Queue))
	}
	return append(attrs, more...)
}

// ended are the attributes of a line about the end of the job's run.
func (j *Job) ended(took time.Duration, err error, more ...slog.Attr) []slog.Attr {
	return append(j.attrs(durationAttr(took), errAttr(err), logattr.Stack(err)), more...)
}

// JobStarted reports that a job's handler is about to be called. Logged at debug.
type JobStarted struct {
	WorkerID string // the worker's id
	Job      *Job   // the job
}

func (JobStarted) level() slog.Level { return slog.LevelDebug }
func (e JobStarted) line() (string, []slog.Attr) {
	return "job started", e.Job.attrs()
}

// TaskOutput reports a line that a task that is an executable wrote. Logged at info, or at
// error if the line is on the standard error.
type TaskOutput struct {
	WorkerID string // the worker's id
	Job      *Job   // the job that the executable runs
	Line     string // the line, without its end
	IsError  bool   // whether it was written to the standard error
}

func (e TaskOutput) level() slog.Level {
	if e.IsError {
		return slog.LevelError
	}
	return slog.LevelInfo
}

func (e TaskOutput) line() (string, []slog.Attr) { return e.Line, e.Job.attrs() }

// JobInterrupted reports that the context of a running job has ended. The end of the run is
// reported when the handler returns. Logged at warn if the job was cancelled, else at debug,
// since JobsAborted or LocksLost are about the same.
type JobInterrupted struct {
	WorkerID string // the worker's id
	Job      *Job   // the job
	// Cause is why: gworker.ErrJobCancelled; gworker.ErrJobLost, as the job is no longer
	// locked by this worker; or gworker.ErrShutdown, as the worker shuts down and has
	// waited as long as it may.
	Cause error
}

func (e JobInterrupted) level() slog.Level {
	if errors.Is(e.Cause, job.ErrCancelled) {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (e JobInterrupted) line() (string, []slog.Attr) {
	return "ended the context of a running job", e.Job.attrs(slog.Any("cause", e.Cause))
}

// JobEnded reports that a job's handler has returned. Nothing is stored yet: JobCompleted,
// JobFailed, JobPermanentlyFailed, JobReturned, JobSnoozed or JobLost follows. It is made
// only if something may want it. Logged at debug.
type JobEnded struct {
	WorkerID string        // the worker's id
	Job      *Job          // the job
	Result   RunResult     // how the run ended
	Err      error         // why it did not complete; nil if it did
	Duration time.Duration // how long the handler ran
}

func (JobEnded) level() slog.Level { return slog.LevelDebug }
func (e JobEnded) line() (string, []slog.Attr) {
	return "handler returned", e.Job.attrs(slog.String("result", string(e.Result)), durationAttr(e.Duration))
}

// RunResult is how the run of a job ended.
type RunResult string

// The results of a run.
const (
	// RunCompleted: the handler returned nil; the row is to be deleted.
	RunCompleted RunResult = "completed"
	// RunCompletedInTx: the handler, or the SQL task, has completed the job in a
	// transaction of its own; nothing is left to store. An error of the handler's came too
	// late to be stored.
	RunCompletedInTx RunResult = "completed in a transaction"
	// RunFailed: the attempt failed.
	RunFailed RunResult = "failed"
	// RunSnoozed: the handler wants to be called later; the attempt does not count.
	RunSnoozed RunResult = "snoozed"
	// RunReturned: the run was interrupted; the job goes back to the queue, and the
	// attempt does not count.
	RunReturned RunResult = "returned"
	// RunLost: the job is no longer locked by this worker; nothing may be stored.
	RunLost RunResult = "lost"
)

// JobCompleted reports that a job is done and its row deleted. Logged at info.
type JobCompleted struct {
	WorkerID string        // the worker's id
	Job      *Job          // the job
	Duration time.Duration // how long the handler ran
}

func (JobCompleted) level() slog.Level { return slog.LevelInfo }
func (e JobCompleted) line() (string, []slog.Attr) {
	return "job completed", e.Job.ended(e.Duration, nil)
}

// JobFailed reports that an attempt failed and its error is stored. The job runs again.
// Logged at error.
type JobFailed struct {
	WorkerID  string        // the worker's id
	Job       *Job          // the job, as it was when the failed run began
	Err       error         // why it failed; a *gworker.PanicError if the handler panicked
	NextRunAt time.Time     // when the job runs again, at the earliest
	Duration  time.Duration // how long the handler ran
}

func (JobFailed) level() slog.Level { return slog.LevelError }
func (e JobFailed) line() (string, []slog.Attr) {
	return "job failed", e.Job.ended(e.Duration, e.Err, slog.Time("next_run_at", e.NextRunAt))
}

// JobPermanentlyFailed reports that the last attempt of a job failed, or that the job was
// discarded or cancelled. Its row stays with the error, and nothing runs it again. Logged at
// error.
type JobPermanentlyFailed struct {
	WorkerID string        // the worker's id
	Job      *Job          // the job, as it was when the failed run began
	Err      error         // why it failed
	Duration time.Duration // how long the handler ran
}

func (JobPermanentlyFailed) level() slog.Level { return slog.LevelError }
func (e JobPermanentlyFailed) line() (string, []slog.Attr) {
	return "job failed permanently", e.Job.ended(e.Duration, e.Err)
}

const retiredMessage = "it was replaced or removed through its key while it ran, and does not come back"

// JobSnoozed reports that a handler put its job off. The attempt does not count. Logged at
// info.
type JobSnoozed struct {
	WorkerID string        // the worker's id
	Job      *Job          // the job
	For      time.Duration // how long the job waits, at least
	// Err is what the handler returned: a *gworker.SnoozeError, or what wraps it.
	Err error
	// Reason is the text of what wraps the *gworker.SnoozeError; "" if nothing does.
	Reason string
	// Duration is how long the handler ran.
	Duration time.Duration
	// Retired says that the job was replaced or removed through its key while
	// it ran: it has no attempts left, and stays failed.
	Retired bool
}

func (JobSnoozed) level() slog.Level { return slog.LevelInfo }
func (e JobSnoozed) line() (string, []slog.Attr) {
	attrs := e.Job.attrs(durationAttr(e.Duration), slog.Duration("for", e.For))
	if e.Reason != "" { // no "err", by which people find failures
		attrs = append(attrs, slog.String("reason", e.Reason))
	}
	if e.Retired {
		return "job snoozed; " + retiredMessage, attrs
	}
	return "job snoozed", attrs
}

// JobReturned reports that a run was interrupted, and that the job is back in the queue. The
// attempt does not count. Logged at warn.
type JobReturned struct {
	WorkerID string        // the worker's id
	Job      *Job          // the job
	Err      error         // why the run was interrupted, or what the handler returned
	Duration time.Duration // how long the handler ran; 0 if it was not called
	// Retired says that the job was replaced or removed through its key while
	// it ran: it has no attempts left, and stays failed.
	Retired bool
}

func (JobReturned) level() slog.Level { return slog.LevelWarn }
func (e JobReturned) line() (string, []slog.Attr) {
	if e.Retired {
		return "job cut off; " + retiredMessage, e.Job.ended(e.Duration, e.Err)
	}
	return "job returned to the queue", e.Job.ended(e.Duration, e.Err)
}

// JobLost reports that a job was no longer locked by this run's claim when its outcome was
// to be stored. Nothing was stored. Logged at warn.
type JobLost struct {
	WorkerID string // the worker's id
	Job      *Job   // the job
	Err      error  // the run's own error; nil if it had none
	// Unsure says that the result of an earlier try to store the outcome is unknown: that
	// may have been what ended the job.
	Unsure bool
}

func (JobLost) level() slog.Level { return slog.LevelWarn }
func (e JobLost) line() (string, []slog.Attr) {
	if e.Unsure {
		return "job's outcome was stored by an earlier try whose answer was lost, or the job was taken over; nothing more to store",
			e.Job.attrs(errAttr(e.Err))
	}
	return "job was no longer locked by this worker when its run ended; nothing was stored", e.Job.attrs(errAttr(e.Err))
}

// BackoffPanicked reports that a task's Backoff panicked or ended its goroutine. The job
// waits as long as the formula says that all Graphile Workers share. Logged at error.
type BackoffPanicked struct {
	WorkerID string // the worker's id
	Job      *Job   // the job
	Value    any    // what it panicked with
	Stack    string // where; "" if it ended its goroutine
}

func (BackoffPanicked) level() slog.Level { return slog.LevelError }
func (e BackoffPanicked) line() (string, []slog.Attr) {
	return "a task's Backoff panicked; using the shared formula",
		e.Job.attrs(slog.String("value", contain.TextOf(e.Value)), slog.String("stack", e.Stack))
}

// ErrorAfterCompletion reports that a run ended with an error although its job is done,
// because the handler, or the SQL task, had completed it in a transaction that committed.
// The error is not stored. Logged at error.
type ErrorAfterCompletion struct {
	WorkerID string // the worker's id
	Job      *Job   // the job
	Err      error  // the error
}

func (ErrorAfterCompletion) level() slog.Level { return slog.LevelError }
func (e ErrorAfterCompletion) line() (string, []slog.Attr) {
	return "the run ended with an error after its job was completed in a transaction; the error is not stored",
		e.Job.attrs(errAttr(e.Err))
}
