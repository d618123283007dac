package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// What the end of a held claim writes may be refused for the sake of one of its jobs.
// Then the locks of all are written instead, and their outcomes go the way of locked
// jobs, one by one if need be (refused.go). Where something of the user's is known that
// may refuse or keep what is written ("guarded") a savepoint comes first, so that the rows
// are held until the locks are written: a rollback would set them free, and jobs that have
// run would run again. Behind it deferred constraints are checked, and rows that a trigger
// has kept as they were are looked for, which is done after the commit elsewhere.
//
// It is not done everywhere, since rows that are locked before a savepoint and deleted
// behind it have a MultiXact: no scan takes those for dead and marks their index entries,
// so every claim reads them again until a vacuum. With 100 queues that costs two thirds of
// the speed. What is created while the worker runs is therefore not known until its first
// refusal, and nothing holds the rows of that claim until they are locked: the one case in
// which jobs that have run may run again. HoldLost tells of it.

const (
	savepointHeld  = "savepoint gworker_end"
	rollBackToHeld = "rollback to savepoint gworker_end"
	checkNow       = "set constraints all immediate"
)

// guard finds out whether there is something that may refuse outcomes, or keep rows as
// they were. Where it cannot, the first refusal tells.
func (cc *claimConn) guard(ctx context.Context) {
	h := cc.h
	if h.guarded.Load() {
		return
	}
	may, err := h.config.Statements.On(cc.conn).OutcomesMayBeRefused(ctx, h.config.Statements.Schema())
	if err == nil && may {
		h.guarded.Store(true)
	}
}

// salvage writes the locks of a claim's jobs and commits, after its end was refused
// behind a savepoint. Those of refused cannot even be locked. It reports false if the
// transaction is lost.
func (cc *claimConn) salvage(ctx context.Context, oc *openClaim, e ending) (kept map[int64]bool, refused map[int64]error, ok bool) {
	if cc.conn == nil || cc.conn.IsClosed() || cc.conn.PgConn().TxStatus() != 'E' {
		return nil, nil, false
	}
	if _, err := cc.conn.Exec(ctx, rollBackToHeld); err != nil {
		return nil, nil, false // there was none
	}
	var ids []int64
	for _, end := range e.finish {
		ids = append(ids, end.Job.ID)
	}
	for _, a := range e.spill {
		ids = append(ids, a.job.ID)
	}
	kept, refused, err := cc.lockAll(ctx, ids, e.lockAt)
	if err != nil {
		return nil, nil, false
	}
	tag, err := cc.conn.Exec(ctx, commitHeld)
	if err != nil || tag.String() != "COMMIT" {
		return nil, nil, false
	}
	for _, a := range oc.jobs {
		if a.prelocked {
			kept[a.job.ID] = true // its lock was written with the claim
		}
	}
	return kept, refused, true
}

// lockAll writes locks, one by one if they are refused together.
func (cc *claimConn) lockAll(ctx context.Context, ids []int64, lockAt *time.Time) (kept map[int64]bool, refused map[int64]error, err error) {
	queries := cc.h.config.Statements.On(cc.conn)
	kept, refused = map[int64]bool{}, map[int64]error{}
	lock := func(ids []int64) error {
		locked, err := queries.SpillJobs(ctx, dbgen.SpillJobsParams{WorkerID: cc.h.workerID, LockAt: lockAt, Ids: ids})
		if err == nil {
			_, err = cc.conn.Exec(ctx, checkNow)
		}
		if err == nil {
			for _, id := range locked {
				kept[id] = true
			}
			_, err = cc.conn.Exec(ctx, savepointHeld)
			return err
		}
		if !completer.IsRefusal(err) {
			return err // a full disk, a lock, a missing right: no answer to these jobs
		}
		if _, rollBackErr := cc.conn.Exec(ctx, rollBackToHeld); rollBackErr != nil {
			return rollBackErr
		}
		if len(ids) == 1 {
			refused[ids[0]] = err
			return nil
		}
		return errOneByOne
	}
	if len(ids) == 0 {
		return kept, refused, nil
	}
	err = lock(ids)
	if errors.Is(err, errOneByOne) {
		err = nil
		for i := range ids {
			if err = lock(ids[i : i+1]); err != nil {
				break
			}
		}
	}
	for _, id := range ids {
		if !kept[id] && refused[id] == nil {
			refused[id] = completer.ErrUnchanged
		}
	}
	return kept, refused, err
}

var errOneByOne = errors.New("refused together")

