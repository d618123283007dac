package scheduler

import (
	"context"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/retry"
)

// maxClaimWait bounds the wait after a failed claim: it is what a worker adds
// at most to the time that its database was away.
const maxClaimWait = 5 * time.Second

// onceTries is how often RunOnce lets the database fail before it gives up.
const onceTries = 3

// pausing is how claims wait after one that failed.
type pausing struct {
	until    time.Time // zero: they do not wait
	failures int       // in a row
}

func (p *pausing) paused() bool { return !p.until.IsZero() }

func (p *pausing) end() { p.until = time.Time{} }

// ok notes a claim that worked, and reports whether the one before had not.
func (p *pausing) ok() (again bool) {
	again = p.failures > 0
	*p = pausing{}
	return again
}

// failed lets the next claim wait, as long as the error asks for, unless something
// happens that makes a try worthwhile. It returns the error if RunOnce is to end
// with it.
func (s *Scheduler) failed(ctx context.Context, once bool, err error, p *pausing) error {
	p.failures++
	if ctx.Err() != nil {
		return nil
	}
	if once && (!retry.Passes(err) || p.failures >= onceTries) {
		return err
	}
	waits := retry.Backoff(retry.Of(err))
	wait := waits.NextBackOff()
	for range min(p.failures, 20) - 1 {
		wait = waits.NextBackOff()
	}
	wait = min(wait, max(s.config.PollInterval, 0), maxClaimWait)
	if p.failures == 1 && retry.AtOnce(err) {
		wait = 0 // the connection had ended, and not the server
	}
	s.config.Events.Emit(event.ClaimFailed{WorkerID: s.config.WorkerID, Err: err, RetryIn: wait})
	p.until = time.Now().Add(wait)
	return nil
}
