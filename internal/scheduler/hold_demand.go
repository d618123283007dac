package scheduler

import (
	"slices"
	"time"
)

// underWay is the ordinary claim that is under way; the zero value is none.
type underWay struct {
	asked  int
	lateAt time.Time // when it keeps connections from claiming no more
	alone  bool      // unless it must be the only one
}

// blocks reports whether no connection may claim, and until when; zero is until it is over.
func (u underWay) blocks(now time.Time) (is bool, until time.Time) {
	switch {
	case u.asked == 0:
		return false, time.Time{}
	case u.alone:
		return true, time.Time{}
	}
	return now.Before(u.lateAt), u.lateAt
}

// late reports whether it waits for something.
func (u underWay) late(now time.Time) bool { return u.asked > 0 && !now.Before(u.lateAt) }

// claiming reports whether a claim of a connection is under way.
func (h *heldClaims) claiming() bool {
	return h != nil && slices.ContainsFunc(h.conns, func(cc *claimConn) bool { return cc.asked > 0 })
}

// wants reports whether the next claim is to be a held one: if there is a connection
// for it. Where most jobs are slow nothing is won by it, unless an ordinary claim
// cannot be had now. None is held while jobs are known whose locks are refused.
func (h *heldClaims) wants(late bool) bool {
	return h != nil && (late || h.worthwhile()) && !h.refused.any() && h.usable(time.Now())
}

// worthwhile reports whether something is won by holding jobs.
func (h *heldClaims) worthwhile() bool { return h.durations.slowShare < 0.5 }

// demand is how many jobs a claim shall hold now: as many as the slots are expected
// to have worked off within half the hold time, together with those that are here.
func (h *heldClaims) demand() int {
	here := h.pool.running()
	if !h.underWay.late(time.Now()) {
		here += h.underWay.asked
	}
	for _, cc := range h.conns {
		here += cc.asked
	}
	capacity := min(h.durations.capacity(h.config.Time/2, h.size), 2*mostHeld)
	h.pool.wantBelow(max(h.size, capacity*3/4))
	free := max(0, h.size-here)
	ask := max(free, min(capacity-here, mostHeld))
	if _, missing := h.pool.missesFreed(); missing {
		return max(ask, h.size)
	}
	if free == 0 && ask < capacity/4 {
		return 0 // soon it is worth more
	}
	return ask
}

// advance ends the claims that are to end, and, if it may, claims for connections that have
// nothing to do. It reports whether there still may be jobs that no claim under
// way will find.
func (h *heldClaims) advance(may, quiet bool, other underWay) (more bool) {
	now, next := time.Now(), h.recheck.next
	if !next.IsZero() && !next.After(now) {
		may, h.recheck.next, next = true, time.Time{}, time.Time{}
	}
	h.underWay = other
	blocked, until := other.blocks(now)
	if blocked {
		next = earlier(next, until)
	}
	late := other.late(now)
	wants := may
	may = may && !blocked && h.settled()
	free := h.free()
	for _, cc := range h.conns {
		if cc.busy || cc.open == nil {
			continue
		}
		if at := h.endAt(cc.open, may && free == 0); at.After(now) {
			next = earlier(next, at)
			continue
		}
		ask := 0
		if may && h.wants(late) && h.pool.mayClaim() {
			ask = h.demand()
		}
		may = h.send(cc, command{end: cc.open, claim: ask}) && may
	}
	for _, cc := range h.conns {
		if !may || !h.wants(late) || cc.busy || cc.open != nil || !cc.connected || !h.pool.mayClaim() {
			continue
		}
		if ask := h.demand(); ask > 0 {
			may = h.send(cc, command{claim: ask, quiet: quiet})
		}
	}
	if may && (late || h.worthwhile()) {
		next = earlier(next, h.connect(now))
	}
	h.timer.Stop()
	if !next.IsZero() {
		h.timer.Reset(time.Until(next))
	}
	return may || wants && (blocked || !h.settled())
}

// free is how many connections can find what there is to claim: a claim under way does, and
// so will one that is opened in a moment.
func (h *heldClaims) free() (conns int) {
	for _, cc := range h.conns {
		switch {
		case cc.asked > 0, cc.connecting && h.access.tries == 0:
			conns++
		case !cc.busy && cc.open == nil && (cc.connected || h.access.tries == 0):
			conns++
		}
	}
	return conns
}

// earlier is the first of two times of which each may be none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// settled reports whether jobs may be claimed. While it is not known what has
// become of lost claims, this worker must not take their jobs for free ones.
func (h *heldClaims) settled() bool {
	if h == nil {
		return true
	}
	if h.suspect {
		for _, cc := range h.conns {
			if cc.open != nil || cc.busy {
				return false
			}
		}
		h.suspect = false
	}
	return h.rescuing.Load() == 0
}

// endAt is when a claim is to end at the latest. scarce says that there are jobs to
// claim and no connection for it.
func (h *heldClaims) endAt(oc *openClaim, scarce bool) time.Time {
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	if oc.left == 0 || oc.wanted || h.suspect {
		return time.Time{}
	}
	patience := h.config.Time
	if scarce && h.pool.count < h.size {
		// Slots are idle, because the claim waits for its last jobs.
		patience = min(patience, time.Duration(h.durations.all.mean.Load())+time.Millisecond)
	}
	return oc.since.Add(patience)
}
