package gworker

import (
	"context"
	"encoding/json"
	"fmt"

	"go.uber.org/zap"

	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

// Task binds a task identifier to the code that runs its jobs. Make one with
// [NewTask], [NewRawTask] or [LoadTasks]. Tasks are values: the same Task may be
// given to several workers.
type Task struct {
	identifier string
	bind       func(*environment) scheduler.Handler
	options    TaskOptions
}

// Identifier returns the task identifier.
func (t Task) Identifier() string { return t.identifier }

// environment is what a worker gives to its handlers.
type environment struct {
	client *Client
	events *event.Stream
	logger *zap.Logger
	worker string
}

func (e *environment) jobLogger(j *job.Claimed) *zap.Logger {
	return e.logger.With(zap.Int64("job_id", j.ID), zap.String("task", j.Task), zap.Int("attempt", j.Attempts))
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
// ctx ends only when the worker shuts down and has waited as long as it may; a
// handler that then returns an error gets the attempt back. Handlers are called
// from many goroutines at once.
func NewTask[T any](identifier string, handle func(ctx context.Context, job *Job[T]) error) Task {
	task := Task{identifier: identifier}
	if handle == nil {
		return task // NewWorker names it
	}
	task.bind = func(env *environment) scheduler.Handler {
		return func(ctx context.Context, claimed *job.Claimed) job.Outcome {
			j := &Job[T]{JobRow: claimed.Row, env: env, claimed: claimed}
			if err := decode(claimed.Payload, &j.Payload); err != nil {
				return job.Outcome{Kind: job.Failed, Err: err}
			}
			if err := handle(ctx, j); err != nil {
				return job.Outcome{Kind: job.Failed, Err: err}
			}
			return job.Outcome{Kind: job.Completed}
		}
	}
	return task
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
	if err := json.Unmarshal(payload, into); err != nil {
		return fmt.Errorf("decoding the payload: %w", err)
	}
	return nil
}
