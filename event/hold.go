package event

import (
	"log/slog"
	"time"
)

// JobsSpilled reports that held jobs ran longer than Config.HoldTime: their locks were
// written, and they run on. It is made only if something may want it. Logged at debug.
type JobsSpilled struct {
	WorkerID string // the worker's id
	Count    int    // the jobs whose locks were written
}

func (JobsSpilled) level() slog.Level { return slog.LevelDebug }
func (e JobsSpilled) line() (string, []slog.Attr) {
	return "wrote the locks of jobs that ran longer than they could be held", []slog.Attr{slog.Int("jobs", e.Count)}
}

// HoldLost reports that a transaction that held jobs was lost, with its connection or
// because the server refused one of its statements. Logged at warn.
type HoldLost struct {
	WorkerID string // the worker's id
	// Kept are the jobs that could be locked again, and go on.
	Kept int
	// Lost are the jobs that could not: they were completed with the transaction, or
	// another worker has taken them.
	Lost int
	// Err is why it was lost.
	Err error
}

func (HoldLost) level() slog.Level { return slog.LevelWarn }
func (e HoldLost) line() (string, []slog.Attr) {
	return "a transaction that held jobs was lost", []slog.Attr{slog.Int("kept", e.Kept), slog.Int("lost", e.Lost), errAttr(e.Err)}
}

// HeldJobsKept reports that the database deleted fewer rows than jobs have completed,
// although nothing else could change these rows: a trigger or a rule on the jobs table is
// in the way. The jobs that are left run again. Logged at error.
type HeldJobsKept struct {
	WorkerID  string // the worker's id
	Completed int    // the jobs that have completed
	Deleted   int    // the rows that were deleted
}

func (HeldJobsKept) level() slog.Level { return slog.LevelError }
func (e HeldJobsKept) line() (string, []slog.Attr) {
	return "the database did not delete all jobs that have completed: look for a trigger or rule on the jobs table; " +
		"they will run again", []slog.Attr{slog.Int("completed", e.Completed), slog.Int("deleted", e.Deleted)}
}

// HoldUnavailable reports that the worker has no connection to hold jobs with. It locks
// jobs in the meantime, which costs speed and nothing else, and tries again in the
// background. Logged at warn.
type HoldUnavailable struct {
	WorkerID string        // the worker's id
	Err      error         // why there is no connection
	RetryIn  time.Duration // when it tries again
}

func (HoldUnavailable) level() slog.Level { return slog.LevelWarn }
func (e HoldUnavailable) line() (string, []slog.Attr) {
	return "no connection to hold jobs by; locking them meanwhile", []slog.Attr{errAttr(e.Err), retryIn(e.RetryIn)}
}
