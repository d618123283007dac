package recovery

import (
	"sync"
	"time"
)

// appointment is when something is to be done next: by the goroutine that waits
// for it at the latest, or by a poll that comes by a little earlier and moves it.
// The zero value has not been made yet. It is safe for concurrent use.
type appointment struct {
	mu    sync.Mutex
	at    time.Time
	timer *time.Timer
}

// in makes or moves it, and returns the channel that tells when it is due.
func (a *appointment) in(wait time.Duration) <-chan time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = time.Now().Add(wait)
	if a.timer == nil {
		a.timer = time.NewTimer(wait)
	} else {
		a.timer.Reset(wait)
	}
	return a.timer.C
}

// sooner moves it to now, if there is one.
func (a *appointment) sooner() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.at.IsZero() {
		a.at = time.Now()
		a.timer.Reset(0)
	}
}

// never calls it off.
func (a *appointment) never() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = time.Time{}
	if a.timer != nil {
		a.timer.Stop()
	}
}

// within reports whether it is due before so much time has passed.
func (a *appointment) within(wait time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.at.IsZero() && time.Until(a.at) < wait
}
