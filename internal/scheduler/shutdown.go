package scheduler

import (
	"context"
	"time"

	"github.com/gworker/gworker/internal/event"
)

// Force ends a shutdown that takes too long: Run returns without waiting for
// handlers, and the jobs that they run are returned to the queue. A handler
// that goes on all the same may then overlap with the job's next run.
func (s *Scheduler) Force() { s.forceOnce.Do(func() { close(s.forced) }) }

// shutDown ends everything that run has started, in order.
func (s *Scheduler) shutDown(ctx context.Context) {
	began := time.Now()
	s.config.Events.Emit(event.WorkerStopping{
		WorkerID: s.config.WorkerID, Running: s.pool.running(), Cause: context.Cause(ctx),
	})
	s.endOverlap(ctx)
	s.local.close(s.giveBack)
	s.pool.turnBackWaiting(time.Now(), ErrShutdown)
	s.release.hurry()
	holdsOver := s.holds.close()
	drained := s.pool.close()
	timer := time.NewTimer(s.config.AbortTimeout)
	defer timer.Stop()
	select {
	case <-drained:
	case <-s.forced:
	case <-timer.C:
		running := s.pool.claimed()
		s.pool.abort(ErrShutdown)
		s.config.Events.Emit(event.JobsAborted{WorkerID: s.config.WorkerID, Running: len(running)})
		s.pool.interrupted(running, ErrShutdown)
		select {
		case <-drained:
		case <-s.forced:
		}
	}
	forced := false
	select {
	case <-drained:
	default:
		forced = true
		s.pool.abort(ErrShutdown)
		s.pool.abandon()
	}
	s.holds.end(holdsOver, s.forced)
	s.release.close(s.forced)
	s.release.out.snoozes.end()
	s.config.Events.Emit(event.ShutdownComplete{
		WorkerID: s.config.WorkerID, Forced: forced, Duration: time.Since(began),
	})
}
