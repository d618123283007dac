// Package completer writes the outcomes of locked jobs, in these files:
//
//	result.go     a run that is over
//	policy.go     what its task decides about a failure
//	completer.go  results, grouped while the last group is being written
//	linger.go     how long they wait for others, where that is configured
//	columns.go    results as arguments of statements, also of held jobs
//	sql.go        the statements that write them, and the events that tell of it
//	lost.go       what is done about jobs whose lock was lost
//	tx.go         jobs that handlers complete in transactions of their own
//	refused.go    outcomes that the database refuses
//	snooze.go     when jobs are due that were snoozed for a moment
//	record.go     what history is told, and what it records with the outcomes
//
// Results come in, statements and events go out. A held job ends with its claim instead,
// which uses the columns and tells of it by Outcomes.Report.
//
// The one thing not to break: every statement names the claim's lock, and a result is kept
// until the database has it, or until it is reported as abandoned.
package completer

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/history"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/wait"
)

// Config is what a completer goes by.
type Config struct {
	Database statement.DB
	WorkerID string
	// Now is the worker's own clock; nil means the database's.
	Now func() time.Time
	// Policies are those of tasks that have one.
	Policies map[string]Policy
	// CompletionDelay and FailureDelay are how long outcomes linger.
	CompletionDelay, FailureDelay time.Duration
	// History is told of all ends; nil records nothing.
	History *history.Recorder

	Events *eventstream.Stream
}

// Completer writes outcomes. While one group is being written the next gathers,
// so an idle worker adds no delay and a busy one writes large groups. Outcomes
// that cannot be written are kept and tried again until the database has them
// or the worker is told to end; those that the database refuses do not hold up
// the others. Where a delay is configured, outcomes of its kind wait that long for
// others of their kind (linger.go).
type Completer struct {
	Outcomes Outcomes
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
	waiting []Result // for the next group
	writing []Result // the group that is being written
	delayed []Result // could not be written; joins the next group after a while
	linger  linger   // of those in waiting
}

// New makes a completer. requeued is called when a named queue was freed or a job has
// gone back, and wrote after each group. Nothing starts before Start.
func New(c Config, requeued, wrote func()) *Completer {
	return &Completer{
		Outcomes: Outcomes{
			database: c.Database, queries: dbgen.New(c.Database), history: c.History, workerID: c.WorkerID, events: c.Events, now: c.Now, policies: c.Policies, snoozes: newSnoozes(requeued),
		},
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

// Start begins writing, until ctx ends or close has ended it.
func (c *Completer) Start(ctx context.Context) {
	c.stopCtx, c.stop = context.WithCancel(ctx)
	writeCtx, cut := context.WithCancel(ctx)
	c.cut = cut
	go c.loop(writeCtx)
}

// Add takes outcomes, to be written in one group. It never blocks.
func (c *Completer) Add(outcomes ...Result) {
	c.mu.Lock()
	if c.waiting == nil {
		c.waiting = make([]Result, 0, max(len(outcomes), len(c.writing))) // it mostly becomes as many
	}
	c.waiting = append(c.waiting, outcomes...)
	for _, e := range outcomes {
		c.linger.add(e)
	}
	c.mu.Unlock()
	wait.Wake(c.arrived)
}

// Flush lets nothing that waits now linger.
func (c *Completer) Flush() {
	c.mu.Lock()
	late := c.linger.expire(c.waiting)
	c.mu.Unlock()
	if late {
		wait.Wake(c.arrived)
	}
}

// StopLingering lets nothing linger from now on.
func (c *Completer) StopLingering() {
	c.mu.Lock()
	c.linger.delays = nil
	c.mu.Unlock()
	wait.Wake(c.arrived)
}

// Wake cuts the wait before the next try short.
func (c *Completer) Wake() { wait.Wake(c.wakes) }

// Pending counts the results that are not known to be written.
func (c *Completer) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting) + len(c.writing) + len(c.delayed)
}

// Returning reports whether jobs that have not started are being given back. It
// leaves out what the database would not take.
func (c *Completer) Returning() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, some := range [][]Result{c.waiting, c.writing} {
		for _, e := range some {
			if e.Unstarted && e.Outcome.Kind == job.Returned {
				return true
			}
		}
	}
	return false
}

// Claimed lists the jobs whose outcomes are not known to be written.
func (c *Completer) Claimed() []*job.Claimed {
	c.mu.Lock()
	defer c.mu.Unlock()
	var jobs []*job.Claimed
	for _, some := range [][]Result{c.waiting, c.writing, c.delayed} {
		for _, e := range some {
			jobs = append(jobs, e.Job)
		}
	}
	return jobs
}

// Close waits until everything is written, until over closes at the latest, and
// ends the writing goroutine.
func (c *Completer) Close(over <-chan struct{}) {
	c.stop()
	c.Wake()
	select {
	case <-c.stopped:
	case <-over:
	}
	c.cut()
	<-c.stopped
	c.Outcomes.snoozes.end()
}

func (c *Completer) loop(ctx context.Context) {
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
			if c.stopCtx.Err() != nil && c.Pending() == 0 {
				return
			}
			continue
		}
		left, freed, err := c.Outcomes.write(ctx, group)
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
func (c *Completer) gather(blocked bool) []Result {
	if blocked {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing, c.waiting = c.linger.split(c.waiting)
	return c.writing
}

// requeue lets what was delayed join the next group.
func (c *Completer) requeue(again *retrying) {
	again.blocked, again.due = false, time.Time{}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.linger.expire(c.delayed)
	c.waiting, c.delayed = append(c.delayed, c.waiting...), nil
}

// written forgets the group but for what is left of it, and reports whether
// nothing is delayed.
func (c *Completer) written(left []Result) (allWritten bool) {
	c.mu.Lock()
	c.writing = nil
	c.delayed = append(c.delayed, left...)
	allWritten = len(c.delayed) == 0
	c.mu.Unlock()
	c.wrote()
	return allWritten
}

// giveUp reports what the worker could not write before it had to end.
func (c *Completer) giveUp(err error) {
	var ids []int64
	for _, j := range c.Claimed() {
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
