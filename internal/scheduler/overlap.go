package scheduler

import (
	"context"
	"time"

	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
)

// mostOverlapping is how many claims there can be under way at once: while the jobs
// of one are read and started, the server works on the next.
const mostOverlapping = 2

// overlap is the claims that are under way while the loop goes on. It belongs to the
// loop. Where the answer to one is lost, no other begins before the others are here:
// only then it is known which jobs are missing.
type overlap struct {
	on        bool
	answers   chan overlapped
	count     int // of the claims
	asked     int // of their jobs
	plentiful bool
	woken     int // how often the loop was woken
}

// overlapped is what came of a claim.
type overlapped struct {
	from  place
	asked int
	woken int
	claim int // its number
	began time.Time
	took  time.Duration
	rows  *claimedRows
	err   error
}

func newOverlap(c Config, a ahead) overlap {
	return overlap{on: a.on && c.Now == nil, answers: make(chan overlapped, mostOverlapping)}
}

// overlaps reports whether a claim may be under way beside others, where it goes beyond
// the slots, so that there is enough to do meanwhile; or whether it has to wait for their
// answers. Of jobs in queues only the first can be taken, so there a claim at once would
// find few, for the price of many.
func (s *Scheduler) overlaps(ask int) (beside, wait bool) {
	beside = s.overlap.on && ask > s.pool.free() && s.pool.mayClaim() && !s.claims.doubt() && !s.claims.survey.depth.queued &&
		!s.claims.refused.any()
	return beside, s.overlap.count > 0 && !beside
}

// claimBeside begins a claim and does not wait for it. It reports whether another may
// begin at once.
func (s *Scheduler) claimBeside(ask int) (more bool, err error) {
	ctx := s.claiming
	from, err := s.claims.survey.begin(ctx)
	if err != nil {
		return true, err
	}
	if s.config.Events.WantsFrequent() {
		s.config.Events.Emit(event.ClaimStarted{WorkerID: s.config.WorkerID, Asked: ask})
	}
	o := &s.overlap
	o.count++
	o.asked += ask
	a := overlapped{from: from, asked: ask, woken: o.woken, claim: s.pool.claimBegins(), began: time.Now()}
	go func() {
		a.rows, a.err = s.claims.rows(ctx, ask, from)
		a.took = time.Since(a.began)
		o.answers <- a
	}()
	return o.plentiful, nil
}

// overlapEnded starts what such a claim has taken. more is what the loop knew of further
// jobs, and what it knows then.
func (s *Scheduler) overlapEnded(a overlapped, more bool) (bool, error) {
	o := &s.overlap
	o.count--
	o.asked -= a.asked
	o.plentiful = false
	jobs, further, err := s.claims.tookBeside(s.claiming, a)
	if err != nil {
		s.pool.claimEnded(a.claim, place{}, nil, false)
		return true, err
	}
	o.plentiful = len(jobs) >= a.asked
	s.start(jobs, nil)
	s.pool.claimEnded(a.claim, a.from, jobs, len(jobs) < a.asked && !a.rows.found.cut(len(jobs)))
	s.tellClaimed(len(jobs), a.asked, a.took)
	return further || more && o.woken != a.woken, nil
}

// endOverlap waits for all claims that are under way; what they take goes back.
func (s *Scheduler) endOverlap() {
	for s.overlap.count > 0 {
		a := <-s.overlap.answers
		s.overlap.count--
		jobs, _, err := s.claims.tookBeside(s.claiming, a)
		if err != nil {
			s.config.Events.Emit(event.ClaimFailed{WorkerID: s.config.WorkerID, Err: err})
		}
		s.local.put(jobs)
	}
}

func (c *claimer) tookBeside(ctx context.Context, a overlapped) (jobs []*job.Claimed, more bool, err error) {
	if a.err != nil {
		return nil, false, c.failed(a.asked, a.err)
	}
	return c.took(ctx, a.rows, a.asked, a.from, a.took)
}
