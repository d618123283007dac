// Package wait has the ways in which a goroutine waits: for a time, for something with a
// limit, and for a wake-up.
//
// The one thing not to break: none of them outlives its context, and a wake-up neither
// blocks nor gets lost.
package wait

import (
	"context"
	"time"
)

// Sleep returns after d, or with the cause of ctx's end if that comes first.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// For waits until done is closed, for limit at most and not beyond ctx. It reports
// whether done was closed.
func For(ctx context.Context, done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// Wake tells the goroutine that reads from c, which has a buffer of one, that there is
// something to look at. It never blocks: a wake-up that was not read yet serves for both.
func Wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// StoppedTimer is a timer that is still to be set.
func StoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}
