package gworker

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
)

// JobRow is a job as it stands in the database. As JSON its fields have the names of the
// columns that the jobs view shows.
type JobRow struct {
	// ID identifies the job for as long as its row exists.
	ID int64 `json:"id"`
	// Task is the identifier of the task that runs the job.
	Task string `json:"task_identifier"`
	// Queue is the named queue in which jobs run one after another, or "".
	Queue string `json:"queue_name,omitempty"`
	// Payload is the job's argument, a JSON text exactly as stored.
	Payload json.RawMessage `json:"payload,omitempty"`
	// Priority orders runnable jobs; lower numbers run first.
	Priority int `json:"priority"`
	// RunAt is the time before which the job does not run.
	RunAt time.Time `json:"run_at"`
	// Attempts counts the runs started so far. Within a handler the present run is
	// included.
	Attempts int `json:"attempts"`
	// MaxAttempts is the number of runs after which a failing job stays failed.
	MaxAttempts int `json:"max_attempts"`
	// LastError is the text of the last failure, or "".
	LastError string `json:"last_error,omitempty"`
	// CreatedAt is when the job was added.
	CreatedAt time.Time `json:"created_at"`
	// UpdatedAt is when the row was last changed.
	UpdatedAt time.Time `json:"updated_at"`
	// Key is the job key that other adds can replace the job by, or "".
	Key string `json:"key,omitempty"`
	// Revision counts how often the job was replaced through its key.
	Revision int `json:"revision"`
	// Flags are the job's flags, sorted; nil if it has none.
	Flags []string `json:"flags,omitempty"`
	// LockedAt is when a worker claimed the job; zero if none has.
	LockedAt time.Time `json:"locked_at,omitzero"`
	// LockedBy is the id of the worker that claimed the job, or "".
	LockedBy string `json:"locked_by,omitempty"`
	// Duplicate says that an add has added nothing, and this is the job that was added before
	// (see JobSpec.UniqueFor): nil on every other row. If that job is gone, or this role
	// may not see it, only ID and Task of the row are known.
	Duplicate *Duplicate `json:"duplicate,omitempty"`
}

// Added reports, of a row that an add has returned, whether the add made it. It is
// false where a job with the same key was there, which was then replaced or, with
// KeyUnsafeDedupe, kept. It is also false for a Duplicate.
func (r *JobRow) Added() bool { return r.Revision == 0 && r.Duplicate == nil }

// jobRows are rows as the client returns them. Each is the same memory.
func jobRows(rows []*job.Row) []*JobRow {
	if rows == nil {
		return nil
	}
	public := make([]*JobRow, len(rows))
	for i, r := range rows {
		public[i] = (*JobRow)(r)
	}
	return public
}

// Job is a job as its handler gets it. T is the type of the payload. It must not be used
// after the handler has returned.
type Job[T any] struct {
	// JobRow is the row as it was when the job was claimed. Its own Payload
	// field, reachable as job.JobRow.Payload, is the stored JSON.
	JobRow

	// Payload is the decoded payload.
	Payload T `json:"payload"`

	env     *environment
	claimed *job.Claimed
	run     *run // of a RawJob that is on its way through middleware
}

// RawJob is a job whose payload is left as the JSON text that is stored.
type RawJob = Job[json.RawMessage]

// Logger returns the worker's logger, see Config.Logger, with the attributes job_id, task and
// attempt of this job. It is never nil; a job that was not made by a worker has
// slog.Default().
func (j *Job[T]) Logger() *slog.Logger {
	if j.env == nil {
		return slog.Default()
	}
	return j.env.jobLogger(j.claimed)
}

// Client returns a client on the worker's own database and schema, or nil if
// the job was not made by a worker.
func (j *Job[T]) Client() *Client {
	if j.env == nil {
		return nil
	}
	return j.env.client
}

// LastAttempt reports whether a failure of this run would be permanent, because
// the job, or TaskOptions.MaxAttempts, allows no further attempt.
func (j *Job[T]) LastAttempt() bool {
	limit := j.MaxAttempts
	if j.env != nil && j.env.maxAttempts > 0 {
		limit = min(limit, j.env.maxAttempts)
	}
	return j.Attempts >= limit
}

var (
	errNoWorker    = errors.New("the job was not made by a worker")
	errOldSnapshot = errors.New("the transaction does not see the job's lock, which was written after it began: " +
		"begin it at the level read committed, or set Config.HoldTime to 0; the next run of the job will do")
	errNoTransaction = errors.New("there is no transaction: it is nil")
)

// ErrAlreadyCompleted is returned by CompleteTx and CompleteSQLTx for a job that an
// earlier call in this run has completed: that call's transaction has committed.
var ErrAlreadyCompleted = errors.New("the job is complete already: the transaction of an earlier call has committed")

