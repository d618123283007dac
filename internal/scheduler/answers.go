package scheduler

import (
	"context"
	"fmt"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
)

// answer is what a source tells the loop: what came of a claim, and of what else a claim
// connection did in the same round trip.
type answer struct {
	claim *claim // nil: it was none

	conn      *claimConn // nil: of a locked claim
	command   command
	open      *openClaim // what was claimed; nil for nothing
	connected bool       // there is a connection now
	freed     bool       // jobs may have become runnable by the end of the claim before
	err       error      // of the connection, where that was all
}

// answered notes an answer, and starts what was claimed.
func (l *loop) answered(ctx context.Context, a answer) {
	if a.conn != nil {
		l.holds.noteAnswer(a)
		l.more = l.more || a.command.connect || l.once && a.command.end != nil
	}
	if a.claim != nil {
		l.claimAnswered(ctx, a.claim)
	}
	l.more = l.more || a.freed
}

// claimAnswered learns from a claim, and has its jobs wait for slots.
func (l *loop) claimAnswered(ctx context.Context, c *claim) {
	if ctx.Err() != nil || l.over {
		l.dropAnswer(c)
		return
	}
	err := l.claims.learn(c)
	l.durations.claimed(c.jobs, l.config.Hold.longest())
	if !c.held {
		l.local.put(c.recovered) // of a claim that failed then, too
		l.local.put(c.jobs)
		if err == nil {
			l.dispatch(c.selection.forbidden)
		}
	}
	l.limits.settle(c.promised.limited, c.promised.rooms, c.jobs)
	l.pool.claimEnded(c.number, c.start(), c.jobs, c.all())
	if err != nil || c.void {
		l.more = true
		if again := c.held && l.holds.claimFailed(c); !again && err != nil {
			l.fail(ctx, err)
		}
		return
	}
	l.holds.claimWorked()
	if c.inTurn {
		l.config.Fleet.Found(waited(c.jobs))
	}
	l.claims.planRecheck(c, l.othersFor())
	l.claims.tell(c.count(), c.asked, c.took)
	if !c.held {
		l.local.fetched(c.count(), c.asked)
	}
	if c.quiet && c.count() == 0 && !c.searched {
		if l.idle() && !c.from.used() && !l.claims.scan.partial() {
			// Idle still: no other claim of this worker has taken what this one looked
			// for. What others hold is theirs to run.
			l.over = true
			return
		}
		l.claims.scan.forget() // nothing is to run anywhere, not only from there on
		c.more = true
	}
	l.more = c.more || l.more && l.wakes != c.wakes
	if l.pausing.ok() {
		l.completer.Wake()
	}
	l.pollAt = time.Now().Add(l.claims.nextPoll(l.config.PollInterval))
}

// dispatch moves jobs from the local queue into free slots, in their order. Those
// that have become forbidden go back.
func (s *Scheduler) dispatch(forbidden []string) {
	free, claimed := s.pool.free(), time.Time{}
	if s.prefetches() {
		claimed = time.Now()
	}
	var returned []int64
	var reason error
	s.local.each(
		func() bool { return free == 0 && !s.prefetches() },
		func(j *job.Claimed) bool {
			if flag, ok := forbids(forbidden, j); ok {
				reason = fmt.Errorf("the flag %q is forbidden now", flag)
				s.giveBack(reason, j)
				returned = append(returned, j.ID)
				return true
			}
			if s.limits.full(j.Task) {
				return false
			}
			s.pool.run(j, claimed)
			free--
			return true
		},
	)
	s.watch(free < 0)
	s.local.report(returned, reason)
}

// dropAnswer sees to a claim that came too late: what it has locked waits in the local
// queue to go back. What it holds is free with its transaction.
func (s *Scheduler) dropAnswer(c *claim) {
	err := s.claims.learn(c)
	if !c.held {
		s.local.put(c.recovered)
		s.local.put(c.jobs)
	}
	s.pool.claimEnded(c.number, cursor{}, nil, false)
	if err != nil && !c.held {
		s.config.Events.Emit(event.ClaimFailed{WorkerID: s.config.WorkerID, Err: err})
	}
}

// awaitClaims waits for the locked claims that are under way at the end.
func (s *Scheduler) awaitClaims() {
	for s.claims.underWay.locked() > 0 {
		s.dropAnswer((<-s.claims.answers).claim)
	}
}
