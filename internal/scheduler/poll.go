package scheduler

import (
	"context"
	"time"

	"github.com/gworker/gworker/event"
)

// A poll is a claim although nobody told of a job. Where the worker has nothing to do
// it finds nothing nearly always, so there a statement that claims nothing can ask
// first, and have other business on its way. It sees all that is runnable, wherever
// claims begin at present.

// PollBy has a worker that has nothing to do ask by this function whether there may
// be a job to claim. It is called by one goroutine, and has to be given before Run.
// It is not asked where claims go by more than the database knows (flags, Now), nor
// with a local queue, whose modes and events follow its claims.
func (s *Scheduler) PollBy(ask func(context.Context) (runnable bool, err error)) {
	if s.config.Flags.any() || s.config.Now != nil || s.local.on() {
		return
	}
	s.askFirst = ask
}

// asks reports whether a poll is to ask before it claims: not where something is in
// doubt or expected.
func (s *Scheduler) asks(once bool, p *pausing) bool {
	return s.askFirst != nil && !once && p.failures == 0 && s.idle() && s.holds.settled() &&
		!s.claims.unknownOutcome() && s.claims.recheckBackoff.next.IsZero() && s.inFlight.count == 0
}

// poll asks whether there may be a job to claim.
func (s *Scheduler) poll(ctx context.Context) (runnable bool, err error) {
	began := time.Now()
	runnable, err = s.askFirst(ctx)
	if err == nil && !runnable && s.config.Events.WantsFrequent() {
		s.config.Events.Emit(event.ClaimStarted{WorkerID: s.config.WorkerID, Asked: s.config.Concurrency})
		s.tellClaimed(0, s.config.Concurrency, time.Since(began))
	}
	return runnable, err
}
