package scheduler

import (
	"context"
	"errors"
	"time"

	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// Jobs that a locked claim has taken beyond the free slots wait for one. Those that have not
// started after prefetchPatience, as the ones before them take longer than was known, go
// back; a process that was stopped for so long cannot know either whether their locks
// still hold.
const prefetchPatience = 100 * time.Millisecond

// prefetches reports whether locked claims go beyond the free slots.
func (s *Scheduler) prefetches() bool { return s.lockedAim.ahead > 0 }

// watch has the loop look before long whether jobs have waited for too long, if some wait.
func (s *Scheduler) watch(waiting bool) {
	if s.prefetches() && waiting {
		s.overdueAt = time.Now().Add(prefetchPatience)
	}
}

// errOverdue is why jobs go back that have waited for too long.
var errOverdue = errors.New("no slot became free while the job waited for one")

// returnOverdue gives back what has waited for too long.
func (s *Scheduler) returnOverdue(now time.Time) {
	s.overdueAt = time.Time{}
	overdue, waiting := s.pool.returnWaiting(now.Add(-prefetchPatience), errOverdue)
	if overdue > 0 {
		s.Wake()
	}
	s.watch(waiting)
}

// returnOverdue is the end of a job that may no longer start.
func (p *pool) returnOverdue(a *active) {
	p.mu.Lock()
	e := a.returned(errOverdue)
	if a.here && e.Outcome.Kind == job.Returned {
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
	if s.completer.Returning() {
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

// overdue reports whether at that time the job may no longer start.
func (a *active) overdue(now time.Time) bool {
	if a.claimed.IsZero() {
		return false
	}
	return sinceByEitherClock(a.claimed, now) > prefetchPatience || a.ctx.Err() != nil
}

// returned is the end of a job that does not start.
func (a *active) returned(why error) completer.Result {
	e := completer.Result{Job: a.job, Outcome: job.Outcome{Kind: job.Returned, Err: why}, Unstarted: true}
	var lost *lostError
	switch cause := context.Cause(a.ctx); {
	case errors.As(cause, &lost):
		e.Outcome = job.Outcome{Kind: job.Lost, Err: lost}
	case errors.Is(cause, job.ErrCancelled):
		e.Outcome = job.Outcome{Kind: job.Failed, Err: cause, Permanent: true}
	}
	return e
}
