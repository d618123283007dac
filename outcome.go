package gworker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// ErrJobTimeout is in the cause (see [context.Cause]) of a handler's context
// that ends because of TaskOptions.Timeout or TimeoutMiddleware, and in the failure that
// results.
var ErrJobTimeout = completer.ErrTimeout

// ErrNotCommitted is the failure of a job whose handler completed it with
// CompleteTx or CompleteSQLTx and returned nil, but did not commit the
// transaction.
var ErrNotCommitted = completer.ErrNotCommitted

// MinSnooze is the shortest time for which a job is snoozed. Anything less, including 0 and
// negative times, counts as this: without it, a job snoozed for no time would run as often
// as the database can put it back, hundreds of times a second.
const MinSnooze = 100 * time.Millisecond

// Snooze returns an error for a handler to return if its job should run later: the job goes
// back to the queue, waits for at least d, and the attempt does not count. That is not a
// failure: last_error stays as it is, and the event is JobSnoozed. d below MinSnooze, which
// is 100 ms, counts as MinSnooze.
//
// The worker claims the job when its time has come if d is at most 1 s; otherwise a poll
// finds it (Config.PollInterval). RunOnce does not wait for it.
//
// A job can be snoozed any number of times. A job that was replaced or removed by its key
// while it ran does not come back.
func Snooze(d time.Duration) error { return &SnoozeError{For: max(MinSnooze, d)} }

// A SnoozeError is the error of Snooze. Wrapped, it has the same effect.
type SnoozeError struct {
	// For is the least time for which the job waits; below MinSnooze it counts as that.
	For time.Duration
}

// Error says for how long.
func (e *SnoozeError) Error() string { return fmt.Sprintf("snoozed for %s", e.For) }

// Discard returns an error for a handler to return if its job has failed and should not be
// tried again: the job fails permanently, with err's text as its last error, even if it has
// attempts left. Its row stays, with attempts = max_attempts, as after
// permanently_fail_jobs.
func Discard(err error) error { return &DiscardError{Err: err} }

// A DiscardError is the error of Discard. Wrapped, it has the same effect; the whole text
// becomes the job's last error.
type DiscardError struct {
	// Err is the reason; nil if there is none.
	Err error
}

// Error returns the text of the reason, or "discarded".
func (e *DiscardError) Error() string {
	if e.Err == nil {
		return "discarded"
	}
	return e.Err.Error()
}

// Unwrap returns the reason.
func (e *DiscardError) Unwrap() error { return e.Err }

// A BatchError is the failure of a batch job some or all of whose elements have failed. Its
// text is the job's last error, as Node's workers write it.
//
// It does not unwrap to its elements' errors, since the Snooze or Discard of one element is
// not that of the job.
type BatchError struct {
	// Failed are the failed elements, in their order. They become the job's payload.
	Failed []BatchFailure
	// Total is how many elements the payload had.
	Total int
}

// A BatchFailure is an element of a batch job that failed.
type BatchFailure struct {
	// Index is its place in the payload, counted from 0.
	Index int
	// Payload is the element as it is stored.
	Payload json.RawMessage
	// Err is why it failed.
	Err error
}

// Error has a line for each element that failed.
func (e *BatchError) Error() string {
	lines := make([]string, 0, len(e.Failed)+1)
	lines = append(lines, "Batch failures:")
	for _, failed := range e.Failed {
		lines = append(lines, contain.Text(failed.Err))
	}
	return strings.Join(lines, "\n")
}

// left is the payload for the next attempt.
func (e *BatchError) left() json.RawMessage {
	parts := make([]string, len(e.Failed))
	for i, failed := range e.Failed {
		parts[i] = string(failed.Payload)
	}
	return json.RawMessage("[" + strings.Join(parts, ",") + "]")
}

// outcomeOf is the outcome that a handler's result means.
func outcomeOf(err error) job.Outcome {
	if err == nil {
		return job.Outcome{Kind: job.Completed}
	}
	err = contain.Read(err)
	outcome := job.Outcome{Kind: job.Failed, Err: err}
	if batch, is := contain.As[*BatchError](err); is && len(batch.Failed) > 0 {
		// Middleware may have made a payload that cannot be stored.
		if left := batch.left(); json.Valid(left) && utf8.Valid(left) {
			outcome.Payload = left
		}
		batch.decide(&outcome)
		return outcome
	}
	if _, lost := contain.As[*lostRun](err); lost {
		outcome.Kind = job.Lost
		return outcome
	}
	if snooze, is := contain.As[*SnoozeError](err); is {
		outcome.Kind, outcome.Delay = job.Snoozed, delayOf(snooze)
		_, outcome.Bare = contain.Original(err).(*SnoozeError) //nolint:errorlint // what is around one is the reason
		return outcome
	}
	_, outcome.Permanent = contain.As[*DiscardError](err)
	return outcome
}

func delayOf(snooze *SnoozeError) *time.Duration {
	delay := max(MinSnooze, snooze.For) // it may have been made by hand
	return &delay
}

// decide is the outcome of the job: a Snooze or Discard of its elements counts if all failed
// elements have one.
func (e *BatchError) decide(outcome *job.Outcome) {
	var longest *SnoozeError
	snoozed := !slices.ContainsFunc(e.Failed, func(failed BatchFailure) bool {
		snooze, is := contain.As[*SnoozeError](failed.Err)
		if !is {
			return true
		}
		if longest == nil || snooze.For > longest.For {
			longest = snooze
		}
		return false
	})
	if snoozed && longest != nil {
		outcome.Kind, outcome.Delay = job.Snoozed, delayOf(longest)
		return
	}
	outcome.Permanent = !slices.ContainsFunc(e.Failed, func(failed BatchFailure) bool {
		_, discarded := contain.As[*DiscardError](failed.Err)
		return !discarded
	})
}

// lostRun is the error by which a SQL task reports, through middleware, that its job was lost.
type lostRun struct{ err error }

func (e *lostRun) Error() string { return e.err.Error() }
func (e *lostRun) Unwrap() error { return e.err }
