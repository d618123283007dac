package scheduler

import (
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
)

// eventJob is a job as events show it. It is the same memory: an event costs no copy.
func eventJob(j *job.Claimed) *event.Job { return (*event.Job)(&j.Row) }

// runResults are the kinds of outcomes as events show them.
var runResults = [...]event.RunResult{
	job.Completed: event.RunCompleted,
	job.Failed:    event.RunFailed,
	job.Returned:  event.RunReturned,
	job.Settled:   event.RunCompletedInTx,
	job.Lost:      event.RunLost,
	job.Snoozed:   event.RunSnoozed,
}
