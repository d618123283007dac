package scheduler

import (
	"context"
	"time"

	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
)

// loop decides when to claim. more is true while there may be runnable jobs
// that nobody has told us of.
func (s *Scheduler) loop(ctx context.Context, once bool) error {
	poll := time.NewTimer(s.config.PollInterval)
	defer poll.Stop()
	s.local.begin(once)
	p := newPausing()
	defer p.timer.Stop()
	// polled says that nobody has told us of jobs at all: then a claim that writes
	// nothing if it finds nothing is one statement. A look that comes because claims
	// do not see everything is no poll: it may well find jobs, which are to be held.
	more, polled := true, false
	for ctx.Err() == nil {
		err := s.startWaiting(ctx)
		more = s.looksForFreed() || more || s.limitOpened()
		may := !s.awaitsReturns()
		if s.holds != nil {
			// Two claims at once may each have missed that the other found nothing.
			more = more || once && s.holds.lookout.next.IsZero() && s.idle()
			more = s.holds.tend(s.claiming, more && !polled && !p.paused, once && s.idle()) || more && (polled || p.paused)
		}
		ask := 0
		if err == nil && may && !p.paused && s.holds.trusted() && (polled || !s.holds.prefers()) {
			ask = s.ask(more)
		}
		beside, wait := s.overlaps(ask)
		switch {
		case ask == 0 || wait || !s.pool.mayClaim():
		case beside && !once:
			if more, err = s.claimBeside(ask); err == nil {
				polled = false
				continue
			}
		default:
			quiet := once && s.idle()
			var took taken
			if took, err = s.claim(ctx, ask); err == nil {
				if p.ok() {
					s.release.kick()
				}
				if quiet && took.count == 0 {
					if s.claims.survey.partial() {
						s.claims.survey.forget() // nothing is to run anywhere, not only from there on
						continue
					}
					return nil
				}
				more, polled = took.more, false
				poll.Reset(s.claims.recheck(s.config.PollInterval))
				continue
			}
		}
		if err != nil && !p.paused {
			if err := s.failed(ctx, once, err, p); err != nil {
				return err
			}
		}
		if once && s.pool.running() == 0 {
			s.release.flush() // nothing is left whose company is worth a wait
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
			more, polled, p.paused = true, false, false
			if s.holds != nil {
				s.holds.woken++
			}
			s.overlap.woken++
			s.local.heard()
		case <-poll.C:
			poll.Reset(s.config.PollInterval)
			if more || !s.asks(once, p) {
				more, polled = true, s.holds != nil && s.pool.running() == 0 && !s.claims.survey.partial()
				break
			}
			if more, err = s.poll(ctx); err != nil {
				more = true
				if err := s.failed(ctx, once, err, p); err != nil {
					return err
				}
			}
		case <-p.timer.C:
			p.paused = false
		case <-s.pool.freed:
		case <-s.pool.attention:
		case <-s.holds.due():
		case a := <-s.holds.heard():
			more = s.holds.answered(a, more) || once && a.end != nil
			switch {
			case a.claim == 0:
			case a.err != nil:
				if err := s.failed(ctx, once, a.err, p); err != nil {
					return err
				}
			case a.quiet && a.count == 0 && !a.from.used() && !s.claims.survey.partial() && s.idle():
				// Idle still: no other claim of this worker has taken what this one looked
				// for. What others hold is theirs to run.
				return nil
			default:
				if p.ok() {
					s.release.kick()
				}
				if a.quiet && a.count == 0 {
					s.claims.survey.forget() // nothing is to run anywhere, not only from there on
					more = true
				}
				poll.Reset(s.claims.survey.recheck(s.config.PollInterval))
			}
		case a := <-s.overlap.answers:
			if more, err = s.overlapEnded(a, more); err != nil {
				if err := s.failed(ctx, once, err, p); err != nil {
					return err
				}
				break
			}
			if p.ok() {
				s.release.kick()
			}
			poll.Reset(s.claims.recheck(s.config.PollInterval))
		case <-s.release.wrote:
		case <-s.release.emptied:
			// The last outcome may have made a job of its queue runnable.
			more = more || once
		case <-s.ahead.over():
			s.returnOverdue()
		case <-s.local.expired():
			s.local.expire(s.giveBack)
		case <-s.local.refetch():
			s.local.delayOver()
		}
	}
	return nil
}

// idle reports whether no job is anywhere in this worker.
func (s *Scheduler) idle() bool {
	return s.local.len() == 0 && s.pool.running() == 0 && s.release.pending() == 0 && s.holds.idle()
}

// limitOpened reports whether a task that was at its limit may have more jobs.
func (s *Scheduler) limitOpened() bool {
	return !s.limits.none() && s.limits.opened(s.local.perTask())
}

type taken struct {
	count int
	more  bool
}

// claim takes up to ask jobs and starts them, as far as slots are free.
func (s *Scheduler) claim(ctx context.Context, ask int) (taken, error) {
	began := time.Now()
	var jobs []*job.Claimed
	var err error
	number := s.pool.claimBegins()
	defer func() { s.pool.claimEnded(number, jobs, err == nil && len(jobs) < ask) }()
	if s.config.Events.WantsFrequent() {
		s.config.Events.Emit(event.ClaimStarted{WorkerID: s.config.WorkerID, Asked: ask})
	}
	adopted, err := s.claims.adopt(s.claiming, s.known)
	if err != nil {
		return taken{}, err
	}
	s.local.put(adopted)
	forbidden, err := s.config.Flags.forbidden(ctx, s.config.StatementTimeout)
	if err != nil {
		return taken{}, err
	}
	more := true
	if rest := ask - len(adopted); rest > 0 {
		jobs, more, err = s.claims.claim(s.claiming, rest, s.selection(forbidden))
	}
	s.start(jobs, forbidden)
	if err != nil {
		return taken{}, err
	}
	count := len(adopted) + len(jobs)
	s.tellClaimed(count, ask, time.Since(began))
	s.local.fetched(count, ask)
	return taken{count: count, more: more}, nil
}

// looksForFreed reports whether the next claim is to look for jobs that went back
// unstarted and hold up others. It then begins where it finds them.
func (s *Scheduler) looksForFreed() bool {
	best, missing := s.pool.missesFreed()
	if missing && !s.claims.survey.place.before(int16(best.priority), best.runAt) {
		s.claims.survey.forget()
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
// pool to the releaser and never back, so none is missed in between.
func (s *Scheduler) known() []*job.Claimed {
	known := append(s.Running(), s.Held()...)
	return append(known, s.release.claimed()...)
}

// start lets jobs run that were claimed, as far as slots are free or soon will be.
func (s *Scheduler) start(jobs []*job.Claimed, forbidden []string) {
	s.local.put(jobs)
	s.estimates.claimed(jobs, s.config.Hold.Time)
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
