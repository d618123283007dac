package recovery

import (
	"sync"
	"time"
)

// deadline is when a task is due next. A goroutine waits for it and does the task then,
// unless a poll does the task a little earlier and moves the deadline. The zero value is
// not set. It is safe for concurrent use.
type deadline struct {
	mu    sync.Mutex
	at    time.Time
	timer *time.Timer
}

// set sets or moves it, and returns the channel that fires when it is due.
func (d *deadline) set(wait time.Duration) <-chan time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = time.Now().Add(wait)
	if d.timer == nil {
		d.timer = time.NewTimer(wait)
	} else {
		d.timer.Reset(wait)
	}
	return d.timer.C
}

// expire moves it to now, if it is set.
func (d *deadline) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.at.IsZero() {
		d.at = time.Now()
		d.timer.Reset(0)
	}
}

// stop cancels it.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = time.Time{}
	if d.timer != nil {
		d.timer.Stop()
	}
}

// within reports whether it is due before wait has passed.
func (d *deadline) within(wait time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.at.IsZero() && time.Until(d.at) < wait
}
