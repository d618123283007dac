package scheduler

import (
	"time"
)

// Demand: how many jobs a claim takes. It takes what the free slots can start at once, and
// more where jobs are known to be so short that the slots get to all of them soon:
// otherwise claims could not keep up. A local queue has demands of its own
// (localqueue.go).

// An aim is how far a claim goes beyond the free slots. The zero aim is not at all.
type aim struct {
	within time.Duration // the slots get to what waits in that time
	claim  int           // jobs in a claim
	total  int           // jobs that run, wait, or are being claimed
}

const (
	mostPrefetched       = 500 // jobs in a locked claim
	mostPrefetchedAtOnce = 2000
	prefetchFor          = 25 * time.Millisecond

	mostHeld = 2000 // jobs in a held claim
)

// lockedAim is nothing where jobs are held, as then those are locked that take longer, and
// where jobs are chosen by more than their order.
func lockedAim(c Config, holds *heldClaims) aim {
	if holds != nil || c.LocalQueue.Size > 0 || c.TaskLimits != nil || c.Flags.any() {
		return aim{}
	}
	return aim{within: prefetchFor, claim: mostPrefetched, total: mostPrefetchedAtOnce}
}

// heldAim is as many jobs as the slots are expected to have worked off within half the
// hold time.
func heldAim(c Config) aim {
	return aim{within: c.Hold.Time / 2, claim: mostHeld, total: 2 * mostHeld}
}

// demand is how many jobs a locked claim takes now; 0 means that there shall be none.
func (l *loop) demand(more bool) int {
	switch {
	case l.local.on():
		return l.local.demand(more, l.pool.free())
	case !more || l.limits.none() && l.local.len() > 0: // a free slot is for what waits
		return 0
	}
	return l.demandFor(l.lockedAim)
}

// demandFor is how many jobs a claim with that aim takes now. The loop is nudged when fewer
// jobs are here than make another worthwhile.
func (l *loop) demandFor(a aim) int {
	size := l.pool.size
	capacity := size
	if a.within > 0 {
		capacity = min(l.durations.capacity(a.within, size), a.total)
	}
	l.pool.wantBelow(max(size, capacity*3/4))
	here, unwritten := l.pool.running()+l.claims.underWay.asked(), l.completer.Pending()
	free := max(0, size-here)
	// What is done counts until that is written: claims must not run away from it.
	behind := a.claim > 0 && unwritten >= a.claim
	here += unwritten
	ask := max(free, min(capacity-here, a.claim))
	switch _, missing := l.pool.missesFreed(); {
	case missing:
		return max(ask, size)
	case here >= capacity*3/4 && (free == 0 || behind):
		return 0 // soon a claim is worth more
	}
	return ask
}
