package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/job"
)

// runResult is one run that is over.
type runResult struct {
	job      *job.Claimed
	outcome  job.Outcome
	duration time.Duration
	// unstarted says that it never began: the job waited, in the local queue or for a slot.
	unstarted bool
	// unsure says that a try to write the outcome had an unknown end.
	unsure bool
	// fateUnknown says that nobody knows what became of the transaction in which the
	// handler completed the job. If the row is there, it has not committed.
	fateUnknown bool
	// plain says that its texts are to be written in ASCII.
	plain bool
	// refused says that the database has refused the outcome in every form.
	refused bool
	// reported says of a lost one that its event was emitted.
	reported bool
	// keepQueue says that the queue's lock is given back by a statement of its own, after
	// the outcome.
	keepQueue bool
}

// lostError is the cause of a context that ends because its job is lost.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// lostBy is the loss that ended a context, or nil. Most have not ended: those cost
// nothing.
func lostBy(cause error) *lostError {
	if cause == nil {
		return nil
	}
	var lost *lostError
	errors.As(cause, &lost)
	return lost
}

// errGoexit is the failure of a handler that ended its goroutine.
var errGoexit = errors.New("the handler ended its goroutine (runtime.Goexit) instead of returning")

// runOne runs one job from start to end. Whatever the handler does, the end is
// handed on, also while a Goexit unwinds the goroutine. The handler's error is
// read here, in the slot: nothing after it calls a method of that error.
//
// over is false if an observer has ended the goroutine before the handler was
// called: then the run goes on with another call, on another goroutine.
func (p *pool) runOne(a *active, began time.Time, over *bool) {
	ctx, j := a.ctx, a.job
	*over = true
	e := runResult{job: j, outcome: job.Outcome{Kind: job.Failed, Err: errGoexit}}
	if !a.told && a.overdue(began) {
		p.returnOverdue(a)
		return
	}
	*over = a.told || !p.events.WantsFrequent() // nobody is told that it starts
	defer func() {
		if *over {
			p.finish(a, e)
		}
	}()
	defer func() {
		if !*over {
			return
		}
		if value := recover(); value != nil {
			e.outcome = job.Outcome{Kind: job.Failed, Err: contain.Recovered(value)}
		}
		e.outcome.Err = contain.Read(e.outcome.Err)
		e.duration = time.Since(began)
		a.end()
		cause := context.Cause(ctx)
		lost := lostBy(cause)
		switch {
		case e.outcome.Kind == job.Settled:
		case lost != nil:
			// Somebody else has the job now: its row is not ours to write.
			e.outcome = job.Outcome{Kind: job.Lost, Err: cmp.Or(e.outcome.Err, error(lost))}
		case e.outcome.Kind == job.Lost:
		case errors.Is(cause, job.ErrCancelled):
			// Whatever the handler made of it: who cancelled the job was told
			// that it would not be done.
			e.outcome = job.Outcome{Kind: job.Failed, Err: cause, Permanent: true, Payload: e.outcome.Payload}
		case e.outcome.Kind == job.Failed && errors.Is(cause, ErrShutdown) &&
			!e.outcome.Permanent && !contain.Is(e.outcome.Err, ErrTimeout):
			// Interrupted rather than failed: the attempt does not count.
			e.outcome = interruptedOutcome(e.outcome, p.delay)
		case e.outcome.Kind == job.Failed:
			e.outcome = p.policies[j.Task].decided(p.workerID, j, e.outcome, p.events)
		}
		if p.events.WantsFrequent() {
			p.events.EmitHere(event.JobEnded{WorkerID: p.workerID, Job: eventJob(j), Result: runResults[e.outcome.Kind], Err: e.outcome.Err, Duration: e.duration})
		}
	}()
	if !*over {
		a.told = true
		p.events.EmitHere(event.JobStarted{WorkerID: p.workerID, Job: eventJob(j)})
		*over = true
	}
	handler, ok := p.handlers[j.Task]
	if !ok {
		// A claim asks for known tasks only, so this is a recovered job of
		// another worker's making; it is not ours to fail.
		e.outcome = job.Outcome{Kind: job.Returned, Err: fmt.Errorf("this worker has no task %q", j.Task)}
		return
	}
	e.outcome = handler(ctx, j)
}