// CompleteTx completes the job inside the handler's own transaction: the job is complete if,
// and only if, tx commits. Everything else that tx does therefore happens exactly once. tx
// must be on the worker's database, with rights on the schema of the queue; it can be of any
// pool, for example pool.BeginTx(ctx, pgx.TxOptions{}).
//
// Call it last, and commit. If it returns an error, roll back: ErrJobLost says that this run
// no longer has the job's lock, and that another may be running; ErrAlreadyCompleted says
// that an earlier call has completed the job.
//
// The worker asks the database whether the transaction has committed. If so, the job is
// complete, whatever the handler returns; an error that it returns afterwards cannot be
// stored, because the row is gone, and is reported as ErrorAfterCompletion. If it was rolled
// back, the attempt ends with the handler's error, or fails with ErrNotCommitted if that is
// nil. A transaction that is still open when the handler returns leaves the job locked until
// it ends; OutcomesDelayed reports it.
//
// The job's named queue is free from the commit on, so its next job may start before this
// handler has returned. If the table of queues has triggers or constraints of your own, the
// worker frees the queue after the run instead: their refusal does not break tx, and is
// reported as OutcomeRefused.
func (j *Job[T]) CompleteTx(ctx context.Context, tx pgx.Tx) error {
	switch {
	case j.env == nil:
		return completionError(&j.JobRow, errNoWorker)
	case tx == nil:
		return completionError(&j.JobRow, errNoTransaction)
	}
	return complete(ctx, j.env, j.env.client.unchecked.On(tx), j.claimed)
}

// CompleteSQLTx is CompleteTx for a database/sql transaction, of any PostgreSQL
// driver.
func (j *Job[T]) CompleteSQLTx(ctx context.Context, tx *sql.Tx) error {
	switch {
	case j.env == nil:
		return completionError(&j.JobRow, errNoWorker)
	case tx == nil:
		return completionError(&j.JobRow, errNoTransaction)
	}
	return complete(ctx, j.env, j.env.client.unchecked.OnSQL(tx), j.claimed)
}

func completionError(row *JobRow, err error) error {
	return fmt.Errorf("completing job %d in a transaction: %w", row.ID, err)
}

// complete notes the completion before it can take effect, so that the job does not count as
// lost when its row is found to be gone.
func complete(ctx context.Context, env *environment, queries *dbgen.Queries, claimed *job.Claimed) error {
	wasHeld, err := env.locked(ctx, claimed)
	if err != nil {
		return completionError((*JobRow)(&claimed.Row), err)
	}
	before := claimed.Completion()
	claimed.SetCompletion(job.Completing)
	transaction, completed, err := env.completer.Complete(ctx, queries, claimed)
	switch {
	case err == nil && completed:
		claimed.SetCompletion(transaction)
		return nil
	case err == nil && transaction == before:
		claimed.SetCompletion(before)
		return nil // the second call in one transaction
	case err == nil:
		err = whyGone(ctx, queries, claimed, before)
		if wasHeld && err == ErrJobLost { //nolint:errorlint // a question that failed is told
			err = errOldSnapshot
		}
	}
	claimed.SetCompletion(before)
	return completionError((*JobRow)(&claimed.Row), err)
}

// whyGone returns the reason why a job cannot be completed. before is the transaction in
// which this run has completed it before; 0 for none.
func whyGone(ctx context.Context, queries *dbgen.Queries, claimed *job.Claimed, before int64) error {
	if before <= 0 {
		holds, err := queries.HoldsJob(ctx, dbgen.HoldsJobParams{
			ID: claimed.ID, WorkerID: claimed.Lock.By, Attempt: int32(claimed.Lock.Attempt),
			LockedAt: claimed.Lock.At,
		})
		switch {
		case err != nil:
			return errors.Join(ErrJobLost, fmt.Errorf("looking whether the job's row is there: %w", err))
		case holds:
			return job.ErrUnchanged
		}
		return ErrJobLost
	}
	rows, err := queries.TransactionFates(ctx, []int64{before})
	switch {
	case err != nil:
		return errors.Join(ErrJobLost, fmt.Errorf("asking what became of the earlier transaction: %w", err))
	case len(rows) == 1 && rows[0].Fate == "committed":
		return ErrAlreadyCompleted
	}
	return ErrJobLost
}

// locked waits until the job's lock is written, since another transaction than that of its
// claim will end the job.
func (w *Worker) locked(ctx context.Context, claimed *job.Claimed) (wasHeld bool, err error) {
	return w.scheduler.Write(ctx, claimed)
}

// lockedJobs are the running jobs whose rows must exist: those of jobs that handlers
// complete in transactions may be gone already.
func (w *Worker) lockedJobs() []*job.Claimed {
	running := w.scheduler.Locked()
	locked := running[:0]
	for _, j := range running {
		if j.Completion() == 0 {
			locked = append(locked, j)
		}
	}
	return locked
}
