package scheduler

import (
	"context"
	"time"

	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/wait"
)

// loop decides what is done next. It waits until something happens or is due, and takes one
// step then. It never waits for the database itself: while jobs are held it is what ends
// their claims. Should it wait for a statement, and that for a lock which is asked for
// behind the rows of a held claim, or for a connection that a handler has, then both would
// wait for each other, and PostgreSQL sees nothing of it.
type loop struct {
	*Scheduler
	once    bool
	timer   *time.Timer
	at      time.Time // when timer fires
	pausing pausing

	// more is true while there may be runnable jobs that no claim under way will find.
	more bool
	// wakes counts what made it true besides claims.
	wakes int
	// polled says that nobody has told us of jobs at all: then a claim that writes
	// nothing if it finds nothing is one statement. A look that comes because claims
	// do not see everything is no poll: it may well find jobs, which are to be held.
	polled   bool
	inTurn   bool // the next claim comes since it is this worker's turn, see LookWithin
	pollAt   time.Time
	asking   bool // a poll is under way
	checking bool // the locks of waiting jobs are looked at

	over bool
	err  error // what RunOnce ends with
}

func (s *Scheduler) loop(ctx context.Context, once bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &loop{
		Scheduler: s, once: once, more: true, timer: wait.StoppedTimer(),
		pollAt: time.Now().Add(s.config.PollInterval),
	}
	defer l.timer.Stop()
	s.local.begin(once)
	for ctx.Err() == nil && !l.over {
		l.step(ctx)
		if ctx.Err() == nil && !l.over {
			l.wait(ctx)
		}
	}
	return l.err
}

// wait goes on when something has happened, or is due.
func (l *loop) wait(ctx context.Context) {
	l.setTimer()
	select {
	case <-ctx.Done():
	case <-l.wake:
		l.look()
		l.pausing.end()
		l.local.heard()
	case <-l.nudges:
	case <-l.timer.C:
		l.at = time.Time{}
	case then := <-l.background.done:
		l.background.ended(then)
	case a := <-l.claims.answers:
		l.answered(ctx, a)
	case a := <-l.holds.heard():
		l.answered(ctx, a)
	}
}

// setTimer has the loop go on when the next thing is due.
func (l *loop) setTimer() {
	next := l.pollAt
	for _, at := range []time.Time{
		l.pausing.until, l.claims.recheck.next, l.nextTurn(), l.holds.nextEnd(), l.overdueAt, l.local.expiresAt, l.local.refetchAt,
	} {
		next = earlier(next, at)
	}
	if !next.Equal(l.at) {
		l.at = next
		l.timer.Reset(time.Until(next))
	}
}

// look has the next claim come as soon as one may: there may be jobs that no claim under
// way will find.
func (l *loop) look() { l.more, l.polled, l.wakes = true, false, l.wakes+1 }

// step does what is due, starts what can start, ends held claims, and claims.
func (l *loop) step(ctx context.Context) {
	now := time.Now()
	l.expire(ctx, now)
	l.startWaiting(ctx)
	awaiting := l.awaitsReturns() // before the claim's cursor is looked at
	l.more = l.looksForFreed() || l.more || l.limitOpened() || l.once && l.claims.recheck.next.IsZero() && l.idle()
	if l.claims.underWay.expire(now) {
		l.more = true // there may be jobs for held claims
	}
	l.hold(now)
	for !awaiting && l.lockMore(ctx) {
	}
	if l.once && l.pool.running() == 0 {
		l.completer.Flush() // nothing is left that is worth a wait
	}
}

// expire does what is due.
func (l *loop) expire(ctx context.Context, now time.Time) {
	if due(l.pausing.until, now) {
		l.pausing.end()
	}
	if due(l.claims.recheck.next, now) {
		l.claims.recheck.next = time.Time{}
		l.look()
	}
	if due(l.nextTurn(), now) {
		l.turn.Store(nil)
		l.look()
		l.inTurn = true
	}
	if due(l.pollAt, now) {
		l.poll(ctx, now)
	}
	if due(l.overdueAt, now) {
		l.returnOverdue(now)
	}
	if due(l.local.expiresAt, now) {
		l.local.expire(l.giveBack)
	}
	if due(l.local.refetchAt, now) {
		l.local.delayOver()
	}
}

