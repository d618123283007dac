package scheduler

import (
	"context"
	"fmt"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
)

// lost reports jobs whose lock was no longer their claim's, and unlocks their queues:
// where a row was deleted or unlocked while its job ran, the lock of its queue is still
// the claim's. left is what may still lock a queue.
func (o *outcomes) lost(ctx context.Context, lost []runResult) (left []runResult, freed bool, err error) {
	p := dbgen.FreeQueuesOfLostJobsParams{WorkerID: o.workerID}
	for _, e := range lost {
		if e.fateUnknown {
			e.outcome.Err = nil // the row is gone, so it was not rolled back
		}
		if !e.unstarted && !e.reported {
			o.events.Emit(event.JobLost{WorkerID: o.workerID, Job: eventJob(e.job), Err: e.outcome.Err, Unsure: e.unsure})
		}
		if e.job.Queue != "" {
			e.outcome.Kind, e.reported = job.Lost, true
			left = append(left, e)
			p.Queues = append(p.Queues, e.job.Queue)
			p.LockedAts = append(p.LockedAts, e.job.Lock.At)
		}
	}
	if len(left) == 0 {
		return nil, false, nil
	}
	return o.freeQueues(ctx, left, p)
}

// freeQueues unlocks the queues of what is listed, one by one if that is refused together.
// left is what locks a queue still.
func (o *outcomes) freeQueues(
	ctx context.Context, locking []runResult, p dbgen.FreeQueuesOfLostJobsParams,
) (left []runResult, freed bool, err error) {
	rows, err := o.queries.FreeQueuesOfLostJobs(ctx, p)
	if err != nil {
		err = fmt.Errorf("unlocking the queues of %d jobs: %w", len(locking), err)
		if !isRefusal(err) {
			return locking, false, err
		}
		if len(locking) == 1 {
			return []runResult{o.queueRefused(locking[0], err)}, false, err
		}
		var r rest
		for i := range locking {
			r.add(o.freeQueues(ctx, locking[i:i+1], dbgen.FreeQueuesOfLostJobsParams{
				WorkerID: p.WorkerID, Queues: p.Queues[i : i+1], LockedAts: p.LockedAts[i : i+1],
			}))
		}
		return r.left, r.freed, r.err
	}
	for _, row := range rows {
		if row.Freed {
			freed = true
			continue
		}
		for _, e := range locking {
			if e.job.Queue == row.Queue && e.job.Lock.At.Equal(row.LockedAt.Time) {
				err = fmt.Errorf("unlocking the queue %q: %w", row.Queue, errQueueUnchanged)
				left = append(left, o.queueRefused(e, err))
				break
			}
		}
	}
	return left, freed, err
}

// queueRefused tells of a run whose outcome is stored, and the lock of whose queue is not
// given back.
func (o *outcomes) queueRefused(e runResult, refusal error) runResult {
	if !e.refused {
		o.tellRefused(e, refusal, event.StoredQueueKept)
	}
	e.refused = true
	return e
}

// freeKept unlocks the queues of jobs whose outcomes are stored and reported.
func (o *outcomes) freeKept(ctx context.Context, kept ...runResult) (left []runResult, freed bool, err error) {
	for i := range kept {
		kept[i].outcome.Kind, kept[i].reported = job.Lost, true
		kept[i].refused = false
	}
	return o.lost(ctx, kept)
}
