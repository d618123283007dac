package scheduler

import (
	"time"

	"github.com/gworker/gworker/internal/retry"
)

// command is what a connection is to do, in one round trip: end a claim, begin the next.
type command struct {
	connect bool // nothing else
	end     *openClaim
	claim   *claim
}

// hold ends the held claims that are to end, and begins others where a connection has
// nothing to do. What is left of more then is for locked claims.
func (l *loop) hold(now time.Time) {
	h := l.holds
	if h == nil {
		return
	}
	may := l.more && !l.polled && !l.pausing.paused()
	wanted, others := may, l.more && !may
	blocked, until := l.claims.underWay.blocksHeld()
	late := l.claims.underWay.late()
	h.settle()
	may = may && !blocked && h.settled()
	h.next = until
	may = l.endHeld(now, may, late)
	may = may && l.beginHeld(late)
	if may && (late || h.worthwhile()) {
		h.next = earlier(h.next, h.connect(now))
	}
	l.more = may || wanted && (blocked || !h.settled()) || others
}

// endHeld ends the claims that are to end, and begins the next on their connections, if it
// may. It reports whether more may begin.
func (l *loop) endHeld(now time.Time, may, late bool) bool {
	h := l.holds
	scarce := may && h.free() == 0
	for _, cc := range h.conns {
		if cc.busy || cc.open == nil {
			continue
		}
		if at := h.endAt(cc.open, scarce); at.After(now) {
			h.next = earlier(h.next, at)
			continue
		}
		ask := 0
		if may && h.wants(late) && l.pool.mayClaim() {
			ask = l.demandFor(h.aim, l.claims.heldRoundTrip)
		}
		may = l.send(cc, cc.open, ask) && may
	}
	return may
}

// beginHeld begins claims on connections that have nothing to do, and reports whether more
// may begin.
func (l *loop) beginHeld(late bool) (more bool) {
	h := l.holds
	for _, cc := range h.conns {
		if !h.wants(late) || cc.busy || cc.open != nil || !cc.connected || !l.pool.mayClaim() {
			continue
		}
		if ask := l.demandFor(h.aim, l.claims.heldRoundTrip); ask > 0 && !l.send(cc, nil, ask) {
			return false
		}
	}
	return true
}

// send gives a connection a command, and reports whether there may be more to claim than
// what it asks for.
func (l *loop) send(cc *claimConn, end *openClaim, ask int) (more bool) {
	c := command{end: end}
	if ask > 0 {
		c.claim = l.newClaim(ask, true)
	}
	cc.command(c)
	return ask == 0 || l.claims.plentiful
}

// The rest is what the loop knows of connections.

// wants reports whether the next claim is to be a held one: if there is a connection
// for it. Where most jobs are slow nothing is won by it, unless a locked claim
// cannot be had now. None is held while jobs are known whose locks are refused.
func (h *heldClaims) wants(late bool) bool {
	return h != nil && (late || h.worthwhile()) && !h.refused.any() && h.usable(time.Now())
}

// worthwhile reports whether something is won by holding jobs.
func (h *heldClaims) worthwhile() bool { return h.durations.slowShare < 0.5 }

// free is how many connections can find what there is to claim: a claim under way does, and
// so will one that is opened in a moment.
func (h *heldClaims) free() (conns int) {
	for _, cc := range h.conns {
		switch {
		case cc.claiming, cc.connecting && h.access.tries == 0:
			conns++
		case !cc.busy && cc.open == nil && (cc.connected || h.access.tries == 0):
			conns++
		}
	}
	return conns
}

// settle ends the suspicion against what was held when the database went away, once that
// is over.
func (h *heldClaims) settle() { h.suspect = h.suspect && h.othersFor() > 0 }

// settled reports whether jobs may be claimed. While it is not known what has
// become of lost claims, this worker must not take their jobs for free ones.
func (h *heldClaims) settled() bool {
	return h == nil || !(h.suspect && h.othersFor() > 0) && h.rescuing.Load() == 0
}

// othersFor is how long this worker may have jobs for which another claim looks: as long
// as a claim is held; 0 if none is.
func (h *heldClaims) othersFor() time.Duration {
	if h == nil {
		return 0
	}
	for _, cc := range h.conns {
		if cc.busy || cc.open != nil {
			return h.config.Time
		}
	}
	return 0
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

// nextEnd is when hold is to be called again although nothing happens; zero for never.
func (h *heldClaims) nextEnd() time.Time {
	if h == nil {
		return time.Time{}
	}
	return h.next
}

// heard is where connections answer; nil if nothing is held.
func (h *heldClaims) heard() <-chan answer {
	if h == nil {
		return nil
	}
	return h.answers
}

// noteAnswer notes what a command has made of its connection.
func (h *heldClaims) noteAnswer(a answer) {
	a.conn.answered(a)
	if a.command.connect {
		h.connected(a.err)
	}
}

// claimFailed notes that a claim has failed, and reports whether it is tried again at once,
// on another connection. Where claims go on failing like that, it is the database after all.
func (h *heldClaims) claimFailed(c *claim) (again bool) {
	if c.err == nil {
		return true
	}
	if c.stale && h.access.stale < claimConns {
		h.access.stale++
		h.access.next = time.Time{}
		return true
	}
	h.suspect = h.suspect || !c.unsent && retry.Of(c.err) == retry.Connection
	return false
}

// claimWorked notes that one has not.
func (h *heldClaims) claimWorked() {
	if h != nil {
		h.access.stale = 0
	}
}
