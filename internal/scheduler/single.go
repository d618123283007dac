package scheduler

import (
	"context"
	"time"

	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// RunSingle runs one job in a slot, under ctx, and returns how it ended once the
// handler has returned. No job is claimed and no outcome written. It is used in
// place of Run.
func (s *Scheduler) RunSingle(ctx context.Context, j *job.Claimed) (job.Outcome, time.Duration) {
	over := make(chan completer.Result, 1)
	s.pool.ended = func(_ *active, e completer.Result) { over <- e }
	s.pool.start(ctx)
	s.pool.run(j, time.Time{})
	e := <-over
	<-s.pool.close()
	return e.Outcome, e.Duration
}
