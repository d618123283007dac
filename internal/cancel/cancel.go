// Package cancel asks for the end of one job, whichever worker runs it. A job id and a
// reason come in, one transaction goes to the database, and what became of the job
// comes out.
//
// A waiting job is failed at once. A running job belongs to its worker until the run
// ends, so it can only be asked for: the row is marked (db/queries/cancel.sql says
// how), which keeps every runtime from trying the job again, and a notification tells
// the worker, if it is a gworker. A worker that misses the notification finds the mark
// the next time it checks its locks (internal/recovery). A run that completes before
// that is complete: cancelling is a request.
//
// The one thing not to break: the row is read, judged and written under one row lock.
// No run may end or begin between the answer "it is running" and the mark; otherwise
// the mark would apply to the wrong run, or a job reported as cancelled would run
// again.
package cancel

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/recovery"
	"github.com/gworker/gworker/internal/statement"
)

// State is what cancelling did.
type State string

const (
	// Requested: the job runs on a gworker, which has been told.
	Requested State = "requested"
	// KeptFromRetrying: the job runs on another runtime's worker.
	KeptFromRetrying State = "kept_from_retrying"
	// Failed: the job did not run, and has failed permanently now.
	Failed State = "failed"
	// AlreadyFailed: the job had failed permanently before.
	AlreadyFailed State = "already_failed"
	// NotFound: there is no such job.
	NotFound State = "not_found"
)

// Result is what cancelling did.
type Result struct {
	// JobID is the job that was asked for.
	JobID int64
	// State says what became of it.
	State State
	// Task is the job's task, or "" if there is no such job.
	Task string
	// WorkerID is the worker that runs the job, or "" if none does.
	WorkerID string
	// Reason is what stands in the job's last_error now: the reason given, or
	// an earlier one that stays.
	Reason string
}

// Changes reports whether the job's row was changed.
func (r Result) Changes() bool {
	return r.State == Requested || r.State == KeptFromRetrying || r.State == Failed
}

// Cancel cancels a job. An empty reason stands for a general one.
func Cancel(
	ctx context.Context, pool *pgxpool.Pool, statements *statement.Set, id int64, reason string,
) (Result, error) {
	if reason == "" {
		reason = job.ErrCancelled.Error()
	}
	var result Result
	// Whatever the database's default is: a stricter level would refuse a row
	// that has changed since the transaction began, instead of reading it.
	err := statements.Transaction(ctx, pool, func(tx pgx.Tx) (commit bool, err error) {
		result, err = InTx(ctx, statements.On(tx), id, reason)
		return err == nil, err
	})
	if err != nil {
		return Result{}, err
	}
	return result, nil
}

// InTx is Cancel inside a transaction at the level "read committed". It holds the
// row from the first statement on. The reason must not be empty.
func InTx(ctx context.Context, q *dbgen.Queries, id int64, reason string) (Result, error) {
	row, err := q.LockJobToCancel(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return Result{JobID: id, State: NotFound}, nil
	}
	if err != nil {
		return Result{}, err
	}
	result := Result{JobID: id, Task: row.Task, WorkerID: row.LockedBy, Reason: reason}
	switch {
	case row.LockedBy == "" && row.Attempts >= row.MaxAttempts:
		result.State, result.Reason = AlreadyFailed, row.LastError
		return result, nil
	case row.LockedBy == "":
		result.State = Failed
		return result, fail(ctx, q, id, reason)
	case strings.HasPrefix(row.LockedBy, recovery.OwnPrefix):
		result.State = Requested
	default:
		result.State = KeptFromRetrying
	}
	if row.Cancelled {
		result.Reason = row.LastError
	} else if err := mark(ctx, q, row, reason); err != nil {
		return Result{}, err
	}
	if result.State == Requested {
		err = q.AnnounceCancel(ctx, dbgen.AnnounceCancelParams{ID: id, WorkerID: row.LockedBy})
	}
	return result, err
}

// mark retires a running job and says why on its row.
func mark(ctx context.Context, q *dbgen.Queries, row dbgen.LockJobToCancelRow, reason string) error {
	if err := q.LayLockAside(ctx, row.ID); err != nil {
		return err
	}
	if err := fail(ctx, q, row.ID, reason); err != nil {
		return err
	}
	return q.MarkJobCancelled(ctx, dbgen.MarkJobCancelledParams{
		ID: row.ID, LockedBy: row.LockedBy, LockedAt: row.LockedAt, Mark: row.Mark,
	})
}

func fail(ctx context.Context, q *dbgen.Queries, id int64, reason string) error {
	n, err := q.FailJobForGood(ctx, dbgen.FailJobForGoodParams{ID: id, Reason: reason})
	if err == nil && n != 1 {
		err = fmt.Errorf("the schema's permanently_fail_jobs failed %d jobs instead of one", n)
	}
	return err
}
