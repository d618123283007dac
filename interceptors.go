package gworker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

// A BeforeRunDecision is what one of Config.BeforeRun decides about a job that
// is about to run. The zero value lets it run. Its outcomes are those of Rust's
// BeforeJobRun: continue, skip, and fail.
type BeforeRunDecision struct {
	// Err ends the run before the handler is called, as if the handler had
	// returned it: the attempt fails, and Snooze and Discard count.
	Err error

	// Skip completes the job without calling its handler: its row is deleted. To run it
	// later, set Err to gworker.Snooze(d).
	Skip bool

	// Payload, if not nil, replaces the payload for this run. The stored payload does
	// not change.
	Payload json.RawMessage
}

// RunResult is how a run ended, as Config.AfterRun sees it.
type RunResult struct {
	// Err is what the middleware and the handler returned; nil completes the
	// job. A handler's panic is a *PanicError.
	Err error
	// Duration is how long they took.
	Duration time.Duration
}

// An AfterRunDecision is what one of Config.AfterRun decides about a job that
// has run. The zero value leaves the result as it is.
type AfterRunDecision struct {
	// Err replaces the run's own result: the attempt fails, and Snooze and Discard count.
	// To keep only the failed elements of a batch, it must wrap the *BatchError.
	Err error

	// Complete completes the job although it failed.
	Complete bool
}

// validateInterceptors names a function that is nil.
func (c Config) validateInterceptors() error {
	for i, m := range c.Middleware {
		if m == nil {
			return problem(fmt.Sprintf("Config.Middleware[%d]", i), "is nil")
		}
	}
	for i, before := range c.BeforeRun {
		if before == nil {
			return problem(fmt.Sprintf("Config.BeforeRun[%d]", i), "is nil")
		}
	}
	for i, after := range c.AfterRun {
		if after == nil {
			return problem(fmt.Sprintf("Config.AfterRun[%d]", i), "is nil")
		}
	}
	return nil
}

// wrapped is a task with interceptors and middleware around it, outermost first:
// the interceptors, those of the configuration, those of the task.
func (c Config) wrapped(env *environment, task Task) scheduler.Handler {
	handle := ownJob(task.raw(env))
	for _, m := range slices.Backward(slices.Concat(c.Middleware, task.options.Middleware)) {
		handle = m(handle)
	}
	if len(c.BeforeRun)+len(c.AfterRun) > 0 {
		handle = c.intercepted(handle)
	}
	return func(ctx context.Context, claimed *job.Claimed) job.Outcome {
		raw := &RawJob{JobRow: JobRow(claimed.Row), Payload: claimed.Payload, env: env, claimed: claimed, run: &run{}}
		err := recovered(ctx, raw, handle)
		if raw.run.settled {
			return job.Outcome{Kind: job.Settled, Err: err}
		}
		return outcomeOf(err)
	}
}

// run is what the handlers of one run share.
type run struct {
	// settled says that a SQL task has completed the job.
	settled bool
}

var (
	errForeignJob = errors.New("middleware must call next with the job that it was given")
	errSettled    = errors.New("the job was completed by an earlier call of its SQL task in this run")
)

// ownJob refuses a job that middleware has passed in place of its own.
func ownJob(next Handler) Handler {
	return func(ctx context.Context, raw *RawJob) error {
		if raw == nil || raw.run == nil {
			return errForeignJob
		}
		return next(ctx, raw)
	}
}

func (c Config) intercepted(next Handler) Handler {
	return func(ctx context.Context, raw *RawJob) error {
		for _, before := range c.BeforeRun {
			switch decision := before(ctx, raw); {
			case decision.Err != nil:
				return decision.Err
			case decision.Skip:
				return nil
			case decision.Payload != nil:
				raw.Payload = decision.Payload
			}
		}
		if len(c.AfterRun) == 0 {
			return next(ctx, raw)
		}
		began := time.Now()
		result := RunResult{Err: recovered(ctx, raw, next)}
		result.Duration = time.Since(began)
		for _, after := range c.AfterRun {
			switch decision := after(ctx, raw, result); {
			case decision.Err != nil:
				result.Err = decision.Err
			case decision.Complete:
				result.Err = nil
			}
		}
		return result.Err
	}
}

// claimedAs is the job as it was claimed, with the payload that it is to run
// with.
func (j *Job[T]) claimedAs(payload json.RawMessage) *job.Claimed {
	if string(payload) == string(j.claimed.Payload) {
		return j.claimed
	}
	return j.claimed.WithPayload(payload)
}
