package completer

import (
	"context"
	"fmt"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/history"
	"github.com/gworker/gworker/internal/job"
)

// lost reports jobs whose lock was no longer their claim's, and unlocks their queues:
// where a row was deleted or unlocked while its job ran, the lock of its queue is still
// the claim's. left is what may still lock a queue.
func (o *Outcomes) lost(ctx context.Context, lost []Result) (left []Result, freed bool, err error) {
	p := dbgen.FreeQueuesOfLostJobsParams{WorkerID: o.workerID}
	for _, e := range lost {
		if e.fateUnknown {
			e.Outcome.Err = nil // the row is gone, so it was not rolled back
		}
		if !e.Unstarted && !e.reported {
			o.ReportLost(e, e.Outcome.Err, e.Unsure)
		}
		if e.Job.Queue != "" {
			e.Outcome.Kind, e.reported = job.Lost, true
			left = append(left, e)
			p.Queues = append(p.Queues, e.Job.Queue)
			p.LockedAts = append(p.LockedAts, e.Job.Lock.At)
		}
	}
	if len(left) == 0 {
		return nil, false, nil
	}
	return o.freeQueues(ctx, left, p)
}

// ReportLost tells of a run that has ended after its job was lost.
func (o *Outcomes) ReportLost(e Result, err error, unsure bool) {
	o.events.Emit(event.JobLost{WorkerID: o.workerID, Job: eventstream.Job(e.Job), Err: err, Unsure: unsure})
	run := history.Run{JobID: e.Job.ID, Task: e.Job.Task, Attempt: e.Job.Attempts, Waited: e.Waited, Ran: e.Duration, Kind: "lost"}
	if err != nil {
		run.Error = e.text(errorText(err))
	}
	if unsure { // its end may be stored, and recorded
		run.Details = `{"unsure": true}`
	}
	o.history.Later(run)
}

// freeQueues unlocks the queues of what is listed, one by one if that is refused together.
// left is what locks a queue still.
func (o *Outcomes) freeQueues(
	ctx context.Context, locking []Result, p dbgen.FreeQueuesOfLostJobsParams,
) (left []Result, freed bool, err error) {
	rows, err := o.queries.FreeQueuesOfLostJobs(ctx, p)
	if err != nil {
		err = fmt.Errorf("unlocking the queues of %d jobs: %w", len(locking), err)
		if !IsRefusal(err) {
			return locking, false, err
		}
		if len(locking) == 1 {
			return []Result{o.queueRefused(locking[0], err)}, false, err
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
			if e.Job.Queue == row.Queue && e.Job.Lock.At.Equal(row.LockedAt.Time) {
				err = fmt.Errorf("unlocking the queue %q: %w", row.Queue, ErrQueueUnchanged)
				left = append(left, o.queueRefused(e, err))
				break
			}
		}
	}
	return left, freed, err
}

// queueRefused tells of a run whose outcome is stored, and the lock of whose queue is not
// given back.
func (o *Outcomes) queueRefused(e Result, refusal error) Result {
	if !e.refused {
		o.tellRefused(e, refusal, event.StoredQueueKept)
	}
	e.refused = true
	return e
}

// freeKept unlocks the queues of jobs whose outcomes are stored and reported.
func (o *Outcomes) freeKept(ctx context.Context, kept ...Result) (left []Result, freed bool, err error) {
	for i := range kept {
		kept[i].Outcome.Kind, kept[i].reported = job.Lost, true
		kept[i].refused = false
	}
	return o.lost(ctx, kept)
}
