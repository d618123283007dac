package scheduler

import (
	"sync/atomic"
	"time"
)

// distance is the way to the database and back: what the quickest statement has taken. What
// a statement takes beyond that is the server's work. It may be used by any goroutine.
type distance struct{ least atomic.Int64 }

// note notes how long one statement has taken, or several.
func (d *distance) note(took time.Duration) {
	for least := d.least.Load(); least == 0 || int64(took) < least; least = d.least.Load() {
		if d.least.CompareAndSwap(least, max(1, int64(took))) {
			return
		}
	}
}

// beyond is the rest of a time in which so many statements were carried out.
func (d *distance) beyond(took time.Duration, statements int) time.Duration {
	return max(0, took-time.Duration(statements)*time.Duration(d.least.Load()))
}
