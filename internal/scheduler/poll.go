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

// asksFirst reports whether a poll is to ask before it claims: not where something is in
// doubt or expected.
func (l *loop) asksFirst() bool {
	return l.askFirst != nil && !l.once && l.pausing.failures == 0 && l.idle() && l.holds.settled() &&
		!l.claims.unknownOutcome() && l.claims.recheck.next.IsZero()
}

// poll looks for jobs that nobody has told of.
func (l *loop) poll(ctx context.Context, now time.Time) {
	l.pollAt = now.Add(l.config.PollInterval)
	if l.asking || l.claims.underWay.prompt(now) {
		return // the answer is under way, and plans the next poll
	}
	if l.more || !l.asksFirst() {
		l.look()
		l.polled = l.holds != nil && l.pool.running() == 0 && !l.claims.scan.partial()
		return
	}
	l.asking = true
	l.background.run(func() func() {
		// Not by ctx: a statement that is cut off ends its connection, and asks a pooler
		// to cancel it. There are releases of PgBouncer that die of such requests.
		runnable, err := l.ask(l.claiming)
		return func() {
			l.asking = false
			l.more = l.more || runnable || err != nil
			if err != nil {
				l.fail(ctx, err)
			}
		}
	})
}

// ask asks whether there may be a job to claim.
func (s *Scheduler) ask(ctx context.Context) (runnable bool, err error) {
	began := time.Now()
	runnable, err = s.askFirst(ctx)
	if err == nil && !runnable && s.config.Events.WantsFrequent() {
		s.config.Events.Emit(event.ClaimStarted{WorkerID: s.config.WorkerID, Asked: s.config.Concurrency})
		s.claims.tell(0, s.config.Concurrency, time.Since(began))
	}
	return runnable, err
}
