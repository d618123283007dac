package scheduler

import (
	"time"

	"github.com/gworker/gworker/internal/job"
)

// Where workers share the looking (package fleet), a notification may have this one look
// only later. A claim that begins before sees what the notification told of, since that was
// committed by then, and so replaces the look.

// LookWithin has the scheduler claim in that time at the latest, as by Wake. It never blocks
// and may be called from any goroutine.
func (s *Scheduler) LookWithin(wait time.Duration) {
	at := time.Now().Add(wait)
	if s.turn.CompareAndSwap(nil, &at) {
		s.nudge() // so that the loop knows when
	}
}

// nextTurn is when the loop is to look; zero for never.
func (s *Scheduler) nextTurn() time.Time {
	if at := s.turn.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// waited is how long the job had been runnable that waited for the longest time, by the
// database's clock.
func waited(jobs []*job.Claimed) (longest time.Duration) {
	for _, j := range jobs {
		since := j.RunAt
		if j.UpdatedAt.After(since) {
			since = j.UpdatedAt // it was added, or changed, for a time that had passed
		}
		longest = max(longest, j.LockedAt.Sub(since))
	}
	return longest
}

// othersFor is how long at least a job is most likely kept that a claim has found and could
// not take: by another claim of this worker, or by one of a worker that looked at the same
// time.
func (s *Scheduler) othersFor() time.Duration {
	if s.config.Fleet.Shared() {
		return max(sharedFor, s.holds.othersFor())
	}
	return s.holds.othersFor()
}

// sharedFor is about as long as the others hold jobs. Looking sooner would mostly be in vain.
const sharedFor = 50 * time.Millisecond
