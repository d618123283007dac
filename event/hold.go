package event

import (
	"time"
)

// JobsSpilled: jobs that a claim held ran longer than it could be kept open, so
// their locks were written and they run on. It is a frequent event.
type JobsSpilled struct {
	WorkerID string
	Count    int
}

// HoldLost: the transaction that held jobs was lost, with its connection or
// because the server refused one of its statements. Kept are those that could be
// locked again and go on; Lost are those that could not, as they had been done with
// it or another worker had taken them.
type HoldLost struct {
	WorkerID   string
	Kept, Lost int
	Err        error
}

// HeldJobsKept: of jobs that have completed, the database deleted fewer rows than
// there are jobs, although it let nobody else change them: a trigger or rule that
// was added stands in the way. Those jobs will run again.
type HeldJobsKept struct {
	WorkerID           string
	Completed, Deleted int
}

// HoldUnavailable: the worker got no connection to hold jobs by. Until it has one it
// locks them, and loses nothing but speed. It tries again in the background.
type HoldUnavailable struct {
	WorkerID string
	Err      error
	RetryIn  time.Duration
}

func (JobsSpilled) event()     {}
func (HoldLost) event()        {}
func (HeldJobsKept) event()    {}
func (HoldUnavailable) event() {}
