package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// claimEnd is the statements that end a claim, in the order in which their
// answers are read.
type claimEnd struct {
	read func(pgx.BatchResults) (claimEndWritten, error)
}

// claimEndWritten is what the end of a claim has written, if it was committed.
type claimEndWritten struct {
	failed map[int64]written
	// unchanged are ended runs whose rows may be as they were, although no statement
	// has failed.
	unchanged []runResult
	// locked are ended runs whose rows certainly are as they were, and whose locks are
	// written now.
	locked map[int64]bool
	// unspilled are jobs that run, and whose locks are not written.
	unspilled []*job.Claimed
	// awaited are those of the jobs asked about whose rows somebody waited for.
	awaited map[int64]bool
}

// queueEnd asks for everything that the end of a claim writes, and the commit.
// announce tells others of jobs that are free again, where this worker will not
// claim them at once.
func (cc *claimConn) queueEnd(batch *pgx.Batch, e ending, announce bool) claimEnd {
	complete := make([]int64, 0, len(e.finish))
	var fail dbgen.FailHeldJobsParams
	var back dbgen.PutBackHeldJobsParams
	var spill []int64
	free := e.dropped
	for _, end := range e.finish {
		o := end.outcome
		switch o.Kind {
		case job.Completed:
			complete = append(complete, end.job.ID)
		case job.Failed:
			fail.Ids = append(fail.Ids, end.job.ID)
			fail.HeldAttempts = append(fail.HeldAttempts, int32(end.job.Lock.Attempt))
			fail.Errors = append(fail.Errors, errorText(o.Err))
			fail.Delays = append(fail.Delays, delay(o, sharedBackoff))
			fail.Finals = append(fail.Finals, o.Permanent)
			fail.Capped = append(fail.Capped, o.Capped)
			fail.Payloads = append(fail.Payloads, string(o.Payload))
		case job.Returned, job.Snoozed:
			wait := delay(o, 0)
			if wait <= 0 {
				free++
			}
			if wait > 0 || o.Payload != nil {
				back.Ids = append(back.Ids, end.job.ID)
				back.Delays = append(back.Delays, wait)
				back.Payloads = append(back.Payloads, string(o.Payload))
			}
		case job.Settled, job.Lost: // nothing is to be written
		}
	}
	for _, a := range e.spill {
		spill = append(spill, a.job.ID)
	}
	h := cc.h
	guarded := h.guarded.Load()
	if len(e.ask) > 0 {
		batch.Queue(h.text(dbgen.AwaitedJobs), e.ask)
	}
	if guarded {
		batch.Queue(savepointHeld)
	}
	if len(complete) > 0 {
		batch.Queue(h.text(dbgen.CompleteHeldJobs), complete)
	}
	if len(fail.Ids) > 0 {
		batch.Queue(h.text(dbgen.FailHeldJobs), fail.Ids, fail.HeldAttempts, fail.Errors, fail.Delays, fail.Finals, fail.Capped, fail.Payloads)
	}
	if len(back.Ids) > 0 {
		batch.Queue(h.text(dbgen.PutBackHeldJobs), back.Ids, back.Delays, back.Payloads)
	}
	var mayKeep dbgen.LockUnchangedJobsParams
	if guarded {
		mayKeep = unchangedArgs(e.finish)
	}
	lock := len(mayKeep.Ids) > 0
	if lock {
		batch.Queue(h.text(dbgen.LockUnchangedJobs), mayKeep.Ids, mayKeep.Attempts, mayKeep.RunAts, h.workerID)
	}
	if len(spill) > 0 {
		batch.Queue(h.text(dbgen.SpillJobs), h.workerID, spill)
	}
	announce = announce && free > 0
	if announce {
		batch.Queue(h.text(dbgen.AnnounceHeldJobs), int32(free))
	}
	if guarded {
		batch.Queue(checkNow)
	}
	batch.Queue(commitHeld)
	return claimEnd{read: func(results pgx.BatchResults) (claimEndWritten, error) {
		w := claimEndWritten{failed: make(map[int64]written, len(fail.Ids))}
		if len(e.ask) > 0 {
			var err error
			if w.awaited, err = readIDs(results); err != nil {
				return w, fmt.Errorf("statement AwaitedJobs: %w", err)
			}
		}
		if guarded {
			if _, err := results.Exec(); err != nil {
				return w, fmt.Errorf("setting a savepoint: %w", err)
			}
		}
		deleted := 0
		if len(complete) > 0 {
			tag, err := results.Exec()
			if err != nil {
				return w, fmt.Errorf("statement CompleteHeldJobs: %w", err)
			}
			deleted = int(tag.RowsAffected())
			if deleted != len(complete) {
				h.events.Emit(event.HeldJobsKept{
					WorkerID: h.workerID, Completed: len(complete), Deleted: deleted,
				})
				w.unchanged = ofKind(e.finish, job.Completed)
			}
		}
		unchanged := len(complete) - deleted // how many there must be
		if len(fail.Ids) > 0 {
			if err := readFailed(results, w.failed); err != nil {
				return w, fmt.Errorf("statement FailHeldJobs: %w", err)
			}
			if len(w.failed) != len(fail.Ids) {
				unchanged += len(fail.Ids) - len(w.failed)
				for _, end := range ofKind(e.finish, job.Failed) {
					if _, ok := w.failed[end.job.ID]; !ok {
						w.unchanged = append(w.unchanged, end)
					}
				}
			}
		}
		if len(back.Ids) > 0 {
			written, err := readBack(results)
			if err != nil {
				return w, fmt.Errorf("statement PutBackHeldJobs: %w", err)
			}
			if len(written) != len(back.Ids) {
				unchanged += len(back.Ids) - len(written)
				for _, end := range e.finish {
					if slices.Contains(back.Ids, end.job.ID) && !written[end.job.ID] {
						w.unchanged = append(w.unchanged, end)
					}
				}
			}
		}
		if lock {
			var err error
			if w.locked, err = readIDs(results); err != nil {
				return w, fmt.Errorf("statement LockUnchangedJobs: %w", err)
			}
			w.unchanged = slices.DeleteFunc(w.unchanged, func(end runResult) bool { return w.locked[end.job.ID] })
			if len(w.locked) == unchanged {
				w.unchanged = nil // they are all found
			}
		}
		if len(spill) > 0 {
			spilled, err := readIDs(results)
			if err != nil {
				return w, fmt.Errorf("statement SpillJobs: %w", err)
			}
			if len(spilled) != len(spill) {
				for _, a := range e.spill {
					if !spilled[a.job.ID] {
						w.unspilled = append(w.unspilled, a.job)
					}
				}
			}
		}
		if announce {
			if _, err := results.Exec(); err != nil {
				return w, fmt.Errorf("statement AnnounceHeldJobs: %w", err)
			}
		}
		if guarded {
			if _, err := results.Exec(); err != nil {
				return w, fmt.Errorf("checking deferred constraints: %w", err)
			}
		}
		tag, err := results.Exec()
		if err == nil && tag.String() != "COMMIT" {
			err = fmt.Errorf("the server answered %q", tag)
		}
		if err != nil {
			return w, fmt.Errorf("committing: %w", err)
		}
		return w, nil
	}}
}

