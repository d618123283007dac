package gworker

import (
	"context"

	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/testbridge"
)

// gworkertest runs tasks through this.
func init() { testbridge.RunTask = runTask }

// runTask makes a worker of the configuration and lets one of its slots run the
// job, so that everything which lies between a claim and the outcome's writing is
// what it is in production.
func runTask(ctx context.Context, r testbridge.Run) (end testbridge.End, err error) {
	if r.Row.Payload, err = encodePayload("Call.Payload", r.Payload); err != nil {
		return end, err
	}
	w, err := newWorker(r.Config.(Config))
	if err != nil {
		return end, err
	}
	defer w.Close()
	r.Row.LockedBy = w.id
	end.Job = &job.Claimed{Row: r.Row, Lock: job.Lock{By: w.id, At: r.Row.LockedAt, Attempt: r.Row.Attempts}}
	end.Outcome, end.Duration = w.scheduler.RunSingle(ctx, end.Job)
	return end, nil
}
