package gworker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/logattr"
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

// ErrAddSkipped says that an interceptor has skipped a job (see ClientConfig.BeforeAdd).
// AddJob returns it without a job, AddJobs together with the jobs that were added.
//
// Interceptors return it, or an error that wraps it, to skip a job.
var ErrAddSkipped = errors.New("the job was not added: a BeforeAdd interceptor skipped it")

// checkInterceptors refuses nil among the interceptors.
func checkInterceptors(field string, before []func(context.Context, *JobSpec) error) error {
	if i := slices.IndexFunc(before, func(f func(context.Context, *JobSpec) error) bool { return f == nil }); i >= 0 {
		return problem(fmt.Sprintf("%s[%d]", field, i), "is nil")
	}
	return nil
}

// beforeAdd asks the interceptors about a job, unless its definition is unusable, and
// returns the spec as they leave it. The error wraps ErrAddSkipped if the job is skipped.
// Everything that adds jobs for this client calls it first.
func (c *operations) beforeAdd(ctx context.Context, spec JobSpec) (JobSpec, error) {
	if spec.refused != nil {
		return JobSpec{}, spec.refused
	}
	if len(c.before) == 0 {
		return spec, nil
	}
	spec.Flags = slices.Clone(spec.Flags) // the caller's slice stays the caller's
	for i, intercept := range c.before {
		if err := protect(ctx, intercept, &spec); err != nil {
			return JobSpec{}, fmt.Errorf("BeforeAdd[%d]: %w", i, err)
		}
	}
	return spec, nil
}

// beforeAddAll is beforeAdd for the specs of one call. It returns the specs to add, with
// their places among specs. An error for one of them fails all.
func (c *operations) beforeAddAll(ctx context.Context, specs []JobSpec) (kept []JobSpec, places []int, err error) {
	for i, spec := range specs {
		if spec.refused != nil {
			return nil, nil, fmt.Errorf("specs[%d]%s: %w", i, ofTask(spec.Task), spec.refused)
		}
	}
	for i, spec := range specs {
		spec, err := c.beforeAdd(ctx, spec)
		switch {
		case contain.Is(err, ErrAddSkipped):
			continue
		case err != nil:
			return nil, nil, fmt.Errorf("specs[%d]%s: %w", i, ofTask(specs[i].Task), err)
		}
		kept, places = append(kept, spec), append(places, i)
	}
	return kept, places, nil
}

// protect turns an interceptor's panic into an error. It runs on the caller's goroutine, so
// a runtime.Goexit still ends that.
func protect(ctx context.Context, intercept func(context.Context, *JobSpec) error, spec *JobSpec) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = contain.Recovered(value)
		}
	}()
	return contain.Read(intercept(ctx, spec))
}

// Handler runs one job whose payload is still the stored JSON.
type Handler func(ctx context.Context, job *RawJob) error

// Middleware wraps handlers. It is called once for each task when the worker is made, and
// returns the handler to use in place of next:
//
//	func timed(next gworker.Handler) gworker.Handler {
//		return func(ctx context.Context, job *gworker.RawJob) error {
//			began := time.Now()
//			defer func() { observe(job.Task, time.Since(began)) }()
//			return next(ctx, job)
//		}
//	}
//
// Its result counts as the handler's: nil completes the job, an error fails the attempt,
// Snooze and Discard count. It need not call next, or may call it again after a failure. It
// may pass another context, and set job.Payload, which is decoded inside. It must pass the
// job that it was given. It wraps tasks of every kind, including executables and SQL files.
//
// A job that was completed in a transaction (CompleteTx, SQL tasks) stays
// completed whatever middleware returns.
type Middleware func(next Handler) Handler

// TimeoutMiddleware bounds each call of what is inside of it; 0 or less means no
// limit. TaskOptions.Timeout bounds a whole run instead; this is for a limit on
// each try of a retrying middleware, or, in Config.Middleware, for all tasks.
func TimeoutMiddleware(limit time.Duration) Middleware {
	return func(next Handler) Handler {
		if limit <= 0 {
			return next
		}
		cause := timeoutCause(limit)
		return func(ctx context.Context, job *RawJob) error {
			ctx, cancel := context.WithTimeoutCause(ctx, limit, cause)
			defer cancel()
			return timedOut(ctx, next(ctx, job))
		}
	}
}

