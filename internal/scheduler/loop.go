package scheduler

import (
	"context"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
)

// loop decides when to claim. Where jobs are held it never waits for the database
// itself, as their claims have to end on time whatever else waits: see background.go.
type loop struct {
	*Scheduler
	once    bool
	poll    *time.Timer
	pausing *pausing

	// more is true while there may be runnable jobs that nobody has told us of.
	more bool
	// polled says that nobody has told us of jobs at all: then a claim that writes
	// nothing if it finds nothing is one statement. A look that comes because claims
	// do not see everything is no poll: it may well find jobs, which are to be held.
	polled bool

	over bool
	err  error // what RunOnce ends with
}

func (s *Scheduler) loop(ctx context.Context, once bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &loop{
		Scheduler: s, once: once, more: true,
		poll: time.NewTimer(s.config.PollInterval), pausing: newPausing(),
	}
	defer l.poll.Stop()
	defer l.pausing.timer.Stop()
	s.local.begin(once)
	for ctx.Err() == nil && !l.over {
		if !l.begin(ctx) && !l.over {
			l.wait(ctx)
		}
	}
	return l.err
}

// begin starts and claims what can be now. It reports whether there may be more of
// that at once.
func (l *loop) begin(ctx context.Context) (again bool) {
	l.startWaiting(ctx)
	var err error
	awaiting := l.awaitsReturns() // before the claim's place is looked at
	l.more = l.looksForFreed() || l.more || l.limitOpened()
	if l.holds != nil {
		// Two claims at once may each have missed that the other found nothing.
		l.more = l.more || l.once && l.holds.recheck.next.IsZero() && l.idle()
		may, other := !l.polled && !l.pausing.paused, l.claimUnderWay()
		l.more = l.holds.advance(l.more && may, l.once && l.idle(), other) || l.more && !may
	}
	ask := 0
	if !awaiting && !l.pausing.paused && l.free() && l.holds.settled() && (l.polled || !l.holds.wants(false)) {
		ask = l.demand(l.more)
	}
	another, wait := l.mayOverlap(ask)
	switch {
	case ask == 0 || wait || !l.pool.mayClaim():
	case another && !l.once:
		if l.more, err = l.claimInFlight(ask); err == nil {
			l.polled = false
			return true
		}
	case l.claim(ctx, ask):
		return true
	}
	if err != nil && !l.pausing.paused {
		l.fail(ctx, err)
	}
	if l.once && l.pool.running() == 0 {
		l.completer.flush() // nothing is left that is worth a wait
	}
	return false
}

// wait goes on when something has happened.
func (l *loop) wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-l.wake:
		l.more, l.polled, l.pausing.paused = true, false, false
		if l.holds != nil {
			l.holds.woken++
		}
		l.inFlight.woken++
		l.local.heard()
	case <-l.poll.C:
		l.polls(ctx)
	case then := <-l.background.done:
		l.background.ended(then)
	case <-l.pausing.timer.C:
		l.pausing.paused = false
	case <-l.pool.freed:
	case <-l.pool.wakes:
	case <-l.holds.due():
	case a := <-l.holds.heard():
		l.heldAnswered(ctx, a)
	case a := <-l.inFlight.answers:
		var err error
		if l.more, err = l.inFlightAnswered(a, l.more); err != nil {
			l.fail(ctx, err)
			return
		}
		l.claimed(l.claims.recheck(l.config.PollInterval))
	case <-l.completer.wrote:
	case <-l.completer.emptied:
		// The last outcome may have made a job of its queue runnable.
		l.more = l.more || l.once
	case <-l.prefetch.over():
		l.returnOverdue()
	case <-l.local.expired():
		l.local.expire(l.giveBack)
	case <-l.local.refetch():
		l.local.delayOver()
	}
}

// fail notes that a claim or a poll has failed.
func (l *loop) fail(ctx context.Context, err error) {
	if refusesOne(err) && l.claims.refused.suspect() {
		l.more = true // the next claim searches for the job that it is refused for
		return
	}
	if err := l.failed(ctx, l.once, err, l.pausing); err != nil {
		l.over, l.err = true, err
	}
}

// claimed notes that a claim worked, and plans the next one that nobody asks for.
func (l *loop) claimed(recheck time.Duration) {
	if l.pausing.ok() {
		l.completer.wake()
	}
	l.poll.Reset(recheck)
}

// polls looks for jobs that nobody has told of.
func (l *loop) polls(ctx context.Context) {
	l.poll.Reset(l.config.PollInterval)
	if l.asking {
		return // the answer is under way
	}
	if l.more || !l.asks(l.once, l.pausing) {
		l.more, l.polled = true, l.holds != nil && l.pool.running() == 0 && !l.claims.scan.partial()
		return
	}
	l.asking = true
	l.background.run(func() func() {
		// Not by ctx: a statement that is cut off ends its connection, and asks a pooler
		// to cancel it. There are releases of PgBouncer that die of such requests.
		runnable, err := l.Scheduler.poll(l.claiming)
		return func() {
			l.asking = false
			l.more = l.more || runnable || err != nil
			if err != nil {
				l.fail(ctx, err)
			}
		}
	})
}

// heldAnswered notes what came of a command to a connection.
func (l *loop) heldAnswered(ctx context.Context, a answer) {
	passes := l.holds.passes(a)
	l.more = l.holds.answered(a, l.more) || l.once && a.end != nil
	switch {
	case a.claim == 0, a.void:
	case passes:
	case a.err != nil:
		l.fail(ctx, a.err)
	case a.quiet && a.count == 0 && !a.from.used() && !l.claims.scan.partial() && l.idle():
		// Idle still: no other claim of this worker has taken what this one looked
		// for. What others hold is theirs to run.
		l.over = true
	default:
		if a.quiet && a.count == 0 {
			l.claims.scan.forget() // nothing is to run anywhere, not only from there on
			l.more = true
		}
		l.claimed(l.claims.scan.recheck(l.config.PollInterval))
	}
}

// idle reports whether no job is anywhere in this worker.
func (s *Scheduler) idle() bool {
	return s.local.len() == 0 && s.pool.running() == 0 && s.completer.pending() == 0 && s.holds.idle() && s.holds.rescued() && s.direct == nil
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

// selection is what a claim may take now.
func (s *Scheduler) selection(forbidden []string) selection {
	c := selection{tasks: s.claims.tasks, forbidden: forbidden}
	if !s.limits.none() {
		c.tasks = s.claims.unlimited
		c.limited, c.rooms = s.limits.rooms(s.local.perTask())
	}
	return c
}

// known lists the jobs of this worker. A job moves from the local queue to the
// pool to the completer and never back, so none is missed in between.
func (s *Scheduler) known() []*job.Claimed {
	known := append(s.Running(), s.Held()...)
	return append(known, s.completer.claimed()...)
}

// start lets jobs run that were claimed, as far as slots are free or soon will be.
func (s *Scheduler) start(jobs []*job.Claimed, forbidden []string) {
	s.local.put(jobs)
	s.durations.claimed(jobs, s.config.Hold.Time)
	s.limits.claimed(jobs)
	s.dispatch(forbidden)
}

func (s *Scheduler) tellClaimed(count, asked int, took time.Duration) {
	switch {
	case count > 0:
		s.config.Events.Emit(event.JobsClaimed{WorkerID: s.config.WorkerID, Count: count, Asked: asked, Duration: took})
	case s.config.Events.WantsFrequent():
		s.config.Events.Emit(event.ClaimEmpty{WorkerID: s.config.WorkerID, Asked: asked, Duration: took})
	}
}
