package gworker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/history"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/scheduler/completer"
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

// TaskOptions are a worker's settings for the jobs of a task, see [Task.With]. Every zero
// value means what the job's row says, or the default of all Graphile Workers. Workers of
// other runtimes that run the same task do not know them.
type TaskOptions struct {
	// Timeout is how long one run may take, including middleware and interceptors. Then
	// the handler's context ends with a cause that is ErrJobTimeout, and an error that
	// the handler returns fails the attempt with a text that names the time-out. 0 means
	// no limit.
	//
	// A handler that ignores its context goes on, and keeps its slot until it returns:
	// Go cannot end it from outside. If it then returns nil, the job is complete.
	Timeout time.Duration

	// MaxAttempts limits the attempts of a job even if its row allows more: the failure
	// of that attempt, or of a later one, is permanent, and the row's max_attempts
	// becomes the number of attempts that the job has had. 0 means as many as the row
	// says. For what producers store in the row, see TaskDefinition.MaxAttempts.
	MaxAttempts int

	// Backoff returns how long a job waits after a failed attempt before it can
	// run again, counted from the failure, or from its run_at if that is later.
	// Below 0 counts as 0. nil means exp(min(attempts, 10)) seconds, as in all
	// Graphile Workers. It is not called for a permanent failure, nor for Snooze or
	// Discard. It is called from many goroutines at once, and outcomes may wait for it,
	// so it should be quick. If it panics, the default is used and BackoffPanicked
	// reports it.
	Backoff func(BackoffInput) time.Duration

	// Concurrency is how many jobs of the task a worker has at most at once, including
	// those in its local queue. Other workers' jobs do not count. Jobs beyond the limit
	// stay in the queue, where other workers can take them, and do not delay other tasks.
	// 0 means as many as the worker has slots.
	Concurrency int

	// History is how much is recorded about the task's jobs. Empty means as much as
	// Config.History says.
	History history.Level

	// Middleware wraps this task's handler, inside of Config.Middleware; the first is the
	// outermost.
	Middleware []Middleware
}

// BackoffInput is the argument of TaskOptions.Backoff.
type BackoffInput struct {
	// Job is the job as it was claimed. It must not be changed.
	Job *JobRow
	// Attempt is the number of the attempt that has failed, counted from 1.
	Attempt int
	// Err is the failure.
	Err error
}

// With returns a copy of the task with these options in place of its present ones. It works
// for tasks of every kind, including those of LoadTasks. NewWorker refuses options that
// cannot be used.
func (t Task) With(options TaskOptions) Task {
	options.Middleware = slices.Clone(options.Middleware)
	t.options = options
	return t
}

func (o TaskOptions) validate(field string) error {
	if err := checkLevel(field+".History", o.History); err != nil {
		return err
	}
	switch {
	case o.Timeout < 0:
		return problem(field+".Timeout", "is %s: it cannot be negative", o.Timeout)
	case o.MaxAttempts < 0 || o.MaxAttempts > math.MaxInt16:
		return problem(field+".MaxAttempts", "is %d: it can be 1 to %d, or 0 for what each job says", o.MaxAttempts, math.MaxInt16)
	}
	for i, m := range o.Middleware {
		if m == nil {
			return problem(fmt.Sprintf("%s.Middleware[%d]", field, i), "is nil")
		}
	}
	return nil
}

// policies are the tasks' options for failures, as the scheduler takes them.
func (c Config) policies() map[string]completer.Policy {
	policies := map[string]completer.Policy{}
	for _, task := range c.Tasks {
		o := task.options
		if o.MaxAttempts == 0 && o.Backoff == nil {
			continue
		}
		policy := completer.Policy{MaxAttempts: o.MaxAttempts}
		if o.Backoff != nil {
			policy.Backoff = func(j *job.Claimed, err error) time.Duration {
				return o.Backoff(BackoffInput{Job: (*JobRow)(&j.Row), Attempt: j.Attempts, Err: err})
			}
		}
		policies[task.identifier] = policy
	}
	return policies
}

// BatchJob is a job of a batch task as its handler gets it. Its Payload has the elements of
// the stored array that decode as T. The other elements fail, and the handler does not see
// them.
type BatchJob[T any] = Job[[]T]

// NewBatchTask returns a task whose jobs have a JSON array as payload, and whose
// handler says for each element whether it succeeded:
//
//	gworker.NewBatchTask("notify", func(ctx context.Context, job *gworker.BatchJob[Note]) ([]error, error) {
//		failures := make([]error, len(job.Payload))
//		for i, note := range job.Payload {
//			failures[i] = send(ctx, note)
//		}
//		return failures, nil
//	})
//
// A nil list, or a list of nils, completes the job. Otherwise the attempt fails, and only
// the failed elements stay in the payload, in their order and as they were stored: the next
// attempt is for them alone. The job's last error is "Batch failures:" and a line for each
// of them, as in Node's workers; the event's error is a *BatchError.
//
// A list whose length is not that of job.Payload fails the whole job with its payload
// unchanged, as in Rust's workers. (Node's workers log a warning and count it as full
// success.) So does an error as second result, and then the list is ignored; return Snooze
// and Discard there. If all failed elements have a Snooze, the job is snoozed for the
// longest time; if all have a Discard, it fails permanently. In a mixture, they are failures
// like the others, and the handler gets them again: an element leaves the row only when it
// has succeeded.
//
// A payload that is not an array fails the attempt. (Node's workers call the handler with it
// and ignore a list that it returns.) The handler is not called without elements; an empty
// array completes.
func NewBatchTask[T any](identifier string, handle func(ctx context.Context, job *BatchJob[T]) (failures []error, err error)) Task {
	if handle == nil {
		return Task{identifier: identifier} // NewWorker names it
	}
	return newTask(identifier, func(ctx context.Context, job *BatchJob[T], payload json.RawMessage) error {
		elements, err := elementsOf(payload)
		if err != nil {
			return err
		}
		failures := make([]error, len(elements))
		places := make([]int, 0, len(elements)) // of the elements that the handler sees
		job.Payload = make([]T, 0, len(elements))
		for i, element := range elements {
			var value T
			if err := decode(element, &value); err != nil {
				failures[i] = fmt.Errorf("element %d: %w", i, err)
				continue
			}
			places = append(places, i)
			job.Payload = append(job.Payload, value)
		}
		if len(places) > 0 {
			results, err := handle(ctx, job)
			switch {
			case err != nil:
				return err
			case results != nil && len(results) != len(places):
				return fmt.Errorf("the batch handler returned %d results for %d elements: it must return one for each, or nil",
					len(results), len(places))
			}
			for i, result := range results {
				failures[places[i]] = result
			}
		}
		return batchError(elements, failures)
	})
}

func batchError(elements []json.RawMessage, failures []error) error {
	var failed []BatchFailure
	for i, err := range failures {
		if err != nil {
			failed = append(failed, BatchFailure{Index: i, Payload: elements[i], Err: contain.Read(err)})
		}
	}
	if failed == nil {
		return nil
	}
	return &BatchError{Failed: failed, Total: len(elements)}
}

var errNoArray = errors.New("the payload of a batch job must be a JSON array, an element for each piece of work")

func elementsOf(payload json.RawMessage) ([]json.RawMessage, error) {
	if !bytes.HasPrefix(bytes.TrimLeft(payload, " \t\r\n"), []byte("[")) {
		return nil, errNoArray
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(payload, &elements); err != nil {
		return nil, fmt.Errorf("decoding the payload: %w", err)
	}
	return elements, nil
}
