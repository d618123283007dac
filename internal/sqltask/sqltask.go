// Package sqltask runs tasks that are SQL files. A file's statements and the job's
// completion commit in one transaction, so the file's effects happen exactly once: as
// long as the job's row exists they have not happened, and when it is gone they have.
//
// The file reads its job from settings of its transaction:
// current_setting('gworker.payload')::json, and gworker.job_id, gworker.task,
// gworker.attempt, gworker.max_attempts, gworker.queue, gworker.key, gworker.priority,
// gworker.run_at (texts; empty if there is no value).
//
// The one thing not to break: nothing commits unless the completion found its job still
// locked by this very claim.
package sqltask

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
)

// cleanupTimeout bounds the cleaning of a connection after its job.
const cleanupTimeout = 5 * time.Second

var (
	errLeftTransaction = errors.New("the file ended the transaction that it runs in: " +
		"leave out begin, commit and rollback, the worker commits")
	errOwnJob = errors.New("the file deleted or unlocked its own job, or changed its attempts, so everything was rolled back: " +
		"leave the job to the worker, which completes it in the same transaction")
	errLost = errors.New("the job was no longer locked by this worker, so everything was rolled back")
	// errNotLocked: it was one of the two.
	errNotLocked = errors.New("the job is not locked by this worker")
)

// Runner runs SQL tasks on a pool.
type Runner struct {
	Pool       *pgxpool.Pool
	Statements *statement.Set
	Completer  *Completer
	// Hooks says that the pool sets up its connections itself. That set-up is lost when
	// the settings of a file are undone, so such a connection is used for one file.
	Hooks bool
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
	conn, begun, err := r.enter(ctx, j)
	if err != nil {
		return failed(err)
	}
	err = r.perform(ctx, conn, begun, j, statements)
	if err == nil {
		err = begun.commit(ctx, conn)
	}
	if err == nil {
		r.release(ctx, conn, statements)
		return job.Outcome{Kind: job.Settled}
	}

	// The clean-up must not end with ctx: the connection must be clean before it goes
	// back to the pool, and the server must have stopped running the file.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	begun.rollBack(ctx, conn)
	r.restore(ctx, conn, begun.role)
	r.release(ctx, conn, statements)
	return r.failure(ctx, j, begun, statements, err)
}

// failure is the outcome of a run whose transaction is rolled back.
func (r Runner) failure(ctx context.Context, j *job.Claimed, begun *begun, statements string, err error) job.Outcome {
	queries := r.Statements.On(r.Pool)
	var broken *brokenError
	switch {
	case errors.As(err, &broken):
		if endErr := queries.EndSession(ctx, dbgen.EndSessionParams{
			Pid: begun.pid, Began: begun.at, Statements: statements,
		}); endErr != nil {
			err = fmt.Errorf("%w (and its session may go on, it could not be ended: %w)", err, endErr)
		}
	case errors.Is(err, errNotLocked), errors.Is(err, errLeftTransaction):
		holds, holdsErr := queries.HoldsJob(ctx, holdsJob(j))
		notLocked := errors.Is(err, errNotLocked)
		switch {
		case holdsErr != nil && notLocked:
			return failed(fmt.Errorf("%w: asking whether the file did that: %w", errNotLocked, holdsErr))
		case holdsErr != nil || holds && !notLocked:
			return failed(err)
		case holds:
			return failed(errOwnJob)
		case notLocked:
			return job.Outcome{Kind: job.Lost, Err: errLost}
		}
		// The file may have unlocked its job and committed that.
		if putOffErr := queries.PutOffUnlockedJob(ctx, dbgen.PutOffUnlockedJobParams{
			ID: j.ID, Attempt: int32(j.Lock.Attempt), Error: err.Error(),
		}); putOffErr != nil {
			err = fmt.Errorf("%w (and the job may run again at once, it could not be put off: %w)", err, putOffErr)
		}
		return job.Outcome{Kind: job.Lost, Err: err}
	}
	return failed(err)
}

func failed(err error) job.Outcome { return job.Outcome{Kind: job.Failed, Err: err} }

// begun is the transaction of one run.
type begun struct {
	tx   pgx.Tx
	id   int64
	role string // of the session, which the pool may have set
	// pid and at tell the server process and the transaction.
	pid int32
	at  time.Time
}

// enter begins the transaction on a connection with a clean session. If another file, or
// another user of the pool, has deallocated its prepared statements, the next connection is
// taken: that is not a failure of this job.
func (r Runner) enter(ctx context.Context, j *job.Claimed) (*pgxpool.Conn, *begun, error) {
	for tries := 0; ; tries++ {
		conn, err := r.Pool.Acquire(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("waiting for a connection: %w", err)
		}
		begun, err := r.begin(ctx, conn, j)
		if err == nil {
			return conn, begun, nil
		}
		again := retry.AtOnce(err) && tries <= int(r.Pool.Stat().MaxConns()) && ctx.Err() == nil
		if again {
			_ = conn.Conn().Close(ctx)
		}
		conn.Release()
		if !again {
			return nil, nil, err
		}
	}
}

// dropsPrepared reports whether statements may remove prepared statements.
func dropsPrepared(statements string) bool {
	statements = strings.ToLower(statements)
	return strings.Contains(statements, "deallocate") || strings.Contains(statements, "discard")
}

