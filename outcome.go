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
	"github.com/gworker/gworker/internal/scheduler"
)

// ErrJobTimeout is in the cause (see [context.Cause]) of a handler's context
// that ends because of TaskOptions.Timeout or TimeoutMiddleware, and in the
// failure that comes of it.
var ErrJobTimeout = scheduler.ErrTimeout

// ErrNotCommitted is the failure of a job whose handler completed it with
// CompleteTx or CompleteSQLTx and returned nil, but did not commit the
// transaction.
var ErrNotCommitted = scheduler.ErrNotCommitted

// MinSnooze is the shortest time for which a job is snoozed. Anything less, 0 and
// below included, counts as this much: a job that asked for no time at all would run
// as often as the database can put it back, some hundred times a second.
const MinSnooze = 100 * time.Millisecond

// Snooze returns an error for a handler to return when its job should run later
// instead: the job is put back, waits for d at least, and the attempt does not
// count. This is no failure: last_error stays as it is, and the event is
// JobSnoozed. d below MinSnooze, which is 100 ms, counts as MinSnooze.
//
// The job runs again when its time has come: after up to 1 s the worker looks at
// that time, otherwise when it polls (Config.PollInterval). RunOnce does not wait
// for it.
//
// Nothing bounds how often a job is snoozed. A job that was replaced or removed
// through its key while it ran does not come back.
func Snooze(d time.Duration) error { return &SnoozeError{For: max(MinSnooze, d)} }

// A SnoozeError is what Snooze returns. Wrapped, it counts just as much.
type SnoozeError struct {
	// For is how long the job waits at least; less than MinSnooze counts as that.
	For time.Duration
}

// Error says for how long.
func (e *SnoozeError) Error() string { return fmt.Sprintf("snoozed for %s", e.For) }

// Discard returns an error for a handler to return when its job has failed and
// trying again is pointless: the job is permanently failed now, with err's text
// as its last error, whatever attempts it has left. Its row stays, with
// attempts = max_attempts, as after permanently_fail_jobs.
func Discard(err error) error { return &DiscardError{Err: err} }

// A DiscardError is what Discard returns. Wrapped, it counts just as much; the
// whole text becomes the job's last error.
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

// A BatchError is the failure of a batch job of which some or all elements
// failed. Its text is the job's last error, as Node's workers write it.
//
// It does not unwrap to its elements' errors: what one element wants is not what
// the job wants.
type BatchError struct {
	// Failed are the elements that failed, in their order. They are what is left
	// of the job's payload.
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

// left is the payload that is to be tried again.
func (e *BatchError) left() json.RawMessage {
	parts := make([]string, len(e.Failed))
	for i, failed := range e.Failed {
		parts[i] = string(failed.Payload)
	}
	return json.RawMessage("[" + strings.Join(parts, ",") + "]")
}

// outcomeOf is what a handler's answer means.
func outcomeOf(err error) job.Outcome {
	if err == nil {
		return job.Outcome{Kind: job.Completed}
	}
	err = contain.Read(err)
	outcome := job.Outcome{Kind: job.Failed, Err: err}
	if batch, is := contain.As[*BatchError](err); is && len(batch.Failed) > 0 {
		// Middleware may have made a payload that no database takes.
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

// decide says what becomes of the job: an element's wish is the job's where all
// that failed agree.
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

// lostRun is how a SQL task says through middleware that its job was lost.
type lostRun struct{ err error }

func (e *lostRun) Error() string { return e.err.Error() }
func (e *lostRun) Unwrap() error { return e.err }
