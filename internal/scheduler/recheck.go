package scheduler

import "time"

// recheckBackoff has a claim come soon, and less soon each time in a row, after one that
// took none of the jobs that it found: another session had locked them in just
// that moment, or they lie further on than it looked. Nobody tells of them.
type recheckBackoff struct {
	times int
	next  time.Time // zero: no look is due
}

const longestRecheck = time.Second

// fail plans the next look.
func (b *recheckBackoff) fail(now time.Time) {
	b.next = now.Add(min(time.Millisecond<<b.times, longestRecheck))
	b.times = min(b.times+1, 10)
}

// reset is for a claim that took what it found, or found nothing.
func (b *recheckBackoff) reset() { *b = recheckBackoff{} }
