// Package sqltask runs tasks that are SQL files. A file's statements and the
// job's completion commit in one transaction, so the file's effects happen
// exactly once: with the row that asked for them still there they have not
// happened, and with it gone they have.
//
// The file reads its job from settings of its transaction:
// current_setting('gworker.payload')::json, and gworker.job_id, gworker.task,
// gworker.attempt, gworker.max_attempts, gworker.queue, gworker.key,
// gworker.priority, gworker.run_at (texts; empty where there is none).
//
// The one thing not to break: nothing commits unless the completion found its
// job still locked by this very claim.
package sqltask

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
)

// cleanupTimeout bounds what is done to a connection after its job.
const cleanupTimeout = 5 * time.Second

var (
	errLeftTransaction = errors.New("the file ended the transaction that it runs in: " +
		"leave out begin, commit and rollback, the worker commits")
	errLost = errors.New("the job was no longer locked by this worker, so everything was rolled back")
)

// Runner runs SQL tasks on a pool.
type Runner struct {
	Pool       *pgxpool.Pool
	Statements *statement.Set
}

// Run runs the statements of one file for one job. Completion is part of the
// transaction, so a success is job.Settled.
//
// Where ctx has ended, its cause is part of the error.
func (r Runner) Run(ctx context.Context, j *job.Claimed, statements string) job.Outcome {
	outcome := r.run(ctx, j, statements)
	if cause := context.Cause(ctx); cause != nil && outcome.Kind == job.Failed {
		outcome.Err = fmt.Errorf("%w: %w", cause, outcome.Err)
	}
	return outcome
}

func (r Runner) run(ctx context.Context, j *job.Claimed, statements string) job.Outcome {
	conn, err := r.Pool.Acquire(ctx)
	if err != nil {
		return failed(fmt.Errorf("waiting for a connection: %w", err))
	}
	clean := false
	defer func() {
		if !clean {
			r.restore(ctx, conn)
		}
		conn.Release()
	}()

	tx, err := conn.Begin(ctx)
	if err != nil {
		return failed(fmt.Errorf("beginning the transaction: %w", err))
	}
	if err := r.perform(ctx, conn, tx, j, statements); err != nil {
		r.rollBack(ctx, tx)
		if errors.Is(err, errLost) {
			return job.Outcome{Kind: job.Lost, Err: err}
		}
		return failed(err)
	}
	if err := tx.Commit(ctx); err != nil {
		if !retry.Refused(err) && !errors.Is(err, pgx.ErrTxCommitRollback) {
			err = fmt.Errorf("%w (if it took effect all the same, the job's row is gone and this failure is not stored)", err)
		}
		return failed(fmt.Errorf("committing: %w", err))
	}
	clean = true
	return job.Outcome{Kind: job.Settled}
}

func failed(err error) job.Outcome { return job.Outcome{Kind: job.Failed, Err: err} }

// perform does everything between begin and commit.
func (r Runner) perform(ctx context.Context, conn *pgxpool.Conn, tx pgx.Tx, j *job.Claimed, statements string) error {
	queries := r.Statements.On(tx)
	if err := queries.EnterSQLTask(ctx, settings(j)); err != nil {
		return fmt.Errorf("handing over the job: %w", err)
	}
	// The simple protocol takes any number of statements. Their results are
	// read and dropped.
	if err := conn.Conn().PgConn().Exec(ctx, statements).Close(); err != nil {
		return err
	}
	if conn.Conn().PgConn().TxStatus() == 'I' {
		return errLeftTransaction
	}
	current, err := queries.CurrentSQLTask(ctx)
	if err != nil {
		return fmt.Errorf("checking the transaction after the statements: %w", err)
	}
	if current != strconv.FormatInt(j.ID, 10) {
		return errLeftTransaction
	}
	done, err := queries.CompleteJobs(ctx, dbgen.CompleteJobsParams{
		Ids:       []int64{j.ID},
		Attempts:  []int32{int32(j.Lock.Attempt)},
		LockedAts: []pgtype.Timestamptz{{Time: j.Lock.At, Valid: true}},
		WorkerID:  j.Lock.By,
	})
	if err != nil {
		return fmt.Errorf("completing the job: %w", err)
	}
	if len(done) == 0 {
		return errLost
	}
	return r.leaveClean(ctx, queries)
}

// leaveClean takes back what the file has set for the session: inside of the
// transaction, since at the commit a proxy may give the session to somebody else.
func (r Runner) leaveClean(ctx context.Context, queries *dbgen.Queries) error {
	if err := queries.CheckConstraintsNow(ctx); err != nil {
		return fmt.Errorf("checking deferred constraints: %w", err)
	}
	if err := errors.Join(queries.ResetSettings(ctx), queries.ResetRole(ctx)); err != nil {
		return fmt.Errorf("taking back the settings of the file: %w", err)
	}
	return nil
}

func settings(j *job.Claimed) dbgen.EnterSQLTaskParams {
	return dbgen.EnterSQLTaskParams{
		Payload: string(j.Payload), JobID: strconv.FormatInt(j.ID, 10), Task: j.Task,
		Attempt: strconv.Itoa(j.Attempts), MaxAttempts: strconv.Itoa(j.MaxAttempts),
		Queue: j.Queue, Key: j.Key, Priority: strconv.Itoa(j.Priority),
		RunAt: j.RunAt.UTC().Format(time.RFC3339Nano),
	}
}

// rollBack undoes the transaction, also when ctx has ended: the connection is
// to go back to the pool in order.
func (r Runner) rollBack(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	_ = tx.Rollback(ctx) // on an error the pool finds the connection unusable and drops it
}

// restore makes the connection as it came, after a file that may have left its
// transaction: what it has set for the session must not reach other users of the
// pool.
func (r Runner) restore(ctx context.Context, conn *pgxpool.Conn) {
	if conn.Conn().IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	queries := r.Statements.On(conn)
	if err := errors.Join(queries.ResetSettings(ctx), queries.ResetRole(ctx)); err != nil {
		_ = conn.Conn().Close(ctx) // a closed connection is not given out again
	}
}
