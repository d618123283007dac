package scheduler

import (
	"context"
	"errors"
	"time"

	"github.com/gworker/gworker/internal/job"
)

// Where nothing is held, and no local queue was asked for, a claim still takes more
// jobs than there are free slots, if they are known to be so short that the slots
// get to all of them within prefetchFor: otherwise claims could not keep up. Jobs that
// have not started after prefetchPatience, as the ones before them take longer than
// was known, go back; whoever was stopped for so long cannot know either whether
// their locks still hold.
const (
	mostPrefetched       = 500 // jobs in a claim
	mostPrefetchedAtOnce = 2000
	prefetchFor          = 25 * time.Millisecond
	prefetchPatience     = 100 * time.Millisecond
)

// prefetch says whether, and since when, jobs wait for slots that are all taken. It
// belongs to the loop.
type prefetch struct {
	on    bool
	timer *time.Timer // nil: not on
}

// newPrefetch is off where jobs are chosen by more than their order.
func newPrefetch(c Config) prefetch {
	if c.LocalQueue.Size > 0 || c.TaskLimits != nil || c.Flags.any() {
		return prefetch{}
	}
	return prefetch{on: true, timer: stoppedTimer()}
}

// demand is how many jobs a claim shall take now; 0 means that there shall be none.
func (s *Scheduler) demand(more bool) int {
	_, missing := s.pool.missesFreed()
	if !s.prefetch.on || !more {
		free := s.pool.free()
		if s.limits.none() && s.local.len() > 0 {
			free = 0 // a slot that became free a moment ago is for what waits
		}
		return s.local.demand(more, free)
	}
	if s.inFlight.count == mostInFlight {
		return 0
	}
	running, coming, unwritten := s.pool.running(), s.inFlight.asked, s.completer.pending()
	capacity := min(s.durations.capacity(prefetchFor, s.pool.size), mostPrefetchedAtOnce)
	s.pool.wantBelow(max(s.pool.size, capacity*3/4))
	free := max(0, s.pool.size-running)
	// What is done counts until that is written: claims must not run away from it.
	here := running + coming + unwritten
	if missing {
		return s.pool.size
	}
	if here >= capacity*3/4 && (free <= coming || unwritten >= mostPrefetched) {
		return 0 // soon a claim is worth more
	}
	return max(free, min(capacity-here, mostPrefetched))
}

// watch has look called before long, if jobs wait for slots.
func (p *prefetch) watch(waiting bool) {
	if p.on && waiting {
		p.timer.Reset(prefetchPatience)
	}
}

// over is told when jobs have waited for long enough.
func (p *prefetch) over() <-chan time.Time { return channel(p.timer) }

// errOverdue is why jobs go back that have waited for too long.
var errOverdue = errors.New("no slot became free while the job waited for one")

// returnOverdue gives back what has waited for too long.
func (s *Scheduler) returnOverdue() {
	overdue, waiting := s.pool.returnWaiting(time.Now().Add(-prefetchPatience), errOverdue)
	if overdue > 0 {
		s.durations.atLeast(prefetchPatience)
		s.Wake()
	}
	s.prefetch.watch(waiting)
}

// returnOverdue is the end of a job that may not start any more.
func (p *pool) returnOverdue(a *active) {
	p.mu.Lock()
	e := a.returned(errOverdue)
	if a.here && e.outcome.Kind == job.Returned {
		p.overdue = p.order.goesBack(p.overdue, a.job)
	}
	p.mu.Unlock()
	p.finish(a, e)
}

// awaitsReturns reports whether jobs that have waited for too long are not known to
// be free again. Until they are no claim begins: it would find worse ones.
func (s *Scheduler) awaitsReturns() bool {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if s.pool.overdue == nil {
		return false
	}
	if s.completer.returning() {
		return true
	}
	s.pool.order.isFree(s.pool.overdue, 0)
	s.pool.overdue = nil
	return false
}

// returnWaiting gives jobs back that were claimed ahead, at that time or before,
// and wait for a slot. waiting says that some go on waiting.
func (p *pool) returnWaiting(since time.Time, why error) (count int, waiting bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.ready[:0]
	for _, a := range p.ready {
		if a.claimed.IsZero() || a.claimed.After(since) {
			kept = append(kept, a)
			continue
		}
		count++
		if a.here {
			p.overdue = p.order.goesBack(p.overdue, a.job)
			p.ended(a, a.returned(why))
			p.drop(a)
		}
	}
	clear(p.ready[len(kept):])
	p.ready = kept
	return count, len(kept) > 0
}

// sinceByEitherClock is the time that has passed, by the clock that is further on:
// one of them may have stood still while the machine slept.
func sinceByEitherClock(then, now time.Time) time.Duration {
	return max(now.Sub(then), now.Round(0).Sub(then.Round(0)))
}

// overdue reports whether the job may not start at the time any more.
func (a *active) overdue(now time.Time) bool {
	if a.claimed.IsZero() {
		return false
	}
	return sinceByEitherClock(a.claimed, now) > prefetchPatience || a.ctx.Err() != nil
}

// returned is the end of a job that does not start.
func (a *active) returned(why error) runResult {
	e := runResult{job: a.job, outcome: job.Outcome{Kind: job.Returned, Err: why}, unstarted: true}
	var lost *lostError
	switch cause := context.Cause(a.ctx); {
	case errors.As(cause, &lost):
		e.outcome = job.Outcome{Kind: job.Lost, Err: lost}
	case errors.Is(cause, job.ErrCancelled):
		e.outcome = job.Outcome{Kind: job.Failed, Err: cause, Permanent: true}
	}
	return e
}