func (r Runner) begin(ctx context.Context, conn *pgxpool.Conn, j *job.Claimed) (*begun, error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("beginning the transaction: %w", err)
	}
	entered, err := r.Statements.On(tx).EnterSQLTask(ctx, settings(j))
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		_ = tx.Rollback(ctx) // on an error the pool finds the connection unusable and drops it
		return nil, fmt.Errorf("handing over the job: %w", err)
	}
	return &begun{
		tx: tx, id: entered.TransactionID, role: entered.SessionRole, pid: entered.Pid, at: entered.Began,
	}, nil
}

// leave removes from the session what outlives a file's transaction: a lock would block others
// as long as the connection lives, and a table or cursor would be in the way of the file's
// next run. It is sent together with the end of the transaction, after which a proxy may give
// the session to another client, and costs no extra round trip.
const leave = "; select pg_catalog.pg_advisory_unlock_all(); close all; discard temp; unlisten *"

func (b *begun) commit(ctx context.Context, conn *pgxpool.Conn) error {
	results, err := conn.Conn().PgConn().Exec(ctx, "commit"+leave).ReadAll()
	if len(results) > 0 && results[0].Err == nil {
		switch results[0].CommandTag.String() {
		case "COMMIT":
			if err != nil {
				_ = conn.Conn().Close(ctx) // a closed connection is not given out again
			}
			return nil
		case "ROLLBACK":
			err = pgx.ErrTxCommitRollback
		}
	}
	if !retry.Refused(err) && !errors.Is(err, pgx.ErrTxCommitRollback) {
		err = fmt.Errorf("%w (if it took effect nevertheless, the job's row is gone and this failure is not stored)", err)
	}
	return fmt.Errorf("committing: %w", err)
}

func (b *begun) rollBack(ctx context.Context, conn *pgxpool.Conn) {
	if _, err := conn.Conn().PgConn().Exec(ctx, "rollback"+leave).ReadAll(); err != nil {
		_ = conn.Conn().Close(ctx) // a closed connection is not given out again
	}
}

// perform does everything between begin and commit. The job is completed with the session's
// original role and settings, even if the file has changed them.
func (r Runner) perform(ctx context.Context, conn *pgxpool.Conn, b *begun, j *job.Claimed, statements string) error {
	if err := exec(ctx, conn.Conn(), statements); err != nil {
		return err
	}
	if conn.Conn().PgConn().TxStatus() == 'I' {
		return errLeftTransaction
	}
	queries := r.Statements.Unprepared().On(b.tx) // the file may have deallocated them
	if err := r.leaveClean(ctx, queries, b.role); err != nil {
		return err
	}
	current, err := queries.CurrentTransaction(ctx)
	if err != nil {
		return fmt.Errorf("checking the transaction after the statements: %w", err)
	}
	if current != b.id {
		return errLeftTransaction
	}
	switch _, completed, err := r.Completer.Complete(ctx, queries, j); {
	case err != nil:
		return fmt.Errorf("completing the job: %w", err)
	case completed:
		return nil
	}
	if holds, err := queries.HoldsJob(ctx, holdsJob(j)); err == nil && holds {
		return fmt.Errorf("completing the job: %w", job.ErrUnchanged)
	}
	return errNotLocked
}

func holdsJob(j *job.Claimed) dbgen.HoldsJobParams {
	return dbgen.HoldsJobParams{
		ID: j.ID, WorkerID: j.Lock.By, Attempt: int32(j.Lock.Attempt),
		LockedAt: j.Lock.At,
	}
}

// leaveClean takes back what the file has set for the session: inside of the
// transaction, since at the commit a proxy may give the session to another client.
func (r Runner) leaveClean(ctx context.Context, queries *dbgen.Queries, role string) error {
	if err := queries.CheckConstraintsNow(ctx); err != nil {
		return fmt.Errorf("checking deferred constraints: %w", err)
	}
	if err := takeBack(ctx, queries, role); err != nil {
		return fmt.Errorf("taking back the settings of the file: %w", err)
	}
	return nil
}

// takeBack undoes what a file has set for the session.
func takeBack(ctx context.Context, queries *dbgen.Queries, role string) error {
	if err := queries.ResetSettings(ctx); err != nil {
		return err
	}
	if err := queries.ResetRole(ctx); err != nil {
		return err
	}
	if role == "none" {
		return nil
	}
	return queries.SetRole(ctx, role)
}

func settings(j *job.Claimed) dbgen.EnterSQLTaskParams {
	return dbgen.EnterSQLTaskParams{
		Payload: string(j.Payload), JobID: strconv.FormatInt(j.ID, 10), Task: j.Task,
		Attempt: strconv.Itoa(j.Attempts), MaxAttempts: strconv.Itoa(j.MaxAttempts),
		Queue: j.Queue, Key: j.Key, Priority: strconv.Itoa(j.Priority),
		RunAt: j.RunAt.UTC().Format(time.RFC3339Nano),
	}
}

// restore restores the connection after a file that may have ended its transaction itself:
// what it has set for the session must not affect other users of the pool.
func (r Runner) restore(ctx context.Context, conn *pgxpool.Conn, role string) {
	if conn.Conn().IsClosed() {
		return
	}
	if err := takeBack(ctx, r.Statements.On(conn), role); err != nil {
		_ = conn.Conn().Close(ctx) // a closed connection is not given out again
	}
}

// release gives the connection back to the pool, or closes it if pgx would look for
// prepared statements that are gone.
func (r Runner) release(ctx context.Context, conn *pgxpool.Conn, statements string) {
	if r.Hooks || dropsPrepared(statements) {
		_ = conn.Conn().Close(ctx) // a closed connection is not given out again
	}
	conn.Release()
}
