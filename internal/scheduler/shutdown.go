package scheduler

import (
	"context"
	"sync"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/shutdown"
	"github.com/gworker/gworker/internal/wait"
)

const (
	// lastClaim is how long a claim that is under way when the end begins is waited
	// for. What the server has done for one that is cut off is looked for at the end.
	lastClaim = 3 * time.Second
	// lastLook bounds that.
	lastLook = 2 * time.Second
	// forcedGrace is how long a forced end may take: a moment for handlers that can be
	// ended, and the time for a statement under way.
	forcedGrace = 5 * time.Second
	// forcedMoment is the moment for handlers.
	forcedMoment = time.Second
)

// EndBy has the end of Run keep to a deadline, which the caller closes. Without it
// Run makes its own. It has to be given before Run.
func (s *Scheduler) EndBy(d *shutdown.Deadline) { s.deadline = d }

// Force ends a shutdown that takes too long: Run returns within forcedGrace, without
// waiting for handlers, and the jobs that they run are returned to the queue. A
// handler that goes on may then overlap with the job's next run.
func (s *Scheduler) Force() { s.forceOnce.Do(func() { close(s.forced) }) }

// beginAtEnd sees to it that the end begins when ctx ends, whatever the loop waits
// for at that moment. stop is to be called when the end is over.
func (s *Scheduler) beginAtEnd(ctx context.Context) (stop func()) {
	claiming, cut := context.WithCancel(s.deadline.Context())
	s.claiming = claiming
	over := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-ctx.Done():
		case <-over:
			return
		}
		s.tellStopping(ctx)
		forced, timer := s.forced, time.NewTimer(lastClaim)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
				cut()
			case <-forced:
				cut()
				s.deadline.Sooner(forcedGrace)
				forced = nil
			case <-over:
				return
			}
		}
	})
	return func() {
		close(over)
		watching.Wait()
		cut()
	}
}

func (s *Scheduler) tellStopping(ctx context.Context) {
	s.stopping.Do(func() {
		s.config.Events.Emit(event.WorkerStopping{
			WorkerID: s.config.WorkerID, Running: s.pool.running(), Cause: context.Cause(ctx),
		})
	})
}

// shutDown ends everything that run has started, in order.
func (s *Scheduler) shutDown(ctx context.Context) {
	began := time.Now()
	s.deadline.Begin()
	s.tellStopping(ctx)
	// First, as the rest may have to wait for the database.
	holdsOver := s.holds.close()
	s.background.wait()
	s.awaitClaims()
	s.local.close(s.giveBack)
	s.pool.returnWaiting(time.Now(), ErrShutdown)
	s.completer.StopLingering()
	forced := s.drain()
	if !isClosed(s.forced) {
		s.deadline.In(s.config.StatementTimeout)
	}
	s.giveBackLost()
	if s.completer.Pending() == 0 && isClosed(holdsOver) {
		s.deadline.Sooner(max(shutdown.Quiet-s.deadline.Since(), time.Second))
	}
	over := s.deadline.Context().Done()
	s.holds.end(holdsOver, over)
	s.freeQueues()
	s.completer.Close(over)
	s.config.Events.Emit(event.ShutdownComplete{
		WorkerID: s.config.WorkerID, Forced: forced, Duration: time.Since(began),
	})
}

// drain lets the running jobs end, and reports whether some were given up.
func (s *Scheduler) drain() (forced bool) {
	drained := s.pool.close()
	abort := time.NewTimer(max(0, s.config.AbortTimeout-s.deadline.Since()))
	defer abort.Stop()
	giveUp := wait.StoppedTimer()
	defer giveUp.Stop()
	if s.config.GiveUpAfter > 0 {
		giveUp.Reset(max(0, s.config.GiveUpAfter-s.deadline.Since()))
	}
	for {
		select {
		case <-drained:
			return false
		case <-abort.C:
			running := s.pool.claimed()
			ended := s.pool.abort(ErrShutdown)
			s.config.Events.Emit(event.JobsAborted{WorkerID: s.config.WorkerID, Running: len(running)})
			s.pool.interrupted(ended, ErrShutdown)
		case <-giveUp.C:
			s.Force()
		case <-s.forced:
			ended := s.pool.abort(ErrShutdown)
			s.deadline.Sooner(forcedGrace)
			s.pool.interrupted(ended, ErrShutdown)
			// What can be ended, as a process can, ends now.
			moment := time.NewTimer(min(forcedMoment, s.deadline.Left()/3))
			defer moment.Stop()
			select {
			case <-drained:
				return false
			case <-moment.C:
			}
			s.pool.abandon()
			return true
		}
	}
}

// giveBackLost returns the jobs of a claim whose answer was lost. Those that are not
// found now stay locked until this worker counts as dead.
func (s *Scheduler) giveBackLost() {
	if !s.claims.unknownOutcome() {
		return
	}
	ctx, cancel := context.WithTimeout(s.deadline.Context(), lastLook)
	defer cancel()
	jobs, err := s.claims.recoverLostClaim(ctx, s.known())
	if err != nil {
		s.config.Events.Emit(event.ClaimFailed{WorkerID: s.config.WorkerID, Err: err})
		return
	}
	s.giveBack(ErrShutdown, jobs...)
}

// freeQueues unlocks the queues of jobs whose locks were refused last.
func (s *Scheduler) freeQueues() {
	ctx, cancel := context.WithTimeout(s.deadline.Context(), lastLook)
	defer cancel()
	if err := s.claims.freeQueues(ctx); err != nil {
		s.config.Events.Emit(event.ClaimFailed{WorkerID: s.config.WorkerID, Err: err})
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
