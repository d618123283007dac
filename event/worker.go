package event

import (
	"time"
)

// WorkerCreated: NewWorker has made a worker. Nothing is connected yet.
type WorkerCreated struct {
	WorkerID    string
	Concurrency int
	Tasks       []string
	Schema      string
}

// WorkerStarted: the worker begins to claim jobs.
type WorkerStarted struct {
	WorkerID    string
	Concurrency int
	Tasks       []string
	Schema      string
}

// WorkerStopping: the worker claims no further jobs and waits for those that
// run.
type WorkerStopping struct {
	WorkerID string
	Running  int
	Cause    error
}

// JobsAborted: the time for a graceful shutdown is over, and the contexts of
// the jobs that still run have ended.
type JobsAborted struct {
	WorkerID string
	Running  int
}

// ShutdownForced: Abandon was called, or the time of Config.ShutdownTimeout is nearly over.
// The handlers of these jobs are no longer waited for; the jobs go back to the
// queue.
type ShutdownForced struct {
	WorkerID string
	JobIDs   []int64
}

// ShutdownComplete: handlers are no longer waited for, and all outcomes are
// written, or reported as OutcomesAbandoned. Forced says that there were handlers
// that were not waited for. Duration counts from WorkerStopping.
type ShutdownComplete struct {
	WorkerID string
	Forced   bool
	Duration time.Duration
}

// WorkerStopped: everything is in order; Err is what Run returns.
type WorkerStopped struct {
	WorkerID string
	Err      error
}

// DatabaseUnreachable: the database cannot be reached at start; the next try
// comes after RetryIn.
type DatabaseUnreachable struct {
	Err     error
	RetryIn time.Duration
}

// RevisionApplied: a migration ran.
type RevisionApplied struct {
	Schema   string
	Revision int
	Breaking bool
}

// SchemaWarning: something about the schema is worth a person's look.
type SchemaWarning struct {
	Schema  string
	Message string
}

// BreakingMigration: another process applied a breaking revision to this
// worker's schema; the worker stops.
type BreakingMigration struct {
	WorkerID string
	Schema   string
	Revision int
}

// ObserverPanicked: an observer, a log, or another hook, panicked or ended its goroutine
// (runtime.Goexit). On is the event that it was told; nil if it was none.
type ObserverPanicked struct {
	Value any
	Stack string
	On    Event
}

func (WorkerCreated) event()       {}
func (WorkerStarted) event()       {}
func (WorkerStopping) event()      {}
func (JobsAborted) event()         {}
func (ShutdownForced) event()      {}
func (ShutdownComplete) event()    {}
func (WorkerStopped) event()       {}
func (DatabaseUnreachable) event() {}
func (RevisionApplied) event()     {}
func (SchemaWarning) event()       {}
func (BreakingMigration) event()   {}
func (ObserverPanicked) event()    {}