// relock is RelockJobs, one by one if they are refused together.
func (h *heldClaims) relock(ctx context.Context, p dbgen.RelockJobsParams) (kept map[int64]bool, refused map[int64]error, err error) {
	kept, refused = map[int64]bool{}, map[int64]error{}
	found, err := h.queries.RelockJobs(ctx, p)
	if err == nil {
		for _, row := range found {
			if row.Locked {
				kept[row.ID] = true
			} else {
				refused[row.ID] = completer.ErrUnchanged
			}
		}
		return kept, refused, nil
	}
	if !completer.IsRefusal(err) {
		return kept, refused, err
	}
	if len(p.Ids) == 1 {
		refused[p.Ids[0]] = err
		return kept, refused, nil
	}
	for i := range p.Ids {
		someKept, someRefused, err := h.relock(ctx, dbgen.RelockJobsParams{
			WorkerID: p.WorkerID, Ids: p.Ids[i : i+1], Attempts: p.Attempts[i : i+1],
			Revisions: p.Revisions[i : i+1], RunAts: p.RunAts[i : i+1], LockedAts: p.LockedAts[i : i+1],
		})
		if err != nil {
			return kept, refused, err
		}
		for id := range someKept {
			kept[id] = true
		}
		for id, err := range someRefused {
			refused[id] = err
		}
	}
	return kept, refused, nil
}

// tellUnlockable reports runs of jobs that nothing can be written about, not even their
// lock: they are free, and run again, but not before their locks can be written.
func (h *heldClaims) tellUnlockable(e completer.Result, refusal error) {
	h.refused.add(e.Job.ID)
	h.events.Emit(event.OutcomeRefused{WorkerID: h.workerID, Job: eventstream.Job(e.Job), Err: refusal, Stored: event.StoredNothing})
}

// keepUnchanged sees to runs that have ended with their claim, and whose rows a trigger
// may have kept as they were. Those that are there still are locked, and their outcomes
// go the way of locked jobs. No connection waits for it; and no job is claimed meanwhile.
func (cc *claimConn) keepUnchanged(ctx context.Context, runs []completer.Result) {
	h := cc.h
	h.guarded.Store(true)
	h.rescuing.Add(1)
	h.running.Go(func() {
		defer h.pool.nudge()
		defer h.rescuing.Add(-1)
		waits := retry.Backoff(retry.Contention)
		for tries := 0; ; tries++ {
			err := h.lockUnchanged(ctx, runs)
			if err == nil {
				return
			}
			wait := waits.NextBackOff()
			switch {
			case ctx.Err() != nil:
				h.events.Emit(event.OutcomesAbandoned{WorkerID: h.workerID, JobIDs: completer.IDs(runs), Err: err})
				return
			case tries == 0:
				h.events.Emit(event.OutcomesDelayed{WorkerID: h.workerID, Count: len(runs), Err: err, RetryIn: wait})
			}
			cc.pause(ctx, wait)
		}
	})
}

func (h *heldClaims) lockUnchanged(ctx context.Context, runs []completer.Result) error {
	ids, err := h.queries.RemainingJobs(ctx, completer.IDs(runs))
	if err != nil {
		return fmt.Errorf("looking for the rows of %d jobs that have ended: %w", len(runs), err)
	}
	remain := map[int64]bool{}
	for _, id := range ids {
		remain[id] = true
	}
	var unchanged []completer.Result
	p := dbgen.RelockJobsParams{WorkerID: h.workerID}
	for _, e := range runs {
		if remain[e.Job.ID] {
			unchanged = append(unchanged, e)
			appendRelock(&p, e.Job)
		}
	}
	kept, refused := map[int64]bool{}, map[int64]error{}
	if len(unchanged) > 0 {
		if kept, refused, err = h.relock(ctx, p); err != nil {
			return fmt.Errorf("locking %d jobs that were not deleted: %w", len(unchanged), err)
		}
	}
	for _, e := range runs {
		switch {
		case !remain[e.Job.ID]:
			h.out.Report(e, completer.Written{Locked: true})
		case kept[e.Job.ID]:
			h.complete(e)
		case refused[e.Job.ID] != nil:
			h.tellUnlockable(e, refused[e.Job.ID])
		default: // it was claimed again meanwhile
			h.out.ReportLost(e, completer.ErrUnchanged, false)
		}
	}
	return nil
}

// appendRelock adds a job as it was when it was held.
func appendRelock(p *dbgen.RelockJobsParams, j *job.Claimed) {
	p.Ids = append(p.Ids, j.ID)
	p.Attempts = append(p.Attempts, int32(j.Lock.Attempt))
	p.Revisions = append(p.Revisions, int32(j.Revision))
	p.RunAts = append(p.RunAts, j.RunAt)
	p.LockedAts = append(p.LockedAts, j.Lock.At)
}
