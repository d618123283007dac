package eventstream

import (
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
)

// Job is a job as events show it. It is the same memory: an event costs no copy.
func Job(j *job.Claimed) *event.Job { return (*event.Job)(&j.Row) }

// RunResults are the kinds of outcomes as events show them.
var RunResults = [...]event.RunResult{
	job.Completed: event.RunCompleted,
	job.Failed:    event.RunFailed,
	job.Returned:  event.RunReturned,
	job.Settled:   event.RunCompletedInTx,
	job.Lost:      event.RunLost,
	job.Snoozed:   event.RunSnoozed,
}
