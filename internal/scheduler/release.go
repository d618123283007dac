package scheduler

import (
	"context"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/retry"
)

// releaser writes outcomes. While one group is being written the next gathers,
// so an idle worker adds no delay and a busy one writes large groups. Outcomes
// that cannot be written are kept and tried again until the database has them
// or the worker is told to end.
type releaser struct {
	out      outcomes
	workerID string
	events   *event.Stream
	grace    time.Duration // how long close tries to write what is left
	requeued func()        // told when a named queue was freed or a job returned

	emptied chan struct{} // told, without blocking, when nothing is pending
	arrived chan struct{} // told, without blocking, when an outcome was added
	kicked  chan struct{} // told, without blocking, to try again at once
	stopped chan struct{} // closed when the writing goroutine has ended

	stop    context.CancelFunc // nothing more will be added
	stopCtx context.Context
	cut     context.CancelFunc // give up what is left

	mu      sync.Mutex
	waiting []ended
	writing []ended
}

func newReleaser(c Config, requeued func()) *releaser {
	return &releaser{
		out:      outcomes{queries: c.Queries, workerID: c.WorkerID, events: c.Events},
		workerID: c.WorkerID, events: c.Events, grace: c.StatementTimeout, requeued: requeued,
		emptied: make(chan struct{}, 1),
		arrived: make(chan struct{}, 1),
		kicked:  make(chan struct{}, 1),
		stopped: make(chan struct{}),
	}
}

// start begins writing. ctx carries values only; close ends the writing.
func (r *releaser) start(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	r.stopCtx, r.stop = context.WithCancel(ctx)
	writeCtx, cut := context.WithCancel(ctx)
	r.cut = cut
	go r.loop(writeCtx)
}

// add takes one outcome. It never blocks.
func (r *releaser) add(e ended) {
	r.mu.Lock()
	r.waiting = append(r.waiting, e)
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
	return len(r.waiting) + len(r.writing)
}

func (r *releaser) ids() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := make([]int64, 0, len(r.waiting)+len(r.writing))
	for _, e := range r.waiting {
		ids = append(ids, e.job.ID)
	}
	for _, e := range r.writing {
		ids = append(ids, e.job.ID)
	}
	return ids
}

// close waits until everything is written, for as long as the grace or forced
// allow, and ends the writing goroutine.
func (r *releaser) close(forced <-chan struct{}) {
	r.stop()
	r.kick()
	timer := time.NewTimer(r.grace)
	defer timer.Stop()
	select {
	case <-r.stopped:
	case <-timer.C:
	case <-forced:
		// One more moment for a statement under way: forced means soon, not
		// without writing down what is known.
		timer.Reset(min(r.grace, 5*time.Second))
		select {
		case <-r.stopped:
		case <-timer.C:
		}
	}
	r.cut()
	<-r.stopped
}

func (r *releaser) loop(ctx context.Context) {
	defer close(r.stopped)
	for {
		group := r.gather()
		if len(group) == 0 {
			select {
			case <-r.arrived:
				continue
			case <-r.stopCtx.Done():
				if r.pending() == 0 {
					return
				}
				continue
			}
		}
		if err := r.write(ctx, group); err != nil {
			r.giveUp(err)
			return
		}
	}
}

// gather takes everything that waits as the next group.
func (r *releaser) gather() []ended {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writing, r.waiting = r.waiting, nil
	return r.writing
}

// written takes outcomes that the database has out of the group.
func (r *releaser) written(left []ended) {
	r.mu.Lock()
	r.writing = left
	empty := len(left) == 0 && len(r.waiting) == 0
	r.mu.Unlock()
	if empty {
		r.signal(r.emptied)
	}
}

// write writes a group, again and again until all of it is written. It returns
// an error only when ctx ends.
func (r *releaser) write(ctx context.Context, group []ended) error {
	var waits backoff.BackOff
	class := retry.No
	for unsure := false; ; {
		left, freed, err := r.out.write(ctx, group, unsure)
		r.written(left)
		if freed {
			r.requeued()
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		if len(left) < len(group) || waits == nil || retry.Of(err) != class {
			class = retry.Of(err)
			waits = retry.Backoff(class)
		}
		unsure = unsure || !retry.Refused(err)
		group = left
		if err := r.wait(ctx, waits.NextBackOff(), len(group), err); err != nil {
			return err
		}
	}
}

func (r *releaser) wait(ctx context.Context, wait time.Duration, count int, cause error) error {
	r.events.Emit(event.OutcomesDelayed{WorkerID: r.workerID, Count: count, Err: cause, RetryIn: wait})
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.kicked:
	case <-ctx.Done():
		return cause
	}
	return nil
}

// giveUp reports what the worker could not write before it had to end.
func (r *releaser) giveUp(err error) {
	r.events.Emit(event.OutcomesAbandoned{WorkerID: r.workerID, JobIDs: r.ids(), Err: err})
}
