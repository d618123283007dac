package completer

import (
	"errors"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
)

// ErrTimeout is in the cause of a job's context that its task's own time-out has
// ended.
var ErrTimeout = errors.New("the job's time is up")

// Policy is what a task decides about its failures. The zero value leaves it to
// what all Graphile Workers share.
type Policy struct {
	// MaxAttempts, if not 0, is how many attempts a job gets at most, whatever
	// its row says.
	MaxAttempts int
	// Backoff, if not nil, is how long a job waits after a failure.
	Backoff func(j *job.Claimed, err error) time.Duration
}

// Decided is the outcome as the task's policy makes it. Panics and lost transactions
// are failures too, so this comes after everything that can make one.
func (p Policy) Decided(workerID string, j *job.Claimed, o job.Outcome, events *eventstream.Stream) job.Outcome {
	if o.Kind != job.Failed || o.Permanent {
		return o
	}
	if p.MaxAttempts > 0 && j.Attempts >= p.MaxAttempts {
		o.Permanent, o.Capped = true, true
		return o
	}
	if p.Backoff != nil && o.Delay == nil && !j.Final() {
		o.Delay = p.delay(workerID, j, o.Err, events)
	}
	return o
}

// delay asks Backoff. It is nil if that panics.
func (p Policy) delay(workerID string, j *job.Claimed, failure error, events *eventstream.Stream) *time.Duration {
	var delay time.Duration
	if err := contain.Call(func() { delay = p.Backoff(j, contain.Original(failure)) }); err != nil {
		value, stack := contain.Cause(err)
		events.Emit(event.BackoffPanicked{WorkerID: workerID, Job: eventstream.Job(j), Value: value, Stack: stack})
		return nil
	}
	return &delay
}
