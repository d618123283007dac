package gworkertest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/job"
)

// Outcome says how a run of a job ended.
type Outcome string

const (
	// Completed: the handler succeeded, and the job's row is deleted.
	Completed Outcome = "completed"
	// Failed: the attempt failed, and the job is tried again later.
	Failed Outcome = "failed"
	// PermanentlyFailed: the attempt failed, and the job is not tried again.
	PermanentlyFailed Outcome = "permanently failed"
	// Returned: the job is back in the queue with its attempt restored: a
	// shutdown cut the run off, or the handler asked for it.
	Returned Outcome = "returned"
	// Snoozed: the handler has put its job off (gworker.Snooze): it is back in the
	// queue with its attempt restored, and waits for Result.Delay.
	Snoozed Outcome = "snoozed"
	// Lost: the job was no longer this worker's when the run ended, so nothing
	// was stored.
	Lost Outcome = "lost"
)

// Result is the end of one run of a job.
type Result struct {
	// Outcome is how the run ended.
	Outcome Outcome

	// Err is why the run did not complete, as the worker takes it: the handler's
	// own error, what decoding the payload said, or a *gworker.PanicError. nil
	// if it completed.
	Err error

	// Job is the job as it was when the run began.
	Job gworker.JobRow

	// NextRunAt is when a job that has Failed runs again. Run does not know it.
	NextRunAt time.Time

	// Delay is how long the job waits before it can run again, if the task has
	// decided that itself; nil if not. Of other outcomes than Snoozed, WaitRun and
	// WaitJob do not know it.
	Delay *time.Duration

	// Remaining is the payload that stays to be done, if a failed run has done a
	// part; nil if not. WaitRun and WaitJob do not know it.
	Remaining json.RawMessage

	// Duration is how long the handler ran.
	Duration time.Duration

	// retired says that a job that went back is over nevertheless: it was replaced
	// or removed by its key while it ran.
	retired bool
}

// String is for messages: the job, the outcome and the error.
func (r Result) String() string {
	text := fmt.Sprintf("attempt %d of job %d (%s) %s", r.Job.Attempts, r.Job.ID, r.Job.Task, r.Outcome)
	if r.Err != nil {
		text += ": " + contain.Text(r.Err)
	}
	return text
}

// final reports whether the job is over.
func (r Result) final() bool {
	return r.Outcome == Completed || r.Outcome == PermanentlyFailed || r.retired
}

// outcomeOf is what a worker would have written.
func outcomeOf(j *job.Claimed, o job.Outcome) Outcome {
	switch o.Kind {
	case job.Completed, job.Settled:
		return Completed
	case job.Returned:
		return Returned
	case job.Snoozed:
		return Snoozed
	case job.Lost:
		return Lost
	case job.Failed:
		if j.Final() || o.Permanent {
			return PermanentlyFailed
		}
		return Failed
	default:
		return Outcome(fmt.Sprintf("outcome %d", o.Kind))
	}
}

// resultOf reads a worker's event about the end of a job's run.
func resultOf(e event.Event) (r Result, ok bool) {
	switch e := e.(type) {
	case event.JobCompleted:
		return Result{Outcome: Completed, Job: gworker.JobRow(*e.Job), Duration: e.Duration}, true
	case event.JobFailed:
		return Result{Outcome: Failed, Err: contain.Original(e.Err), Job: gworker.JobRow(*e.Job), NextRunAt: e.NextRunAt, Duration: e.Duration}, true
	case event.JobPermanentlyFailed:
		return Result{Outcome: PermanentlyFailed, Err: contain.Original(e.Err), Job: gworker.JobRow(*e.Job), Duration: e.Duration}, true
	case event.JobReturned:
		return Result{Outcome: Returned, Err: contain.Original(e.Err), Job: gworker.JobRow(*e.Job), Duration: e.Duration, retired: e.Retired}, true
	case event.JobSnoozed:
		return Result{Outcome: Snoozed, Err: contain.Original(e.Err), Job: gworker.JobRow(*e.Job), Delay: &e.For, Duration: e.Duration, retired: e.Retired}, true
	case event.JobLost:
		return Result{Outcome: Lost, Err: contain.Original(e.Err), Job: gworker.JobRow(*e.Job)}, true
	}
	return r, false
}
