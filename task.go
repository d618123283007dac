package gworker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/sqltask"
)

// Task binds a task identifier to the code that runs its jobs. Make one with [NewTask],
// [NewRawTask], [NewBatchTask], [TaskDefinition.Task] or [LoadTasks], and change its options
// by [Task.With]. Tasks are values: the same Task may be given to several workers.
type Task struct {
	identifier string
	options    TaskOptions
	refused    error // why the TaskDefinition that it is from cannot be used

	// raw is the handler as middleware sees it.
	raw func(*environment) Handler
	// direct is the same without a RawJob in between, for jobs without middleware and
	// interceptors.
	direct func(*environment) scheduler.Handler
	// locks says that each run writes to the job's row itself.
	locks bool
}

// Identifier returns the task identifier.
func (t Task) Identifier() string { return t.identifier }

// environment is what a worker gives to its handlers.
type environment struct {
	client *Client
	events *eventstream.Stream
	logger *slog.Logger
	log    *eventLog // on logger
	worker string
	// locked waits until the job's lock is written, if the job is held.
	locked func(context.Context, *job.Claimed) (held bool, err error)
	// completer completes jobs in other transactions than the worker's.
	completer *sqltask.Completer

	maxAttempts int // of the task; 0 for what each job says
}

func (e *environment) jobLogger(j *job.Claimed) *slog.Logger {
	return withJob(e.logger, (*JobRow)(&j.Row))
}

// eventLog is the worker's log, or slog's default for a job that no worker made.
func (e *environment) eventLog() *eventLog {
	if e == nil {
		return newEventLog(nil)
	}
	return e.log
}

// tellOf reports what a log's handler has done instead of returning.
func (e *environment) tellOf(failure error) {
	if e == nil || failure == nil {
		return
	}
	value, stack := contain.Cause(failure)
	e.events.Emit(event.ObserverPanicked{Value: value, Stack: stack})
}

// NewTask returns a task whose handler gets the payload decoded as T by
// encoding/json. It takes the type from the handler:
//
//	gworker.NewTask("send_email", func(ctx context.Context, job *gworker.Job[Email]) error {
//		return send(ctx, job.Payload)
//	})
//
// A nil error completes the job, and its row is deleted. Any other error fails
// the attempt: the error's text is stored as the job's last error and the job
// runs again after exp(min(attempts, 10)) seconds, until it has had its
// MaxAttempts. A panic is a failure like any other. A payload that does not
// decode as T fails that job alone, without the handler being called.
//
// The errors of Snooze and Discard have other effects, and [Task.With] sets how often and how
// soon the task's jobs are tried again.
//
// ctx ends when a shutdown has waited for its GracefulShutdownAbortTimeout (the cause is
// ErrShutdown; if the handler then returns an error, the job gets its attempt back), when the
// job is lost (ErrJobLost) or cancelled (ErrJobCancelled), or when the task's Timeout is over
// (ErrJobTimeout). Handlers are called from many goroutines at once.
func NewTask[T any](identifier string, handle func(ctx context.Context, job *Job[T]) error) Task {
	if handle == nil {
		return Task{identifier: identifier} // NewWorker names it
	}
	return newTask(identifier, func(ctx context.Context, job *Job[T], payload json.RawMessage) error {
		if err := decode(payload, &job.Payload); err != nil {
			return err
		}
		return handle(ctx, job)
	})
}

// newTask makes a task of a function that decodes the payload into its job.
func newTask[T any](identifier string, handle func(ctx context.Context, job *Job[T], payload json.RawMessage) error) Task {
	return Task{
		identifier: identifier,
		raw: func(*environment) Handler {
			return func(ctx context.Context, raw *RawJob) error {
				j := &Job[T]{JobRow: raw.JobRow, env: raw.env, claimed: raw.claimed, run: raw.run}
				return handle(ctx, j, raw.Payload)
			}
		},
		direct: func(env *environment) scheduler.Handler {
			return func(ctx context.Context, claimed *job.Claimed) job.Outcome {
				return outcomeOf(handle(ctx, &Job[T]{JobRow: JobRow(claimed.Row), env: env, claimed: claimed}, claimed.Payload))
			}
		},
	}
}

// NewRawTask returns a task whose handler gets the payload as the JSON text that
// is stored, byte for byte.
func NewRawTask(identifier string, handle func(ctx context.Context, job *RawJob) error) Task {
	return NewTask(identifier, handle)
}

func decode(payload json.RawMessage, into any) error {
	if raw, ok := into.(*json.RawMessage); ok {
		*raw = payload
		return nil
	}
	if err := unmarshal(payload, into); err != nil {
		return fmt.Errorf("decoding the payload: %w", err)
	}
	return nil
}

// unmarshal decodes a payload, or one element of a batch. A panic of its methods is an error.
func unmarshal(payload json.RawMessage, into any) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = contain.Recovered(value)
		}
	}()
	return json.Unmarshal(payload, into)
}
