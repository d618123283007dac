package scheduler

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
)

// startWaiting starts jobs that wait in the local queue, as far as slots are
// free. They were claimed a while ago: so what may have changed since is looked
// at again, their locks and the flags that are forbidden.
func (s *Scheduler) startWaiting(ctx context.Context) error {
	if s.local.len() > 0 && s.pool.free() > 0 {
		if err := s.checkLocks(s.claiming); err != nil {
			return err
		}
		forbidden := s.config.Flags.Forbidden
		if s.local.flagged() {
			var err error
			if forbidden, err = s.config.Flags.forbidden(ctx, s.config.StatementTimeout); err != nil {
				return err
			}
		}
		s.dispatch(forbidden)
	}
	s.local.settle()
	return nil
}

// dispatch moves jobs from the local queue into free slots, in their order. Those
// that have become forbidden go back.
func (s *Scheduler) dispatch(forbidden []string) {
	free, claimed := s.pool.free(), time.Time{}
	if s.ahead.on {
		claimed = time.Now()
	}
	var returned []int64
	var reason error
	s.local.each(
		func() bool { return free == 0 && !s.ahead.on },
		func(j *job.Claimed) bool {
			if flag, ok := forbids(forbidden, j); ok {
				reason = fmt.Errorf("the flag %q is forbidden now", flag)
				s.giveBack(reason, j)
				returned = append(returned, j.ID)
				return true
			}
			if !s.limits.start(j.Task) {
				return false
			}
			s.pool.run(j, claimed)
			free--
			return true
		},
	)
	s.ahead.watch(free < 0)
	s.local.report(returned, reason)
}

// giveBack returns jobs that have not started.
func (s *Scheduler) giveBack(reason error, jobs ...*job.Claimed) {
	group := make([]ended, len(jobs))
	for i, j := range jobs {
		group[i] = ended{job: j, outcome: job.Outcome{Kind: job.Returned, Err: reason}, unstarted: true}
	}
	s.release.add(group...)
}

// giveUp fails a job for good that has not started.
func (s *Scheduler) giveUp(j *job.Claimed, cause error) {
	s.release.add(ended{job: j, outcome: job.Outcome{Kind: job.Failed, Err: cause, Permanent: true}, unstarted: true})
}

// ended is told by the pool that a run is over.
func (s *Scheduler) ended(a *active, e ended) {
	s.limits.end(e.job.Task)
	if a.started && !e.unstarted {
		s.estimates.ran(e.job.Task, e.duration)
	}
	if a.group != nil && a.group.end(a, e) {
		return
	}
	if a.returns {
		e = returned(e)
	}
	s.release.add(e)
}

// checkLocks drops jobs of the local queue whose locks somebody has taken, if
// nothing was known of them for so long that it may have happened: this process
// may have been stopped meanwhile, or cut off, and taken for dead.
func (s *Scheduler) checkLocks(ctx context.Context) error {
	if s.config.TrustLocks == 0 || s.local.age() < s.config.TrustLocks {
		return nil
	}
	jobs := s.local.claimed()
	p := dbgen.LostJobsParams{WorkerID: s.config.WorkerID}
	for _, j := range jobs {
		p.Ids = append(p.Ids, j.ID)
		p.LockedAts = append(p.LockedAts, pgtype.Timestamptz{Time: j.Lock.At, Valid: true})
	}
	began := time.Now()
	missing, err := s.claims.queries.LostJobs(ctx, p)
	if err != nil {
		return fmt.Errorf("looking at the locks of %d jobs in the local queue: %w", len(jobs), err)
	}
	s.local.checked = began
	var lost []*job.Claimed
	var ids []int64
	for _, place := range missing {
		lost, ids = append(lost, jobs[place-1]), append(ids, jobs[place-1].ID)
	}
	if len(lost) > 0 {
		s.local.lose(lost)
		s.config.Events.Emit(event.LocksLost{WorkerID: s.config.WorkerID, JobIDs: ids})
	}
	return nil
}
