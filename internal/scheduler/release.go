package scheduler

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// releaser writes outcomes. While one group is being written the next gathers,
// so an idle worker adds no delay and a busy one writes large groups. Outcomes
// that cannot be written are kept and tried again until the database has them
// or the worker is told to end; those that the database refuses do not hold up
// the others. Where a delay is configured, outcomes of its kind wait that long for
// others of their kind (company.go).
type releaser struct {
	out      outcomes
	workerID string
	events   *event.Stream
	requeued func() // told when a named queue was freed or a job returned

	emptied chan struct{} // told, without blocking, when nothing is pending
	wrote   chan struct{} // told, without blocking, when some were written
	arrived chan struct{} // told, without blocking, when an outcome was added
	kicked  chan struct{} // told, without blocking, to try again at once
	stopped chan struct{} // closed when the writing goroutine has ended

	stop    context.CancelFunc // nothing more will be added
	stopCtx context.Context
	cut     context.CancelFunc // give up what is left

	mu      sync.Mutex
	waiting []ended // for the next group
	writing []ended // the group that is being written
	delayed []ended // could not be written; joins the next group after a while
	company company // of those in waiting
}

func newReleaser(c Config, requeued func()) *releaser {
	return &releaser{
		out:      outcomes{queries: c.queries(), workerID: c.WorkerID, events: c.Events, now: c.Now, policies: c.Policies, snoozes: newSnoozes(requeued)},
		workerID: c.WorkerID, events: c.Events, requeued: requeued,
		emptied: make(chan struct{}, 1),
		wrote:   make(chan struct{}, 1),
		arrived: make(chan struct{}, 1),
		kicked:  make(chan struct{}, 1),
		stopped: make(chan struct{}),
		company: newCompany(c.CompletionDelay, c.FailureDelay),
	}
}

// What the database refuses at the end is tried so often, with such waits.
const (
	lastTries = 3
	lastWait  = 200 * time.Millisecond
)

// start begins writing, until ctx ends or close has ended it.
func (r *releaser) start(ctx context.Context) {
	r.stopCtx, r.stop = context.WithCancel(ctx)
	writeCtx, cut := context.WithCancel(ctx)
	r.cut = cut
	go r.loop(writeCtx)
}

// add takes outcomes, to be written in one group. It never blocks.
func (r *releaser) add(outcomes ...ended) {
	r.mu.Lock()
	if r.waiting == nil {
		r.waiting = make([]ended, 0, max(len(outcomes), len(r.writing))) // it mostly becomes as many
	}
	r.waiting = append(r.waiting, outcomes...)
	for _, e := range outcomes {
		r.company.joined(e)
	}
	r.mu.Unlock()
	r.signal(r.arrived)
}

// flush lets nothing that waits now wait for company.
func (r *releaser) flush() {
	r.mu.Lock()
	late := r.company.end(r.waiting)
	r.mu.Unlock()
	if late {
		r.signal(r.arrived)
	}
}

// hurry lets nothing wait for company from now on.
func (r *releaser) hurry() {
	r.mu.Lock()
	r.company.delays = nil
	r.mu.Unlock()
	r.signal(r.arrived)
}

// kick cuts the wait before the next try short.
func (r *releaser) kick() { r.signal(r.kicked) }

func (r *releaser) signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (r *releaser) pending() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiting) + len(r.writing) + len(r.delayed)
}

// returning reports whether jobs that have not started are being given back. It
// leaves out what the database would not take.
func (r *releaser) returning() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, some := range [][]ended{r.waiting, r.writing} {
		for _, e := range some {
			if e.unstarted && e.outcome.Kind == job.Returned {
				return true
			}
		}
	}
	return false
}

// claimed lists the jobs whose outcomes are not known to be written.
func (r *releaser) claimed() []*job.Claimed {
	r.mu.Lock()
	defer r.mu.Unlock()
	var jobs []*job.Claimed
	for _, some := range [][]ended{r.waiting, r.writing, r.delayed} {
		for _, e := range some {
			jobs = append(jobs, e.job)
		}
	}
	return jobs
}

// close waits until everything is written, until over closes at the latest, and
// ends the writing goroutine.
func (r *releaser) close(over <-chan struct{}) {
	r.stop()
	r.kick()
	select {
	case <-r.stopped:
	case <-over:
	}
	r.cut()
	<-r.stopped
}

