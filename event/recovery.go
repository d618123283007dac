package event

import (
	"time"
)

// HeartbeatFailed: the worker could not say that it lives; the next try comes after
// RetryIn. If that is 0, the worker has ended and could not say so: others find it dead
// after their Recovery.StaleAfter.
type HeartbeatFailed struct {
	WorkerID string
	Err      error
	RetryIn  time.Duration
}

// WorkerDeclaredDead: the worker's registration is gone, so another worker has
// declared it dead. It registers again, and looks which of its jobs it has lost.
type WorkerDeclaredDead struct{ WorkerID string }

// LocksLost: jobs that run here are no longer locked by this worker. Their
// contexts have ended, and their rows are left alone.
type LocksLost struct {
	WorkerID string
	JobIDs   []int64
}

// WorkerRecovered: a dead worker's jobs are back in the queue.
type WorkerRecovered struct {
	WorkerID string // who swept
	Dead     string // the dead worker
	Silence  time.Duration
	JobIDs   []int64
	// GivenUp are jobs that stay failed: they have been started MaxAttempts
	// times, have no key and no attempt left, or were cancelled.
	GivenUp []int64
	// Skipped are jobs that are left with the dead worker for now.
	Skipped []int64
	// Refused are jobs that the database does not let go from the dead worker;
	// SweepFailed has its answers. The next sweep tries again.
	Refused []int64
}

// SweepFailed: a look for dead workers or old locks ended with an error, or the
// database refused to have a single job's lock taken away; the next one comes at its
// time.
type SweepFailed struct {
	WorkerID string
	// JobID, if not 0, is the job that stays locked: a constraint or a trigger is
	// against the change of its row. The others were seen to. At most 100 such jobs
	// are told of each time; then what is left waits for the next.
	JobID int64
	Err   error
}

// OldLocksResetStarted: the worker looks for locks older than 4 hours.
// OldLocksReset follows, or SweepFailed if that ends with an error.
type OldLocksResetStarted struct{ WorkerID string }

// OldLocksReset: locks older than 4 hours were looked for, and taken away from
// these jobs and queues, if any.
type OldLocksReset struct {
	WorkerID string
	JobIDs   []int64
	Queues   []string
}

func (HeartbeatFailed) event()      {}
func (WorkerDeclaredDead) event()   {}
func (LocksLost) event()            {}
func (WorkerRecovered) event()      {}
func (SweepFailed) event()          {}
func (OldLocksResetStarted) event() {}
func (OldLocksReset) event()        {}
