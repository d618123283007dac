package scheduler

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// completer writes outcomes. While one group is being written the next gathers,
// so an idle worker adds no delay and a busy one writes large groups. Outcomes
// that cannot be written are kept and tried again until the database has them
// or the worker is told to end; those that the database refuses do not hold up
// the others. Where a delay is configured, outcomes of its kind wait that long for
// others of their kind (linger.go).
type completer struct {
	out      outcomes
	workerID string
	events   *eventstream.Stream
	requeued func() // told when a named queue was freed or a job returned

	wrote   func()        // told when some were written
	arrived chan struct{} // told, without blocking, when an outcome was added
	wakes   chan struct{} // told, without blocking, to try again at once
	stopped chan struct{} // closed when the writing goroutine has ended

	stop    context.CancelFunc // nothing more will be added
	stopCtx context.Context
	cut     context.CancelFunc // give up what is left

	mu      sync.Mutex
	waiting []runResult // for the next group
	writing []runResult // the group that is being written
	delayed []runResult // could not be written; joins the next group after a while
	linger  linger      // of those in waiting
}

func newCompleter(c Config, requeued, wrote func()) *completer {
	return &completer{
		out:      outcomes{queries: c.queries(), workerID: c.WorkerID, events: c.Events, now: c.Now, policies: c.Policies, snoozes: newSnoozes(requeued)},
		workerID: c.WorkerID, events: c.Events, requeued: requeued,
		wrote:   wrote,
		arrived: make(chan struct{}, 1),
		wakes:   make(chan struct{}, 1),
		stopped: make(chan struct{}),
		linger:  newLinger(c.CompletionDelay, c.FailureDelay),
	}
}

// What the database refuses at the end is tried so often, with such waits.
const (
	lastTries = 3
	lastWait  = 200 * time.Millisecond
)

// start begins writing, until ctx ends or close has ended it.
func (c *completer) start(ctx context.Context) {
	c.stopCtx, c.stop = context.WithCancel(ctx)
	writeCtx, cut := context.WithCancel(ctx)
	c.cut = cut
	go c.loop(writeCtx)
}

// add takes outcomes, to be written in one group. It never blocks.
func (c *completer) add(outcomes ...runResult) {
	c.mu.Lock()
	if c.waiting == nil {
		c.waiting = make([]runResult, 0, max(len(outcomes), len(c.writing))) // it mostly becomes as many
	}
	c.waiting = append(c.waiting, outcomes...)
	for _, e := range outcomes {
		c.linger.add(e)
	}
	c.mu.Unlock()
	wake(c.arrived)
}

// flush lets nothing that waits now linger.
func (c *completer) flush() {
	c.mu.Lock()
	late := c.linger.expire(c.waiting)
	c.mu.Unlock()
	if late {
		wake(c.arrived)
	}
}

// stopLingering lets nothing linger from now on.
func (c *completer) stopLingering() {
	c.mu.Lock()
	c.linger.delays = nil
	c.mu.Unlock()
	wake(c.arrived)
}

// wake cuts the wait before the next try short.
func (c *completer) wake() { wake(c.wakes) }

func (c *completer) pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting) + len(c.writing) + len(c.delayed)
}

// returning reports whether jobs that have not started are being given back. It
// leaves out what the database would not take.
func (c *completer) returning() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, some := range [][]runResult{c.waiting, c.writing} {
		for _, e := range some {
			if e.unstarted && e.outcome.Kind == job.Returned {
				return true
			}
		}
	}
	return false
}

// claimed lists the jobs whose outcomes are not known to be written.
func (c *completer) claimed() []*job.Claimed {
	c.mu.Lock()
	defer c.mu.Unlock()
	var jobs []*job.Claimed
	for _, some := range [][]runResult{c.waiting, c.writing, c.delayed} {
		for _, e := range some {
			jobs = append(jobs, e.job)
		}
	}
	return jobs
}

// close waits until everything is written, until over closes at the latest, and
// ends the writing goroutine.
func (c *completer) close(over <-chan struct{}) {
	c.stop()
	c.wake()
	select {
	case <-c.stopped:
	case <-over:
	}
	c.cut()
	<-c.stopped
}

func (c *completer) loop(ctx context.Context) {
	defer close(c.stopped)
	again := newRetrying()
	defer again.timer.Stop()
	defer c.linger.timer.Stop()
	stopping := c.stopCtx.Done()
	for {
		group := c.gather(again.blocked)
		if len(group) == 0 {
			select {
			case <-c.arrived:
			case <-c.linger.timer.C:
			case <-again.timer.C:
				c.requeue(again)
			case <-c.wakes:
				c.requeue(again)
			case <-stopping:
				stopping = nil
				c.requeue(again)
			case <-ctx.Done():
				c.giveUp(again.cause)
				return
			}
			if c.stopCtx.Err() != nil && c.pending() == 0 {
				return
			}
			continue
		}
		left, freed, err := c.out.write(ctx, group)
		allWritten := c.written(left)
		if freed {
			c.requeued()
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
		if c.stopCtx.Err() != nil && again.final(err) {
			if again.last++; again.last >= lastTries {
				c.giveUp(err)
				return
			}
			wait = lastWait
			again.timer.Reset(wait)
		}
		if ctx.Err() == nil {
			c.events.Emit(event.OutcomesDelayed{WorkerID: c.workerID, Count: len(left), Err: err, RetryIn: wait})
		}
	}
}

// gather takes everything that waits as the next group, but for what may still
// linger.
func (c *completer) gather(blocked bool) []runResult {
	if blocked {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing, c.waiting = c.linger.split(c.waiting)
	return c.writing
}

// requeue lets what was delayed join the next group.
func (c *completer) requeue(again *retrying) {
	again.blocked, again.due = false, time.Time{}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.linger.expire(c.delayed)
	c.waiting, c.delayed = append(c.delayed, c.waiting...), nil
}

// written forgets the group but for what is left of it, and reports whether
// nothing is delayed.
func (c *completer) written(left []runResult) (allWritten bool) {
	c.mu.Lock()
	c.writing = nil
	c.delayed = append(c.delayed, left...)
	allWritten = len(c.delayed) == 0
	c.mu.Unlock()
	c.wrote()
	return allWritten
}

// giveUp reports what the worker could not write before it had to end.
func (c *completer) giveUp(err error) {
	var ids []int64
	for _, j := range c.claimed() {
		ids = append(ids, j.ID)
	}
	c.events.Emit(event.OutcomesAbandoned{WorkerID: c.workerID, JobIDs: ids, Err: err})
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
