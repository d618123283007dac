package scheduler

import (
	"context"
	"fmt"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
)

// Locked claims: one statement writes the locks of the jobs that it takes. A claim comes
// in, and its answer goes to the loop, which does not wait meanwhile.

// mostLocked is how many locked claims can be under way at once: while the jobs of one are
// read and started, the server works on the next.
const mostLocked = 2

// lock has the database carry out a locked claim. The answer is sent to claimer.answers.
func (s *Scheduler) lock(ctx context.Context, c *claim) {
	known := s.known
	if !c.recovers {
		known = nil
	}
	go func() {
		s.claims.carryOut(ctx, s.claiming, c, known)
		s.claims.answers <- answer{claim: c}
	}()
}

// carryOut has the database do it. Flags are asked for under asking, which may end before.
// The jobs that known lists are none of a claim whose answer was lost.
func (c *claimer) carryOut(asking, ctx context.Context, cl *claim, known func() []*job.Claimed) {
	cl.unsent = true
	if known != nil {
		if cl.recovered, cl.err = c.recoverLostClaim(ctx, known()); cl.err != nil {
			return
		}
		cl.selection = cl.selection.without(cl.recovered)
	}
	if cl.selection.forbidden, cl.err = c.flags.forbidden(asking, c.timeout); cl.err != nil {
		return
	}
	cl.unsent, cl.limit = false, cl.asked-len(cl.recovered)
	switch s := cl.selection; {
	case cl.limit <= 0:
		cl.answered, cl.more = true, true
		return
	case len(s.tasks)+len(s.limited) == 0: // every task is at its limit
		cl.answered = true
		return
	case c.refused.any() && c.refused.searching():
		c.search(ctx, cl, nil)
		return
	case c.selects(s):
		began, unlocked := time.Now(), 0
		cl.jobs, cl.more, unlocked, cl.err = c.choose(ctx, cl.limit, s, nil, false)
		cl.took, cl.answered, cl.searched = time.Since(began), cl.err == nil, unlocked > 0
	default:
		c.walk(ctx, cl)
	}
	if !cl.answered && refusesOne(cl.err) {
		c.search(ctx, cl, cl.err)
	}
	if !cl.walked && cl.more {
		cl.found.seen = 1 // there are further jobs, whatever kept them from being taken
	}
}

// walk takes the first jobs there are from the cursor on.
func (c *claimer) walk(ctx context.Context, cl *claim) {
	if cl.scan != nil {
		if cl.from, cl.err = cl.scan.begin(ctx); cl.err != nil {
			return
		}
	}
	began := c.scan.now()
	rows, err := c.rows(ctx, cl.limit, cl.from)
	cl.took = c.scan.now().Sub(began)
	if err != nil {
		cl.err = err
		return
	}
	if cl.unlocked = rows.unlocked; cl.unlocked {
		c.refused.unlocked()
		if len(rows.jobs) == 0 {
			c.search(ctx, cl, nil)
			return
		}
	}
	cl.answered, cl.err = true, c.names.name(ctx, rows, c.queries)
	cl.jobs, cl.found, cl.walked = rows.jobs, rows.found, true
}

// rows takes jobs by the statement that suits them.
func (c *claimer) rows(ctx context.Context, limit int, from cursor) (*claimedRows, error) {
	text, args := claimStatement(from, c.tasks, limit, lockAll, c.workerID)
	rows, err := c.db.QueryByIndex(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	claimed := &claimedRows{workerID: c.workerID}
	return claimed, claimed.read(rows)
}

// recoverLostClaim finds the jobs of a claim that took effect although its answer was lost.
// known are the jobs that this worker has.
func (c *claimer) recoverLostClaim(ctx context.Context, known []*job.Claimed) ([]*job.Claimed, error) {
	p := dbgen.ListLockedJobsParams{WorkerID: c.workerID, Known: []int64{}, LockedAts: []time.Time{}}
	for _, j := range known {
		p.Known = append(p.Known, j.ID)
		p.LockedAts = append(p.LockedAts, j.Lock.At)
	}
	rows, err := c.queries.ListLockedJobs(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("looking for the jobs of a claim whose answer was lost: %w", err)
	}
	var jobs []*job.Claimed
	for _, row := range rows {
		jobs = append(jobs, c.locked(row))
	}
	if len(jobs) > 0 {
		c.events.Emit(event.LostClaimRecovered{WorkerID: c.workerID, Count: len(jobs)})
	}
	return jobs, nil
}
