package scheduler

import (
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// command is what a connection is to do, in one round trip: end a claim, begin the next.
type command struct {
	connect bool // nothing else
	end     *openClaim
	claim   int
	scan    *scanPlanner // comes before the claim; nil: none is due
	from    cursor       // where the claim begins
	quiet   bool         // when it was given, the worker had nothing to do
	woken   int          // how often the loop had been woken by then
	number  int          // of the claim
}

// answer is what came of a command.
type answer struct {
	command
	conn  *claimConn
	open  *openClaim // what was claimed; nil for nothing
	count int
	found found         // what the claim tells besides them
	seen  int           // jobs that were there, if it took none
	more  bool          // there may be further jobs
	void  bool          // the claim was undone before anything came of it
	freed bool          // jobs may have become runnable by the end of the claim
	err   error         // of the claim
	took  time.Duration // without the scan

	connected bool          // there is a connection now
	scanned   time.Duration // how long the scan took
}

// stale reports whether a claim failed because its connection had died while nothing
// was held: that says nothing about the database, and another connection may do.
func (a answer) stale() bool {
	return a.claim > 0 && a.end == nil && !a.connected && (retry.Of(a.err) == retry.Connection || retry.Elsewhere(a.err))
}

// passes reports whether a claim that failed is tried again at once, on another
// connection. Where claims go on failing like that, it is the database after all.
func (h *heldClaims) passes(a answer) bool { return a.stale() && h.access.stale < claimConns }

// channels for the loop; nil where there is nothing to hear.
func (h *heldClaims) heard() <-chan answer {
	if h == nil {
		return nil
	}
	return h.answers
}

func (h *heldClaims) due() <-chan time.Time {
	if h == nil {
		return nil
	}
	return h.timer.C
}

// heldClaimed tells the scan of a held claim. Its time includes the end of the claim
// before, which makes scans come a little more often than they need to.
func (s *scanPlanner) heldClaimed(a answer) {
	var jobs []*job.Claimed
	if a.open != nil {
		jobs = a.open.claimed
	}
	s.claimed(a.from, a.claim, jobs, a.found, a.took)
}

// planRecheck plans the next claim after one that found jobs and could take none.
func (h *heldClaims) planRecheck(a answer) {
	if a.count > 0 || a.seen == 0 {
		h.recheck.reset()
		return
	}
	now := time.Now()
	for _, cc := range h.conns {
		if cc != a.conn && (cc.busy || cc.open != nil) {
			// Most likely it was this worker, and the end of that claim brings the
			// next claim.
			now = now.Add(h.config.Time)
			break
		}
	}
	h.recheck.fail(now)
}

// send gives a connection a command, and reports whether there may be more to claim than
// what it asks for.
func (h *heldClaims) send(cc *claimConn, c command) (more bool) {
	cc.busy, cc.open, cc.asked = true, nil, c.claim
	c.woken = h.woken
	if c.claim > 0 {
		c.number = h.pool.claimBegins()
		if c.scan = h.scan.send(nil); c.scan == nil {
			c.from = h.scan.from()
		}
	}
	if c.claim > 0 && h.events.WantsFrequent() {
		h.events.Emit(event.ClaimStarted{WorkerID: h.workerID, Asked: c.claim})
	}
	cc.commands <- c
	return c.claim == 0 || h.plentiful
}

// answered notes what came of a command, and reports whether there may be more.
func (h *heldClaims) answered(a answer, more bool) bool {
	a.conn.answered(a)
	h.scan.back(a.scan)
	if a.freed {
		more = true
	}
	switch {
	case a.connect:
		h.connected(a.err)
		return true
	case a.claim == 0:
		return more
	case a.err != nil:
		h.pool.claimEnded(a.number, cursor{}, nil, false)
		h.plentiful = false
		if h.passes(a) {
			h.access.stale++
			h.access.next = time.Time{}
			return true
		}
		h.suspect = h.suspect || retry.Of(a.err) == retry.Connection
		return true
	}
	h.access.stale = 0
	if a.void {
		h.pool.claimEnded(a.number, cursor{}, nil, false)
		return true
	}
	h.plentiful = a.more
	h.scan.heldClaimed(a)
	var jobs []*job.Claimed
	if a.open != nil {
		jobs = a.open.claimed
		h.durations.claimed(jobs, h.config.Time)
	}
	h.pool.claimEnded(a.number, a.from, jobs, len(jobs) < a.claim && !a.found.cut(len(jobs)))
	h.planRecheck(a)
	switch {
	case a.count > 0:
		h.events.Emit(event.JobsClaimed{WorkerID: h.workerID, Count: a.count, Asked: a.claim, Duration: a.took})
	case h.events.WantsFrequent():
		h.events.Emit(event.ClaimEmpty{WorkerID: h.workerID, Asked: a.claim, Duration: a.took})
	}
	if a.more {
		return true
	}
	return more && (h.woken != a.woken || a.freed)
}
