package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

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
	e := completer.Result{Job: j, Outcome: job.Outcome{Kind: job.Failed, Err: errGoexit}}
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
			e.Outcome = job.Outcome{Kind: job.Failed, Err: contain.Recovered(value)}
		}
		e.Outcome.Err = contain.Read(e.Outcome.Err)
		e.Duration, e.Waited = time.Since(began), j.Waited(began)
		a.end()
		cause := context.Cause(ctx)
		lost := lostBy(cause)
		switch {
		case e.Outcome.Kind == job.Settled:
		case lost != nil:
			// Another worker has the job now: its row is not ours to write.
			e.Outcome = job.Outcome{Kind: job.Lost, Err: cmp.Or(e.Outcome.Err, error(lost))}
		case e.Outcome.Kind == job.Lost:
		case errors.Is(cause, job.ErrCancelled):
			// Whatever the handler made of it: who cancelled the job was told
			// that it would not be done.
			e.Outcome = job.Outcome{Kind: job.Failed, Err: cause, Permanent: true, Payload: e.Outcome.Payload}
		case e.Outcome.Kind == job.Failed && errors.Is(cause, ErrShutdown) &&
			!e.Outcome.Permanent && !contain.Is(e.Outcome.Err, completer.ErrTimeout):
			// Interrupted rather than failed: the attempt does not count.
			e.Outcome = interruptedOutcome(e.Outcome, p.delay)
		case e.Outcome.Kind == job.Failed:
			e.Outcome = p.policies[j.Task].Decided(p.workerID, j, e.Outcome, p.events)
		}
		if p.events.WantsFrequent() {
			p.events.EmitHere(event.JobEnded{WorkerID: p.workerID, Job: eventstream.Job(j), Result: eventstream.RunResults[e.Outcome.Kind], Err: e.Outcome.Err, Duration: e.Duration})
		}
	}()
	if !*over {
		a.told = true
		p.events.EmitHere(event.JobStarted{WorkerID: p.workerID, Job: eventstream.Job(j)})
		*over = true
	}
	handler, ok := p.handlers[j.Task]
	if !ok {
		// A claim asks for known tasks only, so this is a recovered job of
		// another worker's making; it is not ours to fail.
		e.Outcome = job.Outcome{Kind: job.Returned, Err: fmt.Errorf("this worker has no task %q", j.Task)}
		return
	}
	e.Outcome = handler(ctx, j)
}

// interruptedOutcome is the outcome of a run that a shutdown has ended: its attempt does
// not count.
func interruptedOutcome(o job.Outcome, delay time.Duration) job.Outcome {
	o.Kind = job.Returned
	o.Delay = nil
	if delay > 0 {
		o.Delay = &delay
	}
	return o
}