// unchangedArgs are the jobs that are deleted, fail, or wait, as arguments of
// LockUnchangedJobs. Whether another payload was stored does not show.
func unchangedArgs(runs []runResult) (p dbgen.LockUnchangedJobsParams) {
	for _, e := range runs {
		switch kind := e.outcome.Kind; {
		case kind == job.Completed, kind == job.Failed, (kind == job.Returned || kind == job.Snoozed) && delay(e.outcome, 0) > 0:
			p.Ids = append(p.Ids, e.job.ID)
			p.Attempts = append(p.Attempts, int32(e.job.Lock.Attempt))
			p.RunAts = append(p.RunAts, pgtype.Timestamptz{Time: e.job.RunAt, Valid: true})
		}
	}
	return p
}

func ofKind(runs []runResult, kind job.Kind) (list []runResult) {
	for _, e := range runs {
		if e.outcome.Kind == kind {
			list = append(list, e)
		}
	}
	return list
}

func readIDs(results pgx.BatchResults) (map[int64]bool, error) {
	rows, err := results.Query()
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ids := map[int64]bool{}
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids[id] = true
	}
	return ids, rows.Err()
}

func readFailed(results pgx.BatchResults, failed map[int64]written) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r dbgen.FailHeldJobsRow
		if err := rows.Scan(&r.ID, &r.RunAt, &r.Permanent, &r.Written); err != nil {
			return err
		}
		if r.Written {
			failed[r.ID] = written{permanent: r.Permanent, runAt: r.RunAt.Time}
		}
	}
	return rows.Err()
}

