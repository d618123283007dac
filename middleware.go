package gworker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/logattr"
	"github.com/gworker/gworker/internal/scheduler"
)

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