func (r *releaser) loop(ctx context.Context) {
	defer close(r.stopped)
	again := newRetrying()
	defer again.timer.Stop()
	defer r.company.timer.Stop()
	stopping := r.stopCtx.Done()
	for {
		group := r.gather(again.blocked)
		if len(group) == 0 {
			select {
			case <-r.arrived:
			case <-r.company.timer.C:
			case <-again.timer.C:
				r.requeue(again)
			case <-r.kicked:
				r.requeue(again)
			case <-stopping:
				stopping = nil
				r.requeue(again)
			case <-ctx.Done():
				r.giveUp(again.cause)
				return
			}
			if r.stopCtx.Err() != nil && r.pending() == 0 {
				return
			}
			continue
		}
		left, freed, err := r.out.write(ctx, group)
		allWritten := r.written(left)
		if freed {
			r.requeued()
		}
		if err == nil {
			if allWritten {
				again.waits, again.lost = nil, false
			}
			continue
		}
		if ctx.Err() != nil && again.cause != nil {
			err = again.cause // it was cut off; this is why it was not written before
		}
		wait := again.after(err)
		if r.stopCtx.Err() != nil && again.final(err) {
			if again.last++; again.last >= lastTries {
				r.giveUp(err)
				return
			}
			wait = lastWait
			again.timer.Reset(wait)
		}
		if ctx.Err() == nil {
			r.events.Emit(event.OutcomesDelayed{WorkerID: r.workerID, Count: len(left), Err: err, RetryIn: wait})
		}
	}
}

// gather takes everything that waits as the next group, but for what may still
// get company.
func (r *releaser) gather(blocked bool) []ended {
	if blocked {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writing, r.waiting = r.company.part(r.waiting)
	return r.writing
}

// requeue lets what was delayed join the next group.
func (r *releaser) requeue(again *retrying) {
	again.blocked, again.due = false, time.Time{}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.company.end(r.delayed)
	r.waiting, r.delayed = append(r.delayed, r.waiting...), nil
}

// written forgets the group but for what is left of it, and reports whether
// nothing is delayed.
func (r *releaser) written(left []ended) (allWritten bool) {
	r.mu.Lock()
	r.writing = nil
	r.delayed = append(r.delayed, left...)
	allWritten = len(r.delayed) == 0
	empty := allWritten && len(r.waiting) == 0
	r.mu.Unlock()
	r.signal(r.wrote)
	if empty {
		r.signal(r.emptied)
	}
	return allWritten
}

// giveUp reports what the worker could not write before it had to end.
func (r *releaser) giveUp(err error) {
	var ids []int64
	for _, j := range r.claimed() {
		ids = append(ids, j.ID)
	}
	r.events.Emit(event.OutcomesAbandoned{WorkerID: r.workerID, JobIDs: ids, Err: err})
}

// retrying is when to write again what could not be written.
type retrying struct {
	timer *time.Timer
	due   time.Time // zero if no try is due
	waits backoff.BackOff
	class retry.Class
	cause error
	// lost says that the last try was lost with its connection, after which the next
	// one did not wait.
	lost bool
	// last counts the tries since nothing more is added.
	last int
	// blocked says that the database is in no state to take any outcome, so
	// that the others wait as well.
	blocked bool
}

func newRetrying() *retrying {
	timer := time.NewTimer(0)
	timer.Stop()
	return &retrying{timer: timer}
}

// final reports whether waiting longer is of no use to a worker that ends: the database
// is there, and refuses what is left.
func (r *retrying) final(err error) bool { return !r.blocked && !errors.Is(err, errStillOpen) }

// after sets the time of the next try, unless one is due already, and returns
// how far away it is.
func (r *retrying) after(err error) time.Duration {
	class := retry.Of(err)
	r.cause, r.blocked = err, retry.Passes(err)
	if class == r.class && !r.due.IsZero() {
		return time.Until(r.due)
	}
	if retry.AtOnce(err) && r.due.IsZero() && !r.lost {
		r.lost, r.due = true, time.Now()
		r.timer.Reset(0)
		return 0
	}
	if r.waits == nil || class != r.class {
		r.class, r.waits = class, retry.Backoff(class)
	}
	wait := r.waits.NextBackOff()
	r.due = time.Now().Add(wait)
	r.timer.Reset(wait)
	return wait
}
