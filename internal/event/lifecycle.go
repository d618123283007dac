package event

import "time"

// WorkerCreated: NewWorker has made a worker. Nothing is connected yet.
type WorkerCreated struct {
	WorkerID    string
	Concurrency int
	Tasks       []string
	Schema      string
}

// ShutdownForced: Abandon was called, or the time of Config.ShutdownTimeout is nearly over.
// The handlers of these jobs are not waited for any more; the jobs go back to the
// queue.
type ShutdownForced struct {
	WorkerID string
	JobIDs   []int64
}

// ShutdownComplete: no handler is waited for any more, and all outcomes are
// written, or reported as OutcomesAbandoned. Forced says that there were handlers
// that were not waited for. Duration counts from WorkerStopping.
type ShutdownComplete struct {
	WorkerID string
	Forced   bool
	Duration time.Duration
}

// OldLocksResetStarted: the worker looks for locks older than 4 hours.
// OldLocksReset follows, or SweepFailed if that ends with an error.
type OldLocksResetStarted struct{ WorkerID string }

func (WorkerCreated) event()        {}
func (ShutdownForced) event()       {}
func (ShutdownComplete) event()     {}
func (OldLocksResetStarted) event() {}
