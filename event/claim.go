package event

import (
	"time"

	"github.com/gworker/gworker/internal/job"
)

// ClaimStarted: the worker asks for up to Asked jobs.
type ClaimStarted struct {
	WorkerID string
	Asked    int
}

// JobsClaimed: a claim took jobs. Asked is how many it could have taken.
type JobsClaimed struct {
	WorkerID string
	Count    int
	Asked    int
	Duration time.Duration
}

// ClaimEmpty: a claim found nothing to run.
type ClaimEmpty struct {
	WorkerID string
	Asked    int
	Duration time.Duration
}

// ClaimFailed: a claim ended with an error; the next try comes after RetryIn.
type ClaimFailed struct {
	WorkerID string
	Err      error
	RetryIn  time.Duration
}

// ClaimRefused: the database refuses the lock of a job: a constraint or a trigger is
// against it, or its texts cannot be read. Claims leave the job out for RetryIn, which
// grows up to a minute. Of Job are known: ID, Task, Queue, Priority, RunAt, Attempts,
// MaxAttempts, CreatedAt and UpdatedAt.
type ClaimRefused struct {
	WorkerID string
	Job      *job.Claimed
	// Err is the database's answer.
	Err     error
	RetryIn time.Duration
}

// JobsAdopted: a claim whose answer was lost turned out to have taken effect,
// and its jobs run after all.
type JobsAdopted struct {
	WorkerID string
	Count    int
}

func (ClaimStarted) event() {}
func (JobsClaimed) event()  {}
func (ClaimEmpty) event()   {}
func (ClaimFailed) event()  {}
func (ClaimRefused) event() {}
func (JobsAdopted) event()  {}
