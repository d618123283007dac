// Package shutdown is the one deadline of a whole shutdown.
//
// Everything that a worker does at its end - the last claim, the outcomes of its jobs,
// its deregistration - runs under one context, which ends with the deadline. The
// deadline moves as the shutdown progresses: while jobs run it is only the limit, if
// there is one; then the outcomes have their time; a worker that has nothing to write
// has a few seconds.
//
// The one thing not to break: after the limit nothing can set a later deadline.
package shutdown

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Quiet is how long a shutdown may take that has nothing to write.
const Quiet = 5 * time.Second

// ErrDeadline is the cause of a context that ends with the deadline.
var ErrDeadline = errors.New("the shutdown has come to its deadline")

// Deadline ends a context some time after another one has ended. It is safe for
// concurrent use.
type Deadline struct {
	limit  time.Duration
	ctx    context.Context
	end    context.CancelCauseFunc
	unhook func() bool

	mu      sync.Mutex
	working bool
	began   time.Time // zero: the shutdown has not begun
	at      time.Time
	timer   *time.Timer
}

// New makes the deadline of the shutdown that begins when ctx ends. limit bounds
// all of it; 0 means that nothing does. It is to be closed.
func New(ctx context.Context, limit time.Duration) *Deadline {
	d := &Deadline{limit: limit}
	d.ctx, d.end = context.WithCancelCause(context.WithoutCancel(ctx))
	d.unhook = context.AfterFunc(ctx, d.Begin)
	return d
}

// Context ends with the deadline, whose cause it has then, or when d is closed.
func (d *Deadline) Context() context.Context { return d.ctx }

// Close ends the context.
func (d *Deadline) Close() {
	d.unhook()
	d.end(nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
}

// Begin begins the shutdown, if it has not begun.
func (d *Deadline) Begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.began.IsZero() {
		return
	}
	d.began = time.Now()
	switch {
	case !d.working:
		d.set(Quiet)
	case d.limit > 0:
		d.set(d.limit)
	}
}

// Working says that jobs may run: until In is called there is no deadline but the
// limit.
func (d *Deadline) Working() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.working = true
	if d.began.IsZero() || d.timer == nil {
		return
	}
	d.timer.Stop()
	if d.limit > 0 {
		d.set(d.limit)
	}
}

// In sets the deadline, this long from now: sooner or later than it was, but not
// beyond the limit. It begins the shutdown, if that has not begun.
func (d *Deadline) In(wait time.Duration) {
	d.Begin()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.working = false
	d.set(wait)
}

// Sooner is In, but does not put off a deadline that is set.
func (d *Deadline) Sooner(wait time.Duration) {
	d.Begin()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.working || d.at.IsZero() || time.Until(d.at) > wait {
		d.working = false
		d.set(wait)
	}
}

// set is In for those who hold the lock.
func (d *Deadline) set(wait time.Duration) {
	if d.limit > 0 {
		wait = min(wait, d.limit-time.Since(d.began))
	}
	d.at = time.Now().Add(wait)
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, func() { d.end(ErrDeadline) })
		return
	}
	d.timer.Reset(wait)
}

// Left is how much time there is until the deadline; Quiet if none is set.
func (d *Deadline) Left() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at.IsZero() {
		return Quiet
	}
	return max(0, time.Until(d.at))
}

// Since is how long ago the shutdown began; 0 if it has not.
func (d *Deadline) Since() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.began.IsZero() {
		return 0
	}
	return time.Since(d.began)
}
