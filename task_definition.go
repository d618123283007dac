package gworker

import (
	"context"
	"fmt"
	"slices"

	"github.com/gworker/gworker/internal/contain"
)

// TaskDefinition is what the producers and the handler of a task have in common: its
// identifier, the type of its payload, and the defaults of its jobs. It is declared
// once, in a package that both sides import:
//
//	var SendEmail = gworker.TaskDefinition[Email]{
//		Name:        "send_email",
//		MaxAttempts: 5,
//		KeyFunc:     func(e Email) string { return "welcome " + e.To },
//	}
//
// Producers add what [TaskDefinition.Spec] returns, and a worker runs what
// [TaskDefinition.Task] returns. A payload of another type does not compile.
//
// The zero value of each field but Name is the queue's default. The defaults are
// written to the job's row when it is added, so workers of every runtime go by them.
// Jobs that are added by SQL, or by a JobSpec that names the task itself, have none of
// them. What a worker decides for its task (timeout, backoff, concurrency) is in
// TaskOptions.
//
// A definition that cannot be used is an error of what is made of it: AddJob, AddJobs,
// NewWorker and AddCronItem return a *FieldError that names the field.
//
// Nothing needs a definition: JobSpec.Task and NewTask take any string. It must not be
// changed while others use it.
type TaskDefinition[T any] struct {
	// Name is the task's identifier: 1 to 128 characters.
	Name string

	// Queue names a queue, of up to 128 characters, for all jobs of the task, which
	// then run one after another. "" means no queue.
	Queue string

	// QueueFunc returns the queue of a job with this payload, "" for none; nil means
	// Queue. Only one of the two can be given.
	QueueFunc func(payload T) string

	// MaxAttempts is how often a job is tried before it stays failed: 1 to 32767. 0
	// means the schema's default, 25.
	MaxAttempts int

	// Priority orders runnable jobs, lower numbers first: -32768 to 32767.
	Priority int

	// KeyFunc returns the job key for this payload, of up to 512 characters, "" for
	// none; nil means no key. Keys are shared by all tasks, so put the task's name into
	// it. KeyMode says what happens if a job has the key already.
	KeyFunc func(payload T) string

	// KeyMode is for all jobs of the task that have a key, also one that the spec was
	// given later. "" means KeyReplace.
	KeyMode KeyMode

	// Flags are names by which workers can be told to leave jobs alone.
	Flags []string
}

// Spec returns the spec of a job with this payload. Its fields are filled in from the
// definition, and can be changed before it is added: what they say then counts. A zero
// there means what it means in any JobSpec, so this job has no queue, no key and
// priority 0, whatever the definition says:
//
//	spec := SendEmail.Spec(email)
//	spec.Queue, spec.Key, spec.Priority = "", "", 0
//
// QueueFunc and KeyFunc are called here, on the caller's goroutine. If one panics,
// nothing can be added by the spec: AddJob's error says so and wraps a *PanicError.
func (d TaskDefinition[T]) Spec(payload T) JobSpec {
	spec := JobSpec{
		Task: d.Name, Payload: payload, Queue: d.Queue, MaxAttempts: d.MaxAttempts,
		KeyMode: d.KeyMode, Priority: d.Priority, Flags: slices.Clone(d.Flags),
		refused: d.check(),
	}
	if d.QueueFunc != nil && spec.refused == nil {
		spec.Queue, spec.refused = ask("QueueFunc", d.QueueFunc, payload)
	}
	if d.KeyFunc != nil && spec.refused == nil {
		spec.Key, spec.refused = ask("KeyFunc", d.KeyFunc, payload)
	}
	return spec
}

// Task returns the task with its handler, as NewTask does.
func (d TaskDefinition[T]) Task(handle func(ctx context.Context, job *Job[T]) error) Task {
	return d.bind(NewTask(d.Name, handle))
}

// NewBatchTaskOf is NewBatchTask for a task whose payload is defined as a list.
func NewBatchTaskOf[E any](d TaskDefinition[[]E], handle func(ctx context.Context, job *BatchJob[E]) (failures []error, err error)) Task {
	return d.bind(NewBatchTask(d.Name, handle))
}

// CronItem returns an item that adds jobs with this payload when schedule says so,
// such as "0 4 * * 1-5". As of a spec, its fields are filled in from the definition and
// can be changed. QueueFunc and KeyFunc are called here, once, and not for each job. A
// KeyMode of KeyUnsafeDedupe must be changed, as no cron item can have it.
func (d TaskDefinition[T]) CronItem(schedule string, payload T) CronItem {
	spec := d.Spec(payload)
	return CronItem{
		Schedule: schedule, Task: spec.Task, Payload: spec.Payload, MaxAttempts: spec.MaxAttempts, Queue: spec.Queue,
		Key: spec.Key, KeyMode: spec.KeyMode, Priority: spec.Priority, Flags: spec.Flags, refused: spec.refused,
	}
}

func (d TaskDefinition[T]) bind(t Task) Task {
	t.refused = d.check()
	return t
}

// check returns what makes a definition unusable.
func (d TaskDefinition[T]) check() error {
	if d.Name == "" {
		return problem("TaskDefinition.Name", "is empty: name the task")
	}
	if err := checkText("TaskDefinition.Name", d.Name, maxTaskLength); err != nil {
		return err
	}
	if d.Queue != "" && d.QueueFunc != nil {
		return problem("TaskDefinition.QueueFunc", "is given together with Queue %q: give one of them", d.Queue)
	}
	return JobSpec{
		Task: d.Name, Queue: d.Queue, MaxAttempts: d.MaxAttempts, KeyMode: d.KeyMode, Priority: d.Priority, Flags: d.Flags,
	}.check("TaskDefinition")
}

// ask calls a function of a definition. A panic is an error.
func ask[T any](field string, f func(T) string, payload T) (text string, err error) {
	defer func() {
		if value := recover(); value != nil {
			text, err = "", fmt.Errorf("TaskDefinition.%s: %w", field, contain.Recovered(value))
		}
	}()
	return f(payload), nil
}
