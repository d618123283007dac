package completer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
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

// ErrUnchanged is the refusal of a database that reports no error.
var ErrUnchanged = job.ErrUnchanged

// ErrQueueUnchanged is the same for the lock of a queue.
var ErrQueueUnchanged = errors.New("the queue's row is as it was, although the statement succeeded; " +
	"look for a trigger on the queues table that returns null")

// IsRefusal reports whether err is an answer to an outcome, rather than the state of the
// database.
func IsRefusal(err error) bool {
	return errors.Is(err, ErrUnchanged) || errors.Is(err, ErrQueueUnchanged) || retry.Refused(err) && retry.Of(err) == retry.Answer
}

// plainer lists what is written in place of an outcome that was refused.
func plainer(e Result, refusal error) []Result {
	e.plain = true
	var list []Result
	if e.Outcome.Kind != job.Completed {
		list = append(list, e)
		if e.Outcome.Payload != nil {
			e.Outcome.Payload = nil
			list = append(list, e)
		}
	}
	if e.Outcome.Kind != job.Failed {
		e.Outcome = job.Outcome{Kind: job.Failed, Err: &refusedOutcome{kind: e.Outcome.Kind, cause: refusal}}
		list = append(list, e)
	}
	return list
}

// instead writes something plainer in place of an outcome that was refused. ok says
// that the job's lock is given back, or was lost. err is an error other than a refusal.
func (o *Outcomes) instead(ctx context.Context, e *Result, refusal error) (ok, freed bool, err error) {
	kind := e.Outcome.Kind
	if kind == job.Completed && retry.Ruled(refusal) {
		if ok, freed, err := o.deletePlainly(ctx, e); ok || err != nil {
			return ok, freed, err
		}
	}
	e.keepQueue = e.Job.Queue != "" // it may be what is refused
	list := plainer(*e, refusal)
	if e.keepQueue && !errors.Is(refusal, ErrUnchanged) {
		list = append([]Result{*e}, list...)
	}
	for _, p := range list {
		write := o.giveBack
		switch p.Outcome.Kind {
		case job.Completed:
			write = o.complete
		case job.Failed:
			write = o.fail
		default: // it goes back
		}
		if p.Outcome.Kind == job.Failed && kind != job.Failed {
			p.Outcome.Err = &refusedOutcome{kind: kind, cause: refusal}
		}
		done, err := write(ctx, []Result{p})
		switch {
		case err != nil && !IsRefusal(err):
			return false, false, err
		case err != nil:
			refusal = err
			continue
		}
		if w := done[e.Job.ID]; w.Locked {
			if p.Outcome.Kind != kind {
				o.tellRefused(*e, refusal, event.StoredFailure)
				p.Unstarted = false // it ends here, whether it began or not
			}
			o.Report(p, w)
			if w.queueKept {
				return o.freeQueueOf(ctx, e)
			}
			return true, true, nil
		}
	}
	return o.unlock(ctx, e, refusal)
}

// deletePlainly completes a job although a rule is against the usual statement.
func (o *Outcomes) deletePlainly(ctx context.Context, e *Result) (ok, freed bool, err error) {
	lockedAt := e.Job.Lock.At
	rows, err := o.queries.DeleteJob(ctx, dbgen.DeleteJobParams{
		ID: e.Job.ID, WorkerID: o.workerID, LockedAt: lockedAt, Attempt: int32(e.Job.Lock.Attempt),
	})
	switch {
	case err != nil && !IsRefusal(err):
		return false, false, err
	case err != nil || rows == 0:
		return false, false, nil
	}
	o.Report(*e, Written{Locked: true})
	return o.freeQueueOf(ctx, e)
}

// freeQueueOf is freeKept for one run, which is left to be tried again as it is then. Its
// job is free in any case.
func (o *Outcomes) freeQueueOf(ctx context.Context, e *Result) (ok, freed bool, err error) {
	left, _, err := o.freeKept(ctx, *e)
	if len(left) > 0 {
		*e = left[0]
	}
	return len(left) == 0, true, err
}

// unlock gives the lock back and writes nothing else.
func (o *Outcomes) unlock(ctx context.Context, e *Result, refusal error) (ok, freed bool, err error) {
	lockedAt := e.Job.Lock.At
	for _, waits := range []bool{true, false} {
		rows, err := o.queries.UnlockJob(ctx, dbgen.UnlockJobParams{
			ID: e.Job.ID, WorkerID: o.workerID, LockedAt: lockedAt, Waits: waits, At: TimeOf(o.now),
		})
		switch {
		case err != nil && !IsRefusal(err):
			return false, false, err
		case err != nil || len(rows) == 0 || !rows[0].Unlocked:
			continue
		}
		o.tellRefused(*e, refusal, event.StoredUnlocked)
		failed := *e
		failed.Unstarted = false
		if failed.Outcome.Kind != job.Failed {
			failed.Outcome = job.Outcome{Kind: job.Failed, Err: &refusedOutcome{kind: e.Outcome.Kind, cause: refusal}}
		}
		o.Report(failed, Written{Locked: true, Permanent: rows[0].Permanent, RunAt: rows[0].RunAt.Time})
		if e.Job.Queue != "" {
			return o.freeQueueOf(ctx, e)
		}
		return true, true, nil
	}
	queues, err := o.queries.FreeQueue(ctx, dbgen.FreeQueueParams{ID: e.Job.ID, WorkerID: o.workerID, LockedAt: lockedAt})
	if err != nil && !IsRefusal(err) {
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

func (o *Outcomes) tellRefused(e Result, refusal error, stored event.Stored) {
	if o.OnRefusal != nil {
		o.OnRefusal()
	}
	o.events.Emit(event.OutcomeRefused{WorkerID: o.workerID, Job: eventstream.Job(e.Job), Err: refusal, Stored: stored})
}

// stillLocked tells the runs whose locks are still there from those that are lost.
func (o *Outcomes) stillLocked(ctx context.Context, runs []Result) (locked, lost []Result, err error) {
	c := newColumns(runs)
	found, err := o.queries.LockedRuns(ctx, dbgen.LockedRunsParams{
		Ids: c.IDs, Attempts: c.Attempts, LockedAts: lockedAts(runs), WorkerID: o.workerID,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("looking for the locks of %d jobs: %w", len(runs), err)
	}
	for _, e := range runs {
		if slices.Contains(found, e.Job.ID) {
			locked = append(locked, e)
		} else {
			lost = append(lost, e)
		}
	}
	return locked, lost, nil
}
