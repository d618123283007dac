package scheduler

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
)

// lost reports jobs whose lock was no longer their claim's, and unlocks their queues:
// where a row was deleted or unlocked while its job ran, the lock of its queue is still
// the claim's. left is what may still lock a queue.
func (o *outcomes) lost(ctx context.Context, lost []ended) (left []ended, freed bool, err error) {
	p := dbgen.FreeQueuesOfLostJobsParams{WorkerID: o.workerID}
	for _, e := range lost {
		if !e.unstarted && !e.reported {
			o.events.Emit(event.JobLost{WorkerID: o.workerID, Job: e.job, Err: e.outcome.Err, Unsure: e.unsure})
		}
		if e.job.Queue != "" {
			e.outcome.Kind, e.reported = job.Lost, true
			left = append(left, e)
			p.Queues = append(p.Queues, e.job.Queue)
			p.LockedAts = append(p.LockedAts, pgtype.Timestamptz{Time: e.job.Lock.At, Valid: true})
		}
	}
	if len(left) == 0 {
		return nil, false, nil
	}
	queues, err := o.queries.FreeQueuesOfLostJobs(ctx, p)
	if err != nil {
		return left, false, fmt.Errorf("unlocking the queues of %d lost jobs: %w", len(left), err)
	}
	return nil, queues > 0, nil
}
