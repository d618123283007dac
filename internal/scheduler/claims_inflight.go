package scheduler

import (
	"context"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
)

// mostInFlight is how many claims there can be in flight at once: while the jobs
// of one are read and started, the server works on the next.
const mostInFlight = 2

// claimsInFlight are the claims that are in flight while the loop goes on. It belongs to the
// loop. Where the answer to one is lost, no other begins before the others are here:
// only then it is known which jobs are missing.
type claimsInFlight struct {
	on        bool
	answers   chan inFlightClaim
	count     int // of the claims
	asked     int // of their jobs
	plentiful bool
	woken     int // how often the loop was woken
}

// inFlightClaim is what came of a claim.
type inFlightClaim struct {
	from  cursor
	asked int
	woken int
	claim int // its number
	began time.Time
	took  time.Duration
	rows  *claimedRows
	err   error
}

func newClaimsInFlight(c Config, p prefetch) claimsInFlight {
	return claimsInFlight{on: p.on && c.Now == nil, answers: make(chan inFlightClaim, mostInFlight)}
}

// mayOverlap reports whether a claim may be in flight while others are, where it goes beyond
// the slots, so that there is enough to do meanwhile; or whether it has to wait for their
// answers. Of jobs in queues only the first can be taken, so there a claim at once would
// find few, for the price of many.
func (s *Scheduler) mayOverlap(ask int) (another, wait bool) {
	another = s.inFlight.on && ask > s.pool.free() && s.pool.mayClaim() && !s.claims.unknownOutcome() && !s.claims.scan.lookAhead.queued &&
		!s.claims.refused.any()
	return another, s.inFlight.count > 0 && !another
}

// claimInFlight begins a claim and does not wait for it. It reports whether another may
// begin at once.
func (s *Scheduler) claimInFlight(ask int) (more bool, err error) {
	ctx := s.claiming
	from, err := s.claims.scan.begin(ctx)
	if err != nil {
		return true, err
	}
	if s.config.Events.WantsFrequent() {
		s.config.Events.Emit(event.ClaimStarted{WorkerID: s.config.WorkerID, Asked: ask})
	}
	o := &s.inFlight
	o.count++
	o.asked += ask
	a := inFlightClaim{from: from, asked: ask, woken: o.woken, claim: s.pool.claimBegins(), began: time.Now()}
	go func() {
		a.rows, a.err = s.claims.rows(ctx, ask, from)
		a.took = time.Since(a.began)
		o.answers <- a
	}()
	return o.plentiful, nil
}

// inFlightAnswered starts what such a claim has taken. more is what the loop knew of further
// jobs, and what it knows then.
func (s *Scheduler) inFlightAnswered(a inFlightClaim, more bool) (bool, error) {
	o := &s.inFlight
	o.count--
	o.asked -= a.asked
	o.plentiful = false
	jobs, further, err := s.claims.tookInFlight(s.claiming, a)
	if err != nil {
		s.pool.claimEnded(a.claim, cursor{}, nil, false)
		return true, err
	}
	o.plentiful = len(jobs) >= a.asked
	s.start(jobs, nil)
	s.pool.claimEnded(a.claim, a.from, jobs, len(jobs) < a.asked && !a.rows.found.cut(len(jobs)))
	s.tellClaimed(len(jobs), a.asked, a.took)
	return further || more && o.woken != a.woken, nil
}

// awaitInFlight waits for all claims that are in flight; what they take goes back.
func (s *Scheduler) awaitInFlight() {
	for s.inFlight.count > 0 {
		a := <-s.inFlight.answers
		s.inFlight.count--
		jobs, _, err := s.claims.tookInFlight(s.claiming, a)
		if err != nil {
			s.config.Events.Emit(event.ClaimFailed{WorkerID: s.config.WorkerID, Err: err})
		}
		s.local.put(jobs)
	}
}

func (c *claimer) tookInFlight(ctx context.Context, a inFlightClaim) (jobs []*job.Claimed, more bool, err error) {
	if a.err != nil {
		return nil, false, c.failed(a.asked, a.err)
	}
	return c.took(ctx, a.rows, a.asked, a.from, a.took)
}
