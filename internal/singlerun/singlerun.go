// Package singlerun hands a worker one job in place of a queue's: so the package
// gworkertest runs a task as a worker runs it, without making that a part of gworker's
// public interface.
//
// A Run travels with the context of Worker.RunOnce, since no package that gworker imports
// can name its types. The one thing not to break: a worker whose context has no Run works
// on its queue, and a Run is taken once, so that workers that a handler starts under its
// own context work on theirs.
package singlerun

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/gworker/gworker/internal/job"
)

// A Run is one run of a job.
type Run struct {
	// Row is the job's; the worker fills in who has locked it.
	Row job.Row

	// How it ended: set when RunOnce returns.
	Job      *job.Claimed
	Outcome  job.Outcome
	Duration time.Duration

	taken atomic.Bool
}

type key struct{}

// Context gives the run to the worker whose RunOnce is called with the context.
func (r *Run) Context(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, r) }

// Take returns the context's run, unless there is none or it was taken before.
func Take(ctx context.Context) *Run {
	r, _ := ctx.Value(key{}).(*Run)
	if r == nil || r.taken.Swap(true) {
		return nil
	}
	return r
}
