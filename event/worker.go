package event

import (
	"log/slog"
	"time"

	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/logattr"
)

// WorkerCreated reports that NewWorker has made a worker. Nothing is connected yet. Logged
// at debug.
type WorkerCreated struct {
	WorkerID    string   // the worker's id
	Concurrency int      // its slots: the most jobs that it runs at once
	Tasks       []string // the identifiers of its tasks
	Schema      string   // the schema of its jobs
}

func (WorkerCreated) level() slog.Level { return slog.LevelDebug }
func (e WorkerCreated) line() (string, []slog.Attr) {
	return "worker created", []slog.Attr{workerAttr(e.WorkerID)}
}

// WorkerStarted reports that the worker begins to claim jobs. Logged at info.
type WorkerStarted struct {
	WorkerID    string   // the worker's id
	Concurrency int      // its slots: the most jobs that it runs at once
	Tasks       []string // the identifiers of its tasks
	Schema      string   // the schema of its jobs
}

func (WorkerStarted) level() slog.Level { return slog.LevelInfo }
func (e WorkerStarted) line() (string, []slog.Attr) {
	return "worker started", []slog.Attr{
		workerAttr(e.WorkerID), slog.String("schema", e.Schema), slog.Int("concurrency", e.Concurrency), logattr.List("tasks", e.Tasks),
	}
}

// WorkerStopping reports that the worker claims no further jobs and waits for those that
// run. Logged at info.
type WorkerStopping struct {
	WorkerID string // the worker's id
	Running  int    // the jobs that run
	Cause    error  // why it stops: the cause of Run's context, or an error
}

func (WorkerStopping) level() slog.Level { return slog.LevelInfo }
func (e WorkerStopping) line() (string, []slog.Attr) {
	return "worker stopping", []slog.Attr{workerAttr(e.WorkerID), slog.Int("running", e.Running)}
}

// JobsAborted reports that the time for a graceful shutdown is over: the contexts of the
// jobs that still run have ended. Logged at warn.
type JobsAborted struct {
	WorkerID string // the worker's id
	Running  int    // the jobs that still run
}

func (JobsAborted) level() slog.Level { return slog.LevelWarn }
func (e JobsAborted) line() (string, []slog.Attr) {
	return "ending the contexts of jobs that still run", []slog.Attr{slog.Int("running", e.Running)}
}

// ShutdownForced reports that the worker no longer waits for handlers, because Abandon was
// called or the time of Config.ShutdownTimeout is nearly over. Their jobs go back to the
// queue. Logged at warn.
type ShutdownForced struct {
	WorkerID string  // the worker's id
	JobIDs   []int64 // the jobs whose handlers still run
}

func (ShutdownForced) level() slog.Level { return slog.LevelWarn }
func (e ShutdownForced) line() (string, []slog.Attr) {
	return "not waiting any longer for handlers; their jobs go back to the queue", []slog.Attr{logattr.List("job_ids", e.JobIDs)}
}

// ShutdownComplete reports that the worker waits for no handler, and that all outcomes are
// stored, or reported by OutcomesAbandoned. Logged at debug.
type ShutdownComplete struct {
	WorkerID string        // the worker's id
	Forced   bool          // whether there were handlers that it did not wait for
	Duration time.Duration // the time since WorkerStopping
}

func (ShutdownComplete) level() slog.Level { return slog.LevelDebug }
func (e ShutdownComplete) line() (string, []slog.Attr) {
	return "shutdown complete", []slog.Attr{slog.Bool("forced", e.Forced), durationAttr(e.Duration)}
}

// WorkerStopped reports that the worker has ended. It is the last event. Logged at info.
type WorkerStopped struct {
	WorkerID string // the worker's id
	Err      error  // what Run returns
}

func (WorkerStopped) level() slog.Level { return slog.LevelInfo }
func (e WorkerStopped) line() (string, []slog.Attr) {
	return "worker stopped", []slog.Attr{workerAttr(e.WorkerID), errAttr(e.Err)}
}

// DatabaseUnreachable reports that the database cannot be reached at start, or takes no
// writes. It is tried again. Logged at warn.
type DatabaseUnreachable struct {
	Err     error         // why it cannot be reached
	RetryIn time.Duration // when it is tried again
	// ReadOnly says that the server answers but takes no writes yet, as a standby.
	ReadOnly bool
}

func (DatabaseUnreachable) level() slog.Level { return slog.LevelWarn }
func (e DatabaseUnreachable) line() (string, []slog.Attr) {
	attrs := []slog.Attr{errAttr(e.Err), retryIn(e.RetryIn)}
	if e.ReadOnly {
		return "the database takes no writes yet; trying again", attrs
	}
	return "cannot reach the database yet; trying again", attrs
}

// RevisionApplied reports that a migration of the schema ran. Logged at info.
type RevisionApplied struct {
	Schema   string // the schema
	Revision int    // the revision that it has now
	Breaking bool   // whether older workers must not use it
}

func (RevisionApplied) level() slog.Level { return slog.LevelInfo }
func (e RevisionApplied) line() (string, []slog.Attr) {
	return "migrated", []slog.Attr{slog.String("schema", e.Schema), slog.Int("revision", e.Revision), slog.Bool("breaking", e.Breaking)}
}

// SchemaWarning reports that something about the schema deserves attention. Logged at warn.
type SchemaWarning struct {
	Schema  string // the schema
	Message string // what it is
}

func (SchemaWarning) level() slog.Level { return slog.LevelWarn }
func (e SchemaWarning) line() (string, []slog.Attr) {
	return e.Message, []slog.Attr{slog.String("schema", e.Schema)}
}

// BreakingMigration reports that another process applied a breaking revision to the
// worker's schema. The worker stops. Logged at error.
type BreakingMigration struct {
	WorkerID string // the worker's id
	Schema   string // the schema
	Revision int    // the breaking revision
}

func (BreakingMigration) level() slog.Level { return slog.LevelError }
func (e BreakingMigration) line() (string, []slog.Attr) {
	return "another process applied a breaking migration; shutting down",
		[]slog.Attr{slog.String("schema", e.Schema), slog.Int("revision", e.Revision)}
}

// ObserverPanicked reports that an observer, the log's handler, or another hook of the
// program's panicked or ended its goroutine (runtime.Goexit). Logged at error.
type ObserverPanicked struct {
	Value any    // what it panicked with
	Stack string // where; "" if it ended its goroutine
	On    Event  // the event that it was called with; nil if it was none
}

func (ObserverPanicked) level() slog.Level { return slog.LevelError }
func (e ObserverPanicked) line() (string, []slog.Attr) {
	attrs := []slog.Attr{slog.String("value", contain.TextOf(e.Value)), slog.String("stack", e.Stack)}
	if e.On == nil {
		return "Config.Now, Recovery.Decide or the log of LogMiddleware panicked; going on without it", attrs
	}
	return "an observer panicked", attrs
}
