package event

import (
	"log/slog"
	"time"

	"github.com/gworker/gworker/internal/logattr"
)

// HeartbeatFailed reports that the worker could not write its heartbeat, or, with a RetryIn
// of 0, that it has ended and could not deregister: others find it dead after their
// Recovery.StaleAfter. Logged at warn.
type HeartbeatFailed struct {
	WorkerID string        // the worker's id
	Err      error         // why it failed
	RetryIn  time.Duration // when it tries again; 0 if the worker has ended
}

func (HeartbeatFailed) level() slog.Level { return slog.LevelWarn }
func (e HeartbeatFailed) line() (string, []slog.Attr) {
	if e.RetryIn == 0 {
		return "the worker has ended and could not deregister; others will declare it dead", []slog.Attr{errAttr(e.Err)}
	}
	return "heartbeat could not be written; others may declare this worker dead", []slog.Attr{errAttr(e.Err), retryIn(e.RetryIn)}
}

// WorkerDeclaredDead reports that the worker's registration is gone: another process has
// declared the worker dead. It registers again, and looks which of its jobs it has lost.
// Logged at warn.
type WorkerDeclaredDead struct {
	WorkerID string // the worker's id
}

func (WorkerDeclaredDead) level() slog.Level { return slog.LevelWarn }
func (e WorkerDeclaredDead) line() (string, []slog.Attr) {
	return "another process has declared this worker dead; registering again", []slog.Attr{workerAttr(e.WorkerID)}
}

// LocksLost reports that jobs that run here are no longer locked by this worker. Their
// contexts have ended, and their rows are left alone. Logged at warn.
type LocksLost struct {
	WorkerID string  // the worker's id
	JobIDs   []int64 // the jobs
}

func (LocksLost) level() slog.Level { return slog.LevelWarn }
func (e LocksLost) line() (string, []slog.Attr) {
	return "jobs that run here are no longer locked by this worker; ending their contexts",
		[]slog.Attr{logattr.List("job_ids", e.JobIDs)}
}

// WorkerRecovered reports that this worker gave back the jobs of a dead one. Logged at warn.
type WorkerRecovered struct {
	WorkerID string        // the id of the worker that swept
	Dead     string        // the id of the dead worker
	Silence  time.Duration // how long the dead worker has written no heartbeat
	JobIDs   []int64       // the jobs that are back in the queue
	// GivenUp are jobs that stay failed: they have been started MaxAttempts
	// times, have no key and no attempt left, or were cancelled.
	GivenUp []int64
	// Skipped are jobs that are left with the dead worker for now.
	Skipped []int64
	// Refused are jobs that the database does not let go from the dead worker;
	// SweepFailed has its answers. The next sweep tries again.
	Refused []int64
}

func (WorkerRecovered) level() slog.Level { return slog.LevelWarn }
func (e WorkerRecovered) line() (string, []slog.Attr) {
	return "gave back the jobs of a dead worker", []slog.Attr{
		slog.String("dead", e.Dead), slog.Duration("silence", e.Silence),
		logattr.List("job_ids", e.JobIDs), logattr.List("given_up", e.GivenUp),
		logattr.List("skipped", e.Skipped), logattr.List("refused", e.Refused),
	}
}

// SweepFailed reports that a look for dead workers or old locks ended with an error, or that
// the database refused to unlock a single job. The next look comes at its time. Logged at
// error.
type SweepFailed struct {
	WorkerID string // the id of the worker that sweeps
	// JobID is the job that stays locked, because a constraint or a trigger is against
	// the change of its row; the others were seen to. It is 0 if the look itself failed.
	// At most 100 such jobs are reported each time; what is left waits for the next.
	JobID int64
	// Err is why it failed.
	Err error
}

func (SweepFailed) level() slog.Level { return slog.LevelError }
func (e SweepFailed) line() (string, []slog.Attr) {
	if e.JobID != 0 {
		return "the database refuses to unlock a job; trying again with the next look", []slog.Attr{slog.Int64("job_id", e.JobID), errAttr(e.Err)}
	}
	return "looking for dead workers and old locks failed", []slog.Attr{errAttr(e.Err)}
}

// OldLocksResetStarted reports that the worker looks for locks older than 4 hours.
// OldLocksReset follows, or SweepFailed if that ends with an error. Logged at debug.
type OldLocksResetStarted struct {
	WorkerID string // the worker's id
}

func (OldLocksResetStarted) level() slog.Level { return slog.LevelDebug }
func (OldLocksResetStarted) line() (string, []slog.Attr) {
	return "looking for locks older than 4 hours", nil
}

// OldLocksReset reports that locks older than 4 hours were looked for, and those that were
// found removed. Logged at warn, or at debug if there were none.
type OldLocksReset struct {
	WorkerID string   // the worker's id
	JobIDs   []int64  // the jobs that were unlocked
	Queues   []string // the queues that were unlocked
}

func (e OldLocksReset) level() slog.Level {
	if len(e.JobIDs)+len(e.Queues) == 0 {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

func (e OldLocksReset) line() (string, []slog.Attr) {
	return "reset locks older than 4 hours", []slog.Attr{logattr.List("job_ids", e.JobIDs), logattr.List("queues", e.Queues)}
}
