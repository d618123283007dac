package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// The database may refuse an outcome for good: its encoding cannot hold a text, or a
// constraint or a trigger of the user's is against it. Then plainer ones are tried, one
// after the other, until one is taken:
//
//  1. the same with its texts in ASCII (escapes.go), and without a new payload;
//  2. where it was no failure, one that says what was refused, with the shared backoff;
//  3. the lock alone: the attempt counts, and the job waits as after a failure;
//  4. the lock of the job's queue alone, so that the others of the queue go on. The
//     outcome is kept, and tried again until the worker ends.
//
// Where the lock of the job's queue cannot be given back, the outcome is stored without
// that, and what is tried again is the queue's lock.
//
// So a job whose completion is always refused has run, and runs again with growing waits
// until it has no attempts left. It is never run without end, and stands in nobody's
// way.

// refusedOutcome is why a run counts as failed whose real outcome was refused.
type refusedOutcome struct {
	kind  job.Kind
	cause error
}

func (e *refusedOutcome) Error() string {
	did := map[job.Kind]string{
		job.Completed: "completed", job.Returned: "went back to the queue", job.Snoozed: "was snoozed",
	}[e.kind]
	return fmt.Sprintf("the job %s, but the database refused to store that: %v", did, e.cause)
}

func (e *refusedOutcome) Unwrap() error { return e.cause }

// errUnchanged is the refusal of a database that reports no error.
var errUnchanged = job.ErrUnchanged

// isRefusal reports whether err is an answer to an outcome, rather than the state of the
// database.
func isRefusal(err error) bool {
	return errors.Is(err, errUnchanged) || errors.Is(err, errQueueUnchanged) || retry.Refused(err) && retry.Of(err) == retry.Answer
}

// plainer lists what is written in place of an outcome that was refused.
func plainer(e runResult, refusal error) []runResult {
	e.plain = true
	var list []runResult
	if e.outcome.Kind != job.Completed {
		list = append(list, e)
		if e.outcome.Payload != nil {
			e.outcome.Payload = nil
			list = append(list, e)
		}
	}
	if e.outcome.Kind != job.Failed {
		e.outcome = job.Outcome{Kind: job.Failed, Err: &refusedOutcome{kind: e.outcome.Kind, cause: refusal}}
		list = append(list, e)
	}
	return list
}

// instead writes something plainer in place of an outcome that was refused. ok says
// that the job's lock is given back, or was lost. err is an error other than a refusal.
func (o *outcomes) instead(ctx context.Context, e *runResult, refusal error) (ok, freed bool, err error) {
	kind := e.outcome.Kind
	if kind == job.Completed && retry.Ruled(refusal) {
		if ok, freed, err := o.deletePlainly(ctx, e); ok || err != nil {
			return ok, freed, err
		}
	}
	e.keepQueue = e.job.Queue != "" // it may be what is refused
	list := plainer(*e, refusal)
	if e.keepQueue && !errors.Is(refusal, errUnchanged) {
		list = append([]runResult{*e}, list...)
	}
	for _, p := range list {
		write := o.giveBack
		switch p.outcome.Kind {
		case job.Completed:
			write = o.complete
		case job.Failed:
			write = o.fail
		default: // it goes back
		}
		if p.outcome.Kind == job.Failed && kind != job.Failed {
			p.outcome.Err = &refusedOutcome{kind: kind, cause: refusal}
		}
		done, err := write(ctx, []runResult{p})
		switch {
		case err != nil && !isRefusal(err):
			return false, false, err
		case err != nil:
			refusal = err
			continue
		}
		if w := done[e.job.ID]; w.locked {
			if p.outcome.Kind != kind {
				o.tellRefused(*e, refusal, event.StoredFailure)
				p.unstarted = false // it ends here, whether it began or not
			}
			o.report(p, w)
			if w.queueKept {
				return o.freeQueueOf(ctx, e)
			}
			return true, true, nil
		}
	}
	return o.unlock(ctx, e, refusal)
}

