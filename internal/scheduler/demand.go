package scheduler

import (
	"time"
)

// Demand: how many jobs a claim takes. It takes what the free slots can start at once, and
// more where otherwise claims could not keep up:
//
//   - where jobs are known to be so short that the slots get to all of them soon;
//   - as many as the slots finish while claims go to the database and back. By Little's law
//     so many have to wait here, for a slot that ends a job to find the next one.
//
// Slots that are stuck in long jobs finish none, so nothing is claimed ahead for them.
//
// A local queue has demands of its own (localqueue.go).

// An aim is how far a claim goes beyond the free slots. The zero aim is not at all.
type aim struct {
	within time.Duration // the slots get to what waits in that time
	ahead  time.Duration // jobs may wait for as long as claims take, at most for that time
	claim  int           // jobs in a claim
	halves bool          // of two claims that alternate each takes half, so that either lasts while the other is ended
	total  int           // jobs that run, wait, or are being claimed
}

const (
	mostPrefetched       = 500 // jobs in a locked claim
	mostPrefetchedAtOnce = 2000
	prefetchFor          = 25 * time.Millisecond
	aheadFor             = prefetchPatience / 2 // few of them wait for as long as that

	mostHeld = 2000 // jobs in a held claim

	// roundTrips is for how many round trips of claims there shall be jobs: one that a claim
	// needs, one for which it may have to wait for the claim before, and one for the spread of
	// both.
	roundTrips = 3
)

// lockedAim is nothing where jobs are chosen by more than their order. Where jobs are held,
// those are locked that take longer.
func lockedAim(c Config, holds *heldClaims) aim {
	a := aim{ahead: aheadFor, claim: mostPrefetched, total: mostPrefetchedAtOnce}
	switch {
	case c.LocalQueue.Size > 0 || c.TaskLimits != nil || c.Flags.any():
		return aim{}
	case holds == nil:
		a.within = prefetchFor
	}
	return a
}

// heldAim is as many jobs as the slots are expected to have worked off within half the
// hold time, or a little later where claims take long.
func heldAim(c Config) aim {
	return aim{within: c.Hold.Time / 2, ahead: c.Hold.Time * 5 / 8, claim: mostHeld, total: 2 * mostHeld, halves: true}
}

// demand is how many jobs a locked claim takes now; 0 means that there shall be none.
func (l *loop) demand(more bool) int {
	switch {
	case l.local.on():
		return l.local.demand(more, l.pool.free())
	case !more || l.limits.none() && l.local.len() > 0: // a free slot is for what waits
		return 0
	}
	return l.demandFor(l.lockedAim, l.claims.roundTrip)
}

// demandFor is how many jobs a claim with that aim takes now, where claims take roundTrip. The
// loop is nudged when fewer jobs are here than make another worthwhile.
func (l *loop) demandFor(a aim, roundTrip time.Duration) int {
	size := l.pool.size
	capacity, soon, unwritten := l.plan(a, roundTrip)
	l.pool.wantBelow(soon)
	here := l.pool.running() + l.claims.underWay.asked()
	free := max(0, size-here)
	behind := a.claim > 0 && unwritten >= a.claim
	here += unwritten
	most := a.claim
	if a.halves {
		most = min(most, max(size, (capacity+1)/2))
	}
	ask := max(free, min(capacity-here, most))
	switch _, missing := l.pool.missesFreed(); {
	case missing:
		return max(ask, size)
	case here >= soon && (free == 0 || behind):
		return 0 // soon a claim is worth more
	}
	return ask
}

// plan is how many jobs may be here, and below how many a claim is due. What is done counts
// until it is written, but for what is always on its way: claims must not run away from it.
func (l *loop) plan(a aim, roundTrip time.Duration) (capacity, soon, unwritten int) {
	d, size := l.durations, l.pool.size
	// Nobody knows when a slot is free that has run a job for long. The others move on.
	stuck := l.pool.stuck(d.tooLong())
	moving := size - stuck
	capacity, unwritten = moving, l.completer.Pending()
	if a.within > 0 {
		capacity = min(d.capacity(a.within, moving), a.total)
	}
	waiting := d.finished(min(roundTrips*roundTrip, a.ahead), moving)
	if waiting > 0 {
		capacity = max(capacity, d.fitting(min(moving+waiting, a.total), moving))
	}
	soon = max(moving, capacity*3/4)
	if waiting < size {
		soon = max(soon, min(moving+waiting, capacity)) // these jobs take longer than claims do
	}
	if a.ahead > 0 {
		unwritten -= min(unwritten, a.claim/2, d.finished(2*roundTrip, moving))
	}
	return stuck + capacity, stuck + soon, unwritten
}
