package sqltask

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// A Completer completes jobs in transactions that are not the worker's own, by one
// statement. PostgreSQL refuses that statement if the user has made a rule on the table of
// jobs or queues, and the error would abort the transaction. So if there is a rule, it uses
// plain statements instead, and the worker unlocks the job's queue after the run.
//
// It may be used from any number of goroutines.
type Completer struct{ ruled atomic.Bool }

// Ruled notes that there is such a rule.
func (c *Completer) Ruled() { c.ruled.Store(true) }

// Complete deletes the row of a job if its lock is the claim's, and reports whether it
// was. transaction can be used to ask the database later whether it has committed.
func (c *Completer) Complete(ctx context.Context, queries *dbgen.Queries, j *job.Claimed) (transaction int64, completed bool, err error) {
	attempt, lockedAt := int32(j.Lock.Attempt), j.Lock.At
	if !c.ruled.Load() {
		row, err := queries.CompleteInTransaction(ctx, dbgen.CompleteInTransactionParams{
			ID: j.ID, Attempt: attempt, WorkerID: j.Lock.By, LockedAt: lockedAt,
		})
		if err != nil && retry.Ruled(err) {
			c.Ruled()
			return 0, false, fmt.Errorf("%w (there is a rule on the table of jobs or queues: the next run completes by other statements)", err)
		}
		if row.Completed > 0 && row.QueueKept {
			j.KeepQueue()
		}
		return row.Transaction, row.Completed > 0, err
	}
	rows, err := queries.DeleteJob(ctx, dbgen.DeleteJobParams{ID: j.ID, WorkerID: j.Lock.By, LockedAt: lockedAt, Attempt: attempt})
	if err != nil {
		return 0, false, err
	}
	if transaction, err = queries.CurrentTransaction(ctx); err != nil {
		return 0, false, err
	}
	if rows > 0 && j.Row.Queue != "" {
		j.KeepQueue()
	}
	return transaction, rows > 0, nil
}