// deletePlainly completes a job although a rule is against the usual statement.
func (o *outcomes) deletePlainly(ctx context.Context, e *runResult) (ok, freed bool, err error) {
	lockedAt := e.job.Lock.At
	rows, err := o.queries.DeleteJob(ctx, dbgen.DeleteJobParams{
		ID: e.job.ID, WorkerID: o.workerID, LockedAt: lockedAt, Attempt: int32(e.job.Lock.Attempt),
	})
	switch {
	case err != nil && !isRefusal(err):
		return false, false, err
	case err != nil || rows == 0:
		return false, false, nil
	}
	o.report(*e, written{locked: true})
	return o.freeQueueOf(ctx, e)
}

// freeQueueOf is freeKept for one run, which is left to be tried again as it is then. Its
// job is free in any case.
func (o *outcomes) freeQueueOf(ctx context.Context, e *runResult) (ok, freed bool, err error) {
	left, _, err := o.freeKept(ctx, *e)
	if len(left) > 0 {
		*e = left[0]
	}
	return len(left) == 0, true, err
}

// unlock gives the lock back and writes nothing else.
func (o *outcomes) unlock(ctx context.Context, e *runResult, refusal error) (ok, freed bool, err error) {
	lockedAt := e.job.Lock.At
	for _, waits := range []bool{true, false} {
		rows, err := o.queries.UnlockJob(ctx, dbgen.UnlockJobParams{
			ID: e.job.ID, WorkerID: o.workerID, LockedAt: lockedAt, Waits: waits, At: timeOf(o.now),
		})
		switch {
		case err != nil && !isRefusal(err):
			return false, false, err
		case err != nil || len(rows) == 0 || !rows[0].Unlocked:
			continue
		}
		o.tellRefused(*e, refusal, event.StoredUnlocked)
		failed := *e
		failed.unstarted = false
		if failed.outcome.Kind != job.Failed {
			failed.outcome = job.Outcome{Kind: job.Failed, Err: &refusedOutcome{kind: e.outcome.Kind, cause: refusal}}
		}
		o.report(failed, written{locked: true, permanent: rows[0].Permanent, runAt: rows[0].RunAt.Time})
		if e.job.Queue != "" {
			return o.freeQueueOf(ctx, e)
		}
		return true, true, nil
	}
	queues, err := o.queries.FreeQueue(ctx, dbgen.FreeQueueParams{ID: e.job.ID, WorkerID: o.workerID, LockedAt: lockedAt})
	if err != nil && !isRefusal(err) {
		return false, false, err
	}
	stored := event.StoredNothing
	freed = len(queues) > 0 && queues[0]
	if freed {
		stored = event.StoredQueueFreed
	}
	if !e.refused {
		o.tellRefused(*e, refusal, stored)
	}
	e.refused = true
	return false, freed, refusal
}

func (o *outcomes) tellRefused(e runResult, refusal error, stored event.Stored) {
	if o.onRefusal != nil {
		o.onRefusal()
	}
	o.events.Emit(event.OutcomeRefused{WorkerID: o.workerID, Job: eventJob(e.job), Err: refusal, Stored: stored})
}

// stillLocked tells the runs whose locks are still there from those that are lost.
func (o *outcomes) stillLocked(ctx context.Context, runs []runResult) (locked, lost []runResult, err error) {
	c := newColumns(runs)
	found, err := o.queries.LockedRuns(ctx, dbgen.LockedRunsParams{
		Ids: c.ids, Attempts: c.attempts, LockedAts: lockedAts(runs), WorkerID: o.workerID,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("looking for the locks of %d jobs: %w", len(runs), err)
	}
	for _, e := range runs {
		if slices.Contains(found, e.job.ID) {
			locked = append(locked, e)
		} else {
			lost = append(lost, e)
		}
	}
	return locked, lost, nil
}