// readBack tells which jobs were put back.
func readBack(results pgx.BatchResults) (map[int64]bool, error) {
	rows, err := results.Query()
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	back := map[int64]bool{}
	for rows.Next() {
		var r dbgen.PutBackHeldJobsRow
		if err := rows.Scan(&r.ID, &r.Written); err != nil {
			return nil, err
		}
		if r.Written {
			back[r.ID] = true
		}
	}
	return back, rows.Err()
}

// errHoldLost is why a run ends whose held claim is gone.
var errHoldLost = fmt.Errorf("the connection that held the job was lost, and the job was taken by somebody else: %w", job.ErrLost)

// rescue locks the jobs of a claim anew whose transaction was lost, and lets them
// go on as ordinary ones; it tries until the database answers, or ctx ends. For
// those that are not to be had any more, there is nothing left to write.
func (cc *claimConn) rescue(ctx context.Context, oc *openClaim, cause error) {
	h := cc.h
	// Whether the commit took effect is known only if a statement was refused.
	unsure := !retry.Refused(cause)
	var kept map[int64]bool
	var refused map[int64]error
	waits := retry.Backoff(retry.Contention)
	for tries := 0; ; tries++ {
		params := h.pool.relock(oc, h.workerID)
		if len(params.Ids) == 0 {
			break
		}
		var err error
		if kept, refused, err = h.relock(ctx, params); err == nil {
			break
		}
		if ctx.Err() != nil {
			h.events.Emit(event.OutcomesAbandoned{WorkerID: h.workerID, JobIDs: params.Ids, Err: errors.Join(cause, err)})
			break
		}
		wait := waits.NextBackOff()
		if tries == 0 {
			h.events.Emit(event.OutcomesDelayed{
				WorkerID: h.workerID, Count: len(params.Ids), Err: errors.Join(cause, err), RetryIn: wait,
			})
		}
		cc.pause(ctx, wait)
	}
	gone, lost := cc.rescued(oc, kept, unsure)
	h.events.Emit(event.HoldLost{WorkerID: h.workerID, Kept: len(kept), Lost: len(gone) + len(lost), Err: cause})
	cc.giveUp(oc, gone, lost, refused, unsure)
}

// rescued ends a claim whose jobs are locked now, as far as they are kept. Of the
// others, gone are those whose runs have ended, and lost those that still run.
func (cc *claimConn) rescued(oc *openClaim, kept map[int64]bool, unsure bool) (gone []runResult, lost []*job.Claimed) {
	return cc.h.pool.rescued(oc, kept, func(end runResult) {
		end.unsure = unsure
		cc.h.complete(end)
	})
}

// giveUp tells of the jobs of a claim that are not kept, and ends their runs. refused
// are those that could not be locked.
func (cc *claimConn) giveUp(oc *openClaim, gone []runResult, lost []*job.Claimed, refused map[int64]error, unsure bool) {
	h := cc.h
	for _, end := range gone {
		if refusal := refused[end.job.ID]; refusal != nil {
			delete(refused, end.job.ID)
			h.tellUnlockable(end, refusal)
			continue
		}
		h.events.Emit(event.JobLost{WorkerID: h.workerID, Job: eventJob(end.job), Err: end.outcome.Err, Unsure: unsure})
	}
	if len(refused) > 0 {
		h.refused.queues.Store(true)
	}
	for _, a := range oc.jobs {
		if refusal := refused[a.job.ID]; refusal != nil { // it has not ended
			h.refused.tell(h.events, h.workerID, a.job, refusal)
		}
	}
	h.pool.lose(lost, errHoldLost)
}

// pause waits, unless the database is back before, or ctx ends.
func (cc *claimConn) pause(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-cc.wake:
	}
}
