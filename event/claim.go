package event

import (
	"log/slog"
	"time"
)

// ClaimStarted reports that the worker asks for jobs. It is made only if something may
// want it. Logged at debug.
type ClaimStarted struct {
	WorkerID string // the worker's id
	Asked    int    // the most jobs that the claim may take
}

func (ClaimStarted) level() slog.Level { return slog.LevelDebug }
func (e ClaimStarted) line() (string, []slog.Attr) {
	return "claiming", []slog.Attr{slog.Int("asked", e.Asked)}
}

// JobsClaimed reports that a claim took jobs. Logged at debug.
type JobsClaimed struct {
	WorkerID string        // the worker's id
	Count    int           // the jobs that it took
	Asked    int           // the most jobs that it could have taken
	Duration time.Duration // how long the claim took
}

func (JobsClaimed) level() slog.Level { return slog.LevelDebug }
func (e JobsClaimed) line() (string, []slog.Attr) {
	return "claimed", []slog.Attr{slog.Int("jobs", e.Count), slog.Int("asked", e.Asked), durationAttr(e.Duration)}
}

// ClaimEmpty reports that a claim found nothing to run. It is made only if something may
// want it. Logged at debug.
type ClaimEmpty struct {
	WorkerID string        // the worker's id
	Asked    int           // the most jobs that it could have taken
	Duration time.Duration // how long the claim took
}

func (ClaimEmpty) level() slog.Level { return slog.LevelDebug }
func (e ClaimEmpty) line() (string, []slog.Attr) {
	return "nothing to claim", []slog.Attr{slog.Int("asked", e.Asked), durationAttr(e.Duration)}
}

// ClaimFailed reports that a claim ended with an error. It is tried again. Logged at error.
type ClaimFailed struct {
	WorkerID string        // the worker's id
	Err      error         // why it failed
	RetryIn  time.Duration // when it is tried again; 0 in a worker that stops
}

func (ClaimFailed) level() slog.Level { return slog.LevelError }
func (e ClaimFailed) line() (string, []slog.Attr) {
	return "claiming failed; trying again", []slog.Attr{errAttr(e.Err), retryIn(e.RetryIn)}
}

// ClaimRefused reports that the database refuses the lock of a job, because a constraint or
// a trigger is against it, or because its texts cannot be read. Logged at error.
type ClaimRefused struct {
	WorkerID string // the worker's id
	// Job is the job that does not run. Only these of its fields are known: ID, Task,
	// Queue, Priority, RunAt, Attempts, MaxAttempts, CreatedAt and UpdatedAt.
	Job *Job
	// Err is the database's answer.
	Err error
	// RetryIn is how long claims leave the job out; it grows up to a minute.
	RetryIn time.Duration
}

func (ClaimRefused) level() slog.Level { return slog.LevelError }
func (e ClaimRefused) line() (string, []slog.Attr) {
	return "the database refused to lock a job, so it does not run; look for a constraint or a trigger on the tables of jobs and queues",
		e.Job.attrs(errAttr(e.Err), retryIn(e.RetryIn))
}

// LostClaimRecovered reports that a claim whose answer was lost has taken effect: its jobs
// run after all. Logged at warn.
type LostClaimRecovered struct {
	WorkerID string // the worker's id
	Count    int    // the jobs that the claim had taken
}

func (LostClaimRecovered) level() slog.Level { return slog.LevelWarn }
func (e LostClaimRecovered) line() (string, []slog.Attr) {
	return "running jobs of a claim whose answer was lost", []slog.Attr{slog.Int("jobs", e.Count)}
}
