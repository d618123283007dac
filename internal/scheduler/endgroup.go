package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// groupEnd is the statements that end a group, in the order in which their
// answers are read.
type groupEnd struct {
	read func(pgx.BatchResults) (map[int64]written, error)
}

// queueEnd asks for everything that the end of a group writes, and the commit.
// announce tells others of jobs that are free again, where this worker will not
// claim them at once.
func (l *lane) queueEnd(batch *pgx.Batch, e ending, announce bool) groupEnd {
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
		}
	}
	for _, a := range e.spill {
		spill = append(spill, a.job.ID)
	}
	h := l.h
	if len(complete) > 0 {
		batch.Queue(h.text(dbgen.CompleteHeldJobs), complete)
	}
	if len(fail.Ids) > 0 {
		batch.Queue(h.text(dbgen.FailHeldJobs), fail.Ids, fail.Errors, fail.Delays, fail.Finals, fail.Capped, fail.Payloads)
	}
	if len(back.Ids) > 0 {
		batch.Queue(h.text(dbgen.PutBackHeldJobs), back.Ids, back.Delays, back.Payloads)
	}
	if len(spill) > 0 {
		batch.Queue(h.text(dbgen.SpillJobs), h.workerID, spill)
	}
	announce = announce && free > 0
	if announce {
		batch.Queue(h.text(dbgen.AnnounceHeldJobs), int32(free))
	}
	batch.Queue(commitHeld)
	return groupEnd{read: func(results pgx.BatchResults) (map[int64]written, error) {
		failed := make(map[int64]written, len(fail.Ids))
		if len(complete) > 0 {
			tag, err := results.Exec()
			if err == nil && tag.RowsAffected() != int64(len(complete)) {
				l.h.events.Emit(event.HeldJobsKept{
					WorkerID: h.workerID, Completed: len(complete), Deleted: int(tag.RowsAffected()),
				})
			}
			if err != nil {
				return nil, fmt.Errorf("statement CompleteHeldJobs: %w", err)
			}
		}
		if len(fail.Ids) > 0 {
			if err := readFailed(results, failed); err != nil {
				return nil, fmt.Errorf("statement FailHeldJobs: %w", err)
			}
		}
		for _, asked := range []struct {
			name string
			was  bool
		}{{"PutBackHeldJobs", len(back.Ids) > 0}, {"SpillJobs", len(spill) > 0}, {"AnnounceHeldJobs", announce}} {
			if asked.was {
				if _, err := results.Exec(); err != nil {
					return nil, fmt.Errorf("statement %s: %w", asked.name, err)
				}
			}
		}
		tag, err := results.Exec()
		if err == nil && tag.String() != "COMMIT" {
			err = fmt.Errorf("the server answered %q", tag)
		}
		if err != nil {
			return nil, fmt.Errorf("committing: %w", err)
		}
		return failed, nil
	}}
}

func readFailed(results pgx.BatchResults, failed map[int64]written) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r dbgen.FailHeldJobsRow
		if err := rows.Scan(&r.ID, &r.RunAt, &r.Permanent); err != nil {
			return err
		}
		failed[r.ID] = written{permanent: r.Permanent, runAt: r.RunAt.Time}
	}
	return rows.Err()
}

// errHoldLost is why a run ends whose held claim is gone.
var errHoldLost = fmt.Errorf("the connection that held the job was lost, and the job was taken by somebody else: %w", job.ErrLost)

// rescue locks the jobs of a group anew whose transaction was lost, and lets them
// go on as ordinary ones; it tries until the database answers, or ctx ends. For
// those that are not to be had any more, there is nothing left to write.
func (l *lane) rescue(ctx context.Context, g *group, cause error) {
	h := l.h
	// Whether the commit took effect is known only if a statement was refused.
	unsure := !retry.Refused(cause)
	kept, waits := map[int64]bool{}, retry.Backoff(retry.Contention)
	for tries := 0; ; tries++ {
		params := h.pool.relock(g, h.workerID)
		if len(params.Ids) == 0 {
			break
		}
		ids, err := h.queries.RelockJobs(ctx, params)
		if err == nil {
			for _, id := range ids {
				kept[id] = true
			}
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
		l.pause(ctx, wait)
	}
	l.rescued(g, kept, cause, unsure)
}

func (l *lane) rescued(g *group, kept map[int64]bool, cause error, unsure bool) {
	h := l.h
	gone, lost := h.pool.rescued(g, kept, func(end ended) {
		end.unsure = unsure
		h.release(end)
	})
	h.events.Emit(event.HoldLost{
		WorkerID: h.workerID, Kept: len(kept), Lost: len(gone) + len(lost), Err: cause,
	})
	for _, end := range gone {
		h.events.Emit(event.JobLost{WorkerID: h.workerID, Job: end.job, Err: end.outcome.Err, Unsure: unsure})
	}
	h.pool.lose(lost, errHoldLost)
}

// pause waits, unless the database is back before, or ctx ends.
func (l *lane) pause(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-l.kicked:
	}
}
