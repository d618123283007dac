package scheduler

import (
	"slices"
	"time"

	"github.com/gworker/gworker/internal/job"
)

// A claim takes jobs from the database. The loop plans it, a source carries it out (locked.go,
// claim_conn.go), and the loop deals with its answer (answers.go).
type claim struct {
	asked     int          // how many jobs it may take
	held      bool         // a transaction keeps them; otherwise locks are written
	number    int          // in the order of claims
	from      cursor       // where it begins
	scan      *scanPlanner // a scan that comes first; nil: none is due
	selection selection    // what it may take
	promised  selection    // the same when it was planned, see limits
	recovers  bool         // it first looks for the jobs of a claim whose answer was lost
	quiet     bool         // when it was planned, the worker had nothing to do
	wakes     int          // how often the loop had been woken by then
	inTurn    bool         // it was this worker's turn, see LookWithin
	began     time.Time
	late      bool // so held claims wait for it no longer

	// The answer.

	recovered []*job.Claimed // of a claim whose answer was lost
	limit     int            // how many jobs it could take besides them
	unsent    bool           // it failed before its statement was sent
	jobs      []*job.Claimed
	found     found
	walked    bool          // it walked the jobs in their order, beginning at from
	took      time.Duration // its statement
	answered  bool          // what it took is known, if anything
	more      bool          // further jobs may be runnable now
	unlocked  bool          // it met jobs whose locks the database refuses, and left them; the next looks for them
	searched  bool          // jobs were found whose locks the database refuses
	selects   bool          // it went by more than the order of jobs
	lockAt    *time.Time    // the time that its locks name, where it is not the database's
	void      bool          // it was undone before anything came of it
	stale     bool          // the connection had died before, which says nothing of the database
	err       error
}

// count is how many jobs the worker has by it.
func (c *claim) count() int { return len(c.recovered) + len(c.jobs) }

// all reports whether it took everything that could run from where it began.
func (c *claim) all() bool {
	return c.err == nil && len(c.jobs) < c.limit && !c.found.cut(len(c.jobs))
}

// start is where it began; a claim that selects has no cursor.
func (c *claim) start() cursor {
	if c.walked {
		return c.from
	}
	return cursor{}
}

// underWay are the claims whose answers the loop awaits. It belongs to the loop.
type underWay []*claim

func (u *underWay) add(c *claim) { *u = append(*u, c) }

func (u *underWay) remove(c *claim) {
	*u = slices.DeleteFunc(*u, func(other *claim) bool { return other == c })
}

// locked and held count the claims of each source.
func (u underWay) locked() (count int) { return len(u) - u.held() }

func (u underWay) held() (count int) {
	for _, c := range u {
		if c.held {
			count++
		}
	}
	return count
}

// asked is how many jobs they may take. Late ones are left out: they wait for something.
func (u underWay) asked() (jobs int) {
	for _, c := range u {
		if !c.late {
			jobs += c.asked
		}
	}
	return jobs
}

// claimIsLate is after what time a locked claim that is under way keeps held ones back no
// more: it waits for something that they may not need.
const claimIsLate = 50 * time.Millisecond

// expire notes the locked claims that have become late, and reports whether one has.
func (u underWay) expire(now time.Time) (late bool) {
	for _, c := range u {
		if !c.held && !c.late && !now.Before(c.began.Add(claimIsLate)) {
			c.late, late = true, true
		}
	}
	return late
}

// prompt reports whether there is a claim that has not taken long yet.
func (u underWay) prompt(now time.Time) bool {
	return slices.ContainsFunc(u, func(c *claim) bool { return now.Before(c.began.Add(claimIsLate)) })
}

// blocksHeld reports whether no held claim may begin, and until when; zero is until an
// answer is here.
func (u underWay) blocksHeld() (blocks bool, until time.Time) {
	for _, c := range u {
		switch {
		case c.held:
		case c.recovers:
			return true, time.Time{}
		case !c.late:
			blocks, until = true, earlier(until, c.began.Add(claimIsLate))
		}
	}
	return blocks, until
}

// late reports whether a locked claim is late.
func (u underWay) late() bool { return slices.ContainsFunc(u, func(c *claim) bool { return c.late }) }

// earlier is the first of two times of which each may be none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// due reports whether the time is one, and has come.
func due(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }
