package gworker

import "context"

// TaskName is a task's identifier together with the type of its payload, so that
// the compiler sees to it that jobs are added with what their handler takes. It is
// declared once, where both sides find it:
//
//	const SendEmail gworker.TaskName[Email] = "send_email"
//
// Rust's worker has the same in its task types. Nothing needs it: JobSpec.Task and
// NewTask take any string.
type TaskName[T any] string

// Task returns the task with its handler, as NewTask does.
func (n TaskName[T]) Task(handle func(ctx context.Context, job *Job[T]) error) Task {
	return NewTask(string(n), handle)
}

// Spec returns a spec for a job of the task; its other fields are the caller's to
// set.
func (n TaskName[T]) Spec(payload T) JobSpec {
	return JobSpec{Task: string(n), Payload: payload}
}
