package scheduler

import "time"

// lookout has a claim come soon, and less soon each time in a row, after one that
// took none of the jobs that it found: they were in somebody else's hands in just
// that moment, or lie further on than it looked. Nobody tells of them.
type lookout struct {
	times int
	next  time.Time // zero: no look is due
}

const longestLookout = time.Second

// again plans the next look.
func (l *lookout) again(now time.Time) {
	l.next = now.Add(min(time.Millisecond<<l.times, longestLookout))
	l.times = min(l.times+1, 10)
}

// over is for a claim that took what it found, or found nothing.
func (l *lookout) over() { *l = lookout{} }
