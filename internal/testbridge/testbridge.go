// Package testbridge lets the package gworkertest run a task as a worker runs it,
// without making that a part of gworker's public interface.
//
// gworker stores its function here when a program starts, and gworkertest, which imports
// gworker, calls it. The one thing not to break: only those two use it.
package testbridge

import (
	"context"
	"time"

	"github.com/gworker/gworker/internal/job"
)

// A Run is one run of a job, without a queue.
type Run struct {
	// Config is a gworker.Config. Its only task is run.
	Config any
	// Payload is what gworker.JobSpec takes as payload.
	Payload any
	// Row is the job; its Payload is filled in.
	Row job.Row
}

// An End is how a run ended.
type End struct {
	Job      *job.Claimed
	Outcome  job.Outcome
	Duration time.Duration
}

// RunTask runs a job. The error is one of the configuration or of the payload.
var RunTask func(ctx context.Context, r Run) (End, error)