// LogMiddleware logs the start (debug), the end (info), and the failure (error) or snooze
// (info) of each call of what is inside of it. The worker's own log has a line for each
// stored outcome; this one says what the handler did, at this place among the middleware. Its lines have the attributes job_id, task and attempt,
// and their handler gets the context of the call. A nil logger means that of
// Config.Logger. A panic of the log's handler is reported as ObserverPanicked, and the
// job goes on.
func LogMiddleware(logger *slog.Logger) Middleware {
	var own *eventLog
	if logger != nil {
		own = newEventLog(logger)
	}
	return func(next Handler) Handler {
		return func(ctx context.Context, raw *RawJob) error {
			log := own
			if log == nil {
				log = raw.env.eventLog()
			}
			line := func(level slog.Level, message string, attrs ...slog.Attr) {
				enabled, failure := log.enabledIn(ctx, level)
				raw.env.tellOf(failure)
				if enabled {
					id, task, attempt := namesJob(&raw.JobRow)
					attrs = append([]slog.Attr{id, task, attempt}, attrs...)
					raw.env.tellOf(log.write(ctx, level, message, attrs...))
				}
			}
			line(slog.LevelDebug, "handler called")
			began := time.Now()
			err := next(ctx, raw)
			took := logattr.Duration(time.Since(began))
			switch outcome := outcomeOf(err); outcome.Kind {
			case job.Completed:
				line(slog.LevelInfo, "handler succeeded", took)
			case job.Snoozed:
				line(slog.LevelInfo, "handler snoozed its job", took, slog.Duration("for", *outcome.Delay))
			default:
				line(slog.LevelError, "handler failed", took, logattr.Err(outcome.Err), logattr.Stack(outcome.Err))
			}
			return err
		}
	}
}

// RecoverMiddleware turns a panic of what is inside of it into an error, a *PanicError with
// the stack, which outer middleware sees like any other error. It calls report with it, for
// example for an error-reporting service; report may be nil. Without this middleware a panic
// fails the attempt, too.
func RecoverMiddleware(report func(ctx context.Context, job *RawJob, panicked *PanicError)) Middleware {
	return func(next Handler) Handler {
		return func(ctx context.Context, job *RawJob) error {
			err := recovered(ctx, job, next)
			//nolint:errorlint // one that a handler wraps was caught and reported further inside
			if panicked, ok := err.(*PanicError); ok && report != nil {
				report(ctx, job, panicked)
			}
			return err
		}
	}
}

// recovered calls a handler and returns its panic, if any, as a *PanicError.
func recovered(ctx context.Context, job *RawJob, handle Handler) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = contain.Recovered(value)
		}
	}()
	return handle(ctx, job)
}

func timeoutCause(limit time.Duration) error {
	return fmt.Errorf("%w: it ran for longer than %s", ErrJobTimeout, limit)
}

// timedOut names the time-out in an error that it has caused.
func timedOut(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || cause == nil || !contain.Is(cause, ErrJobTimeout) {
		return err
	}
	if err = contain.Read(err); contain.Is(err, ErrJobTimeout) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// handler is what the scheduler calls for a task: the task itself, wrapped as the
// configuration says.
func (c Config) handler(env *environment, task Task) scheduler.Handler {
	var run scheduler.Handler
	if len(c.Middleware)+len(task.options.Middleware)+len(c.BeforeRun)+len(c.AfterRun) > 0 {
		run = c.wrapped(env, task)
	} else {
		run = task.direct(env)
	}
	limit := task.options.Timeout
	if limit == 0 {
		return run
	}
	cause := timeoutCause(limit)
	return func(ctx context.Context, claimed *job.Claimed) job.Outcome {
		ctx, cancel := context.WithTimeoutCause(ctx, limit, cause)
		defer cancel()
		outcome := run(ctx, claimed)
		if outcome.Kind == job.Failed && !outcome.Permanent {
			outcome.Err = timedOut(ctx, outcome.Err)
		}
		return outcome
	}
}