// lockMore begins a locked claim, if one is due. It reports whether another may be.
func (l *loop) lockMore(ctx context.Context) bool {
	if l.pausing.paused() || !l.mayLock() || !l.holds.settled() || !l.polled && l.holds.wants(false) {
		return false
	}
	ask := l.demand(l.more)
	if ask == 0 || !l.pool.mayClaim() || l.claims.underWay.locked() > 0 && !l.mayOverlap(ask) {
		return false
	}
	c := l.newClaim(ask, false)
	c.recovers = l.claims.unknownOutcome()
	l.more, l.polled = l.claims.plentiful && l.mayOverlap(ask), false
	l.lock(ctx, c)
	return l.more
}

// mayLock reports whether a locked claim may begin. One that looks for lost jobs must
// know of all that others have claimed, and no other may begin meanwhile.
func (l *loop) mayLock() bool {
	u := l.claims.underWay
	return !l.checking && u.locked() < mostLocked && !(len(u) > 0 && l.claims.unknownOutcome())
}

// mayOverlap reports whether a locked claim of so many jobs may be under way while another
// is: where it goes beyond the slots, so that there is enough to do meanwhile. Of jobs in
// queues only the first can be taken, so there two claims at once would find few, for the
// price of many.
func (l *loop) mayOverlap(ask int) bool {
	return l.prefetches() && !l.once && l.config.Now == nil && ask > l.pool.free() && l.pool.mayClaim() &&
		!l.claims.unknownOutcome() && !l.claims.scan.lookAhead.queued && !l.claims.refused.any()
}

// newClaim begins a claim.
func (l *loop) newClaim(ask int, held bool) *claim {
	c := &claim{
		asked: ask, limit: ask, held: held, quiet: l.once && l.idle(), wakes: l.wakes, began: time.Now(),
		selection: l.selection(), number: l.pool.claimBegins(), inTurn: l.inTurn,
	}
	l.inTurn = false
	l.turn.Store(nil) // before it is sent
	c.promised = c.selection
	l.claims.begin(c)
	return c
}

// selection is what a claim may take now.
func (s *Scheduler) selection() selection {
	if s.limits.none() {
		return selection{tasks: s.claims.tasks}
	}
	c := selection{tasks: s.claims.unlimited}
	c.limited, c.rooms = s.limits.promise(s.local.perTask())
	return c
}

// fail notes that a claim or a poll has failed.
func (l *loop) fail(ctx context.Context, err error) {
	if refusesOne(err) && l.claims.refused.suspect() {
		l.more = true // the next claim searches for the job that it is refused for
		return
	}
	if err := l.failed(ctx, l.once, err, &l.pausing); err != nil {
		l.over, l.err = true, err
	}
}

// idle reports whether no job is anywhere in this worker.
func (s *Scheduler) idle() bool {
	return s.local.len() == 0 && s.pool.running() == 0 && s.completer.Pending() == 0 && s.holds.idle() && s.holds.rescued() && len(s.claims.underWay) == 0
}

// limitOpened reports whether a task that was at its limit may have more jobs.
func (s *Scheduler) limitOpened() bool {
	return !s.limits.none() && s.limits.opened(s.local.perTask())
}

// looksForFreed reports whether the next claim is to look for jobs that went back
// unstarted and hold up others. It then begins where it finds them.
func (s *Scheduler) looksForFreed() bool {
	best, missing := s.pool.missesFreed()
	if missing && !s.claims.scan.cursor.finds(best) {
		s.claims.scan.forget()
	}
	return missing
}

// known lists the jobs of this worker. A job moves from the local queue to the
// pool to the completer and never back, so none is missed in between.
func (s *Scheduler) known() []*job.Claimed {
	known := append(s.Running(), s.Held()...)
	return append(known, s.completer.Claimed()...)
}
