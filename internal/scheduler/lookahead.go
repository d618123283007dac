package scheduler

import (
	"time"

	"github.com/gworker/gworker/internal/job"
)

// Claims of jobs without queues walk the table's order and take what they meet.
// Where jobs have queues, only the first of each can be taken, so a claim first
// looks at so many jobs, and then takes what can be taken of these. How many that
// are is adapted to where the jobs lie that are taken: half as far again as three
// quarters of them. (Not by the last one: a queue that has come ahead of the others
// would be kept ahead of them, for the price of a long look with each claim.)
//
// Behind them there may be further queues. Where a claim finds less than it might
// have taken, the next looks four times as far, and so on; but only if lookAheadShare
// times has passed what the last such look took. So however many jobs of a few busy
// queues lie ahead, looking past them costs a bounded share of the time, and all
// that can run is found at last.
const (
	lookAheadShare  = 9
	firstLookAhead  = 128
	leastLookAhead  = 32
	lookAheadFactor = 4
	wholeTable      = 1 << 28
)

// found is what a claim tells besides the jobs; see ClaimJobs and ClaimQueuedJobs.
type found struct{ seen, looked, reached int }

// cut reports whether a claim that took this many left jobs out because of the size of
// their payloads.
func (f found) cut(count int) bool { return count > 0 && f.seen > 0 }

// truncated reports whether a claim that took this many may have missed jobs of
// queues that it did not look at.
func (c cursor) truncated(asked, count int, f found) bool {
	if c.lookAt == 0 {
		return count < asked && f.looked > 0 // a claim of the other kind sees more
	}
	return f.looked >= int(c.lookAt)
}

// more reports whether a claim right after this one may find jobs.
func (c cursor) more(asked, count int, f found) bool {
	return count >= asked || f.cut(count) || c.truncated(asked, count, f) && (count > 0 || c.lookAt == 0)
}

// missed is how many jobs at least a claim could not take that took none: they
// are another session's, or it did not look as far.
func (c cursor) missed(asked, count int, f found) int {
	switch {
	case count > 0:
		return 0
	case c.truncated(asked, count, f):
		return max(f.seen, 1)
	}
	return f.seen
}

// lookAhead is how far claims look. It belongs to the goroutine that claims.
type lookAhead struct {
	queued    bool // there are jobs of queues
	look      int
	deeper    int  // the next look that goes further
	short     bool // the last claim found less than it might have taken
	all       bool // the next claim is to see everything
	truncated bool // the last one did not
	deepAt    time.Time
	deepTook  time.Duration
}

func newLookAhead() lookAhead {
	return lookAhead{look: firstLookAhead, deeper: lookAheadFactor * firstLookAhead}
}

// next is how many jobs the next claim looks at; 0 is a claim for jobs without
// queues.
func (l *lookAhead) next(now time.Time) int32 {
	switch {
	case !l.queued:
		return 0
	case l.all:
		return wholeTable
	case l.short && now.Sub(l.deepAt) >= lookAheadShare*l.deepTook:
		return int32(min(l.deeper, wholeTable))
	}
	return int32(l.look)
}

// claimed tells what came of a claim that looked at so many.
func (l *lookAhead) claimed(c cursor, asked int, jobs []*job.Claimed, f found, took time.Duration, now time.Time) {
	count, lookAt := len(jobs), int(c.lookAt)
	l.all = false
	l.truncated = c.truncated(asked, count, f)
	queued := false
	for _, j := range jobs {
		queued = queued || j.Queue != ""
	}
	if lookAt == 0 {
		l.queued = queued || f.looked > 0
		return
	}
	if !queued && (count >= asked || count == f.looked) {
		l.queued = false // all that there is to be seen has no queue
		return
	}
	if lookAt > l.look {
		l.deepAt, l.deepTook = now, took
	}
	l.short = l.truncated && count < asked
	switch {
	case count > 0 && lookAt >= l.look:
		l.look = max(leastLookAhead, f.reached+f.reached/2, min(lookAt, l.look)/2)
	case count == 0 && lookAt > l.look && !l.truncated:
		l.look = lookAt // nothing runs; what comes may come behind all that
	}
	l.look = min(l.look, wholeTable)
	switch {
	case !l.short:
		l.deeper = min(lookAheadFactor*l.look, wholeTable)
	case lookAt >= l.deeper:
		l.deeper = min(lookAheadFactor*lookAt, wholeTable)
	}
	l.deeper = max(l.deeper, min(lookAheadFactor*l.look, wholeTable))
}
