package scheduler

import (
	"context"
	"fmt"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// startWaiting starts jobs that wait in the local queue, as far as slots are
// free. They were claimed a while ago: so what may have changed since is looked
// at again, their locks and the flags that are forbidden.
func (l *loop) startWaiting(ctx context.Context) {
	switch {
	case l.checking || l.local.len() == 0 || l.pool.free() == 0:
	case l.config.TrustLocks > 0 && l.local.age() >= l.config.TrustLocks:
		if !l.pausing.paused() {
			l.checkLocks(ctx)
		}
	default:
		l.startLocked(ctx)
	}
	l.local.settle()
}

// startLocked starts them without a look at their locks. The loop does not wait for user
// code that says which flags are forbidden: while it waits no held claim ends.
func (l *loop) startLocked(ctx context.Context) {
	flags := l.config.Flags
	switch {
	case flags.Ask == nil || !l.local.flagged():
		l.dispatch(flags.Forbidden)
		return
	case l.pausing.paused():
		return
	}
	l.checking = true
	l.background.run(func() func() {
		forbidden, err := flags.forbidden(ctx, l.config.StatementTimeout)
		return func() {
			l.checking = false
			switch {
			case err != nil:
				l.fail(ctx, err)
			case ctx.Err() == nil:
				l.dispatch(forbidden)
			}
		}
	})
}

// giveBack returns jobs that have not started.
func (s *Scheduler) giveBack(reason error, jobs ...*job.Claimed) {
	group := make([]completer.Result, len(jobs))
	for i, j := range jobs {
		group[i] = completer.Result{Job: j, Outcome: job.Outcome{Kind: job.Returned, Err: reason}, Unstarted: true}
	}
	s.completer.Add(group...)
}

// giveUp fails a job for good that has not started.
func (s *Scheduler) giveUp(j *job.Claimed, cause error) {
	s.completer.Add(completer.Result{Job: j, Outcome: job.Outcome{Kind: job.Failed, Err: cause, Permanent: true}, Unstarted: true})
}

// checkLocks drops jobs of the local queue whose locks another worker has taken, if
// nothing was known of them for so long that it may have happened: this process
// may have been stopped meanwhile, or cut off, and presumed dead. None of them starts
// before that is known.
func (l *loop) checkLocks(ctx context.Context) {
	l.checking = true
	jobs := l.local.claimed()
	p := dbgen.LostJobsParams{WorkerID: l.config.WorkerID}
	for _, j := range jobs {
		p.Ids = append(p.Ids, j.ID)
		p.LockedAts = append(p.LockedAts, j.Lock.At)
	}
	began := time.Now()
	l.background.run(func() func() {
		missing, err := l.claims.queries.LostJobs(l.claiming, p)
		return func() {
			l.checking = false
			if err != nil {
				l.fail(ctx, fmt.Errorf("looking at the locks of %d jobs in the local queue: %w", len(jobs), err))
				return
			}
			l.locksChecked(jobs, missing, began)
			if ctx.Err() == nil {
				l.startLocked(ctx)
			}
		}
	})
}

func (l *loop) locksChecked(jobs []*job.Claimed, missing []int32, at time.Time) {
	l.local.confirm(at)
	var lost []*job.Claimed
	for _, place := range missing {
		lost = append(lost, jobs[place-1])
	}
	// Some may have gone back meanwhile, as they had waited for too long.
	if ids := l.local.lose(lost); len(ids) > 0 {
		l.config.Events.Emit(event.LocksLost{WorkerID: l.config.WorkerID, JobIDs: ids})
	}
}
