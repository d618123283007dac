package gworker

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

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
func (c Config) policies() map[string]scheduler.Policy {
	policies := map[string]scheduler.Policy{}
	for _, task := range c.Tasks {
		o := task.options
		if o.MaxAttempts == 0 && o.Backoff == nil {
			continue
		}
		policy := scheduler.Policy{MaxAttempts: o.MaxAttempts}
		if o.Backoff != nil {
			policy.Backoff = func(j *job.Claimed, err error) time.Duration {
				return o.Backoff(BackoffInput{Job: (*JobRow)(&j.Row), Attempt: j.Attempts, Err: err})
			}
		}
		policies[task.identifier] = policy
	}
	return policies
}
