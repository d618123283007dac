package completer

import (
	"context"
	"errors"
	"fmt"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/history"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// A handler may complete its job inside a transaction of its own. What the
// handler returns says nothing about that transaction's end: the answer to its
// commit may have been lost, it may be rolled back later, or never be ended. So
// the database is asked by the transaction's id. A job whose transaction is open
// when its run ends is kept like any outcome that cannot be written yet.

// ErrNotCommitted is the failure of a run that completed its job in a
// transaction, returned no error, and did not commit.
var ErrNotCommitted = errors.New("the handler completed its job in a transaction that was rolled back")

var errStillOpen = errors.New("the transaction in which the handler completed its job is still open: " +
	"it must be committed or rolled back before the handler returns")

// settle takes the runs out of a group that have completed their jobs in
// transactions. completed are those whose transaction has done it; rest is what
// is to be written in the ordinary way; open is not decided yet.
func (o *Outcomes) settle(ctx context.Context, group []Result) (rest, completed, open []Result, err error) {
	var asked []Result
	for i, e := range group {
		switch {
		case e.Job.Completion() == 0 || e.reported: // of a reported one only the queue is left
			if asked != nil || open != nil {
				rest = append(rest, e)
			}
			continue
		case asked == nil && open == nil:
			rest = append(rest, group[:i]...) // the group itself stays as it is
		}
		if e.Job.Completion() == job.Completing {
			open, err = append(open, e), errStillOpen
		} else {
			asked = append(asked, e)
		}
	}
	if asked == nil && open == nil {
		return group, nil, nil, nil
	}
	if len(asked) == 0 {
		return rest, nil, open, err
	}
	fates, askErr := o.fates(ctx, asked)
	if askErr != nil {
		return rest, nil, append(open, asked...), askErr
	}
	var committed []Result
	for i, e := range asked {
		switch fates[i] {
		case "committed":
			committed = append(committed, e)
		case "in progress":
			open, err = append(open, e), errStillOpen
		case "aborted":
			rest = append(rest, o.notCommitted(e))
		default: // too long ago to be known: the row is what is left to see
			e.Unsure = true
			e.fateUnknown = e.Outcome.Kind == job.Completed
			rest = append(rest, o.notCommitted(e))
		}
	}
	// The completion itself may have been rolled back to a savepoint.
	held, askErr := o.haveLocks(ctx, committed)
	if askErr != nil {
		return rest, nil, append(open, committed...), askErr
	}
	for i, e := range committed {
		if held[i] {
			rest = append(rest, o.notCommitted(e))
		} else {
			completed = append(completed, e)
		}
	}
	return rest, completed, open, err
}

// fates asks what became of the transactions.
func (o *Outcomes) fates(ctx context.Context, asked []Result) ([]string, error) {
	ids := make([]int64, len(asked))
	for i, e := range asked {
		ids[i] = e.Job.Completion()
	}
	rows, err := o.queries.TransactionFates(ctx, ids)
	fates := make([]string, len(asked))
	switch {
	case err == nil:
		for _, row := range rows {
			fates[row.Place-1] = row.Fate
		}
	case !retry.Refused(err) || retry.Passes(err):
		return nil, fmt.Errorf("asking what became of the transactions of %d jobs: %w", len(asked), err)
	case len(asked) > 1:
		for i := range asked {
			one, oneErr := o.fates(ctx, asked[i:i+1])
			if oneErr != nil {
				return nil, oneErr
			}
			fates[i] = one[0]
		}
	default:
		// A server that does not know the transaction, as after a failover
		// that lost it.
		fates[0] = "unknown"
	}
	return fates, nil
}

// haveLocks says of each run whether its job's row still has its lock.
func (o *Outcomes) haveLocks(ctx context.Context, runs []Result) ([]bool, error) {
	if len(runs) == 0 {
		return nil, nil
	}
	p := dbgen.LostJobsParams{WorkerID: o.workerID}
	for _, e := range runs {
		p.Ids = append(p.Ids, e.Job.ID)
		p.LockedAts = append(p.LockedAts, e.Job.Lock.At)
	}
	gone, err := o.queries.LostJobs(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("looking for the rows of %d jobs that were completed in transactions: %w", len(runs), err)
	}
	held := make([]bool, len(runs))
	for i := range held {
		held[i] = true
	}
	for _, place := range gone {
		held[place-1] = false
	}
	return held, nil
}

// notCommitted is a run whose transaction has not done what it should.
func (o *Outcomes) notCommitted(e Result) Result {
	e.Job.SetCompletion(0) // known now: not to be asked again
	if e.Outcome.Kind == job.Completed {
		e.Outcome = job.Outcome{Kind: job.Failed, Err: ErrNotCommitted}
		e.Outcome = o.policies[e.Job.Task].Decided(o.workerID, e.Job, e.Outcome, o.events)
	}
	return e
}

// settled reports jobs that their own transactions have completed, and unlocks their
// queues where that was left to the worker.
func (o *Outcomes) settled(ctx context.Context, completed []Result) (left []Result, freed bool, err error) {
	var kept []Result
	for _, e := range completed {
		o.reportSettled(e)
		switch {
		case e.Job.QueueKept():
			kept = append(kept, e)
		case e.Job.Queue != "":
			freed = true
		}
	}
	if len(kept) == 0 {
		return nil, freed, nil
	}
	left, keptFreed, err := o.freeKept(ctx, kept...)
	return left, freed || keptFreed, err
}

// reportSettled reports a job that its own transaction has completed.
func (o *Outcomes) reportSettled(e Result) {
	o.history.Ran(e.Job.Task, history.Completed, e.Waited, e.Duration)
	o.events.Emit(event.JobCompleted{WorkerID: o.workerID, Job: eventstream.Job(e.Job), Duration: e.Duration})
	if e.Outcome.Err != nil {
		o.events.Emit(event.ErrorAfterCompletion{WorkerID: o.workerID, Job: eventstream.Job(e.Job), Err: e.Outcome.Err})
	}
}
