package event

import "github.com/gworker/gworker/internal/job"

// JobInterrupted: the context of a running job has ended, and Cause is why: the
// job was cancelled, it is no longer this worker's, or the worker shuts down and
// has waited as long as it may. The run's end comes when the handler returns.
type JobInterrupted struct {
	WorkerID string
	Job      *job.Claimed
	Cause    error
}

func (JobInterrupted) event() {}
