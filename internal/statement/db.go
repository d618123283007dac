package statement

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker/internal/dbgen"
)

// DB is a Set on one connection, pool or transaction. It is a dbgen.DBTX.
type DB struct {
	set     *Set
	db      dbgen.DBTX
	trouble func(error) // may be nil
}

func (d DB) begin(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d.set.options.Timeout, errOwnTimeout)
}

// allowed is what the set's check says.
func (d DB) allowed(ctx context.Context) error {
	if d.set.check == nil {
		return nil
	}
	return d.set.check(ctx, d)
}

// Unchecked returns the statements to run there without the set's check.
func (d DB) Unchecked() *dbgen.Queries {
	set := *d.set
	set.check = nil
	return dbgen.New(DB{set: &set, db: d.db})
}

func (d DB) args(args []any) []any {
	if !d.set.options.Unprepared {
		return args
	}
	return append([]any{pgx.QueryExecModeExec}, args...)
}

// explain names the statement in err, and says so if its own time-out ended it.
func (d DB) explain(ctx context.Context, sql string, err error) error {
	switch {
	case err == nil || errors.Is(err, pgx.ErrNoRows):
		return err
	case errors.Is(context.Cause(ctx), errOwnTimeout):
		err = &TimeoutError{Statement: Name(sql), After: d.set.options.Timeout, Err: err}
	default:
		err = fmt.Errorf("statement %s: %w", Name(sql), err)
	}
	if d.trouble != nil && (IsReadOnly(err) || Unanswered(err)) {
		d.trouble(err)
	}
	return err
}

// Exec runs a statement without rows.
func (d DB) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := d.allowed(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	ctx, cancel := d.begin(ctx)
	defer cancel()
	tag, err := d.db.Exec(ctx, d.set.Text(sql), d.args(args)...)
	return tag, d.explain(ctx, sql, err)
}

// Query runs a statement. The caller closes the rows, which end with the statement's
// time-out.
func (d DB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := d.allowed(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := d.begin(ctx)
	rows, err := d.db.Query(ctx, d.set.Text(sql), d.args(args)...)
	if err != nil {
		err = d.explain(ctx, sql, err)
		cancel()
		return nil, err
	}
	return &boundRows{Rows: rows, db: d, ctx: ctx, cancel: cancel, sql: sql}, nil
}

// QueryByIndex is Query with a plan that only uses indexes, which is made once and kept: for
// a query that takes longer to plan than to run, and for which the plan for a small table
// would be bad on a large one. If statements are not prepared, or the connection takes no
// batches, no plan can be kept, and it is Query.
func (d DB) QueryByIndex(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if d.set.options.Unprepared {
		return d.Query(ctx, sql, args...)
	}
	if err := d.allowed(ctx); err != nil {
		return nil, err
	}
	switch db := d.db.(type) {
	case pooled:
		ctx, cancel := d.begin(ctx)
		for tries := 0; ; tries++ {
			conn, err := db.pool.Acquire(ctx)
			if err != nil {
				err = d.explain(ctx, sql, err)
				cancel()
				return nil, err
			}
			rows, err := d.byIndex(ctx, conn, sql, args)
			if err == nil {
				rows.release = func(err error) { db.release(ctx, conn, err, tries) }
				return &boundRows{Rows: rows, db: d, ctx: ctx, cancel: cancel, sql: sql}, nil
			}
			if !db.release(ctx, conn, err, tries) {
				err = d.explain(ctx, sql, err)
				cancel()
				return nil, err
			}
		}
	case batcher:
		ctx, cancel := d.begin(ctx)
		rows, err := d.byIndex(ctx, db, sql, args)
		if err != nil {
			err = d.explain(ctx, sql, err)
			cancel()
			return nil, err
		}
		return &boundRows{Rows: rows, db: d, ctx: ctx, cancel: cancel, sql: sql}, nil
	}
	return d.Query(ctx, sql, args...)
}

type batcher interface {
	SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
}

func (d DB) byIndex(ctx context.Context, db batcher, sql string, args []any) (*lastRows, error) {
	batch := &pgx.Batch{} // it is one transaction, and one round trip
	batch.Queue(d.set.Text(dbgen.PlanByIndex))
	batch.Queue(d.set.Text(sql), args...)
	rows := &lastRows{results: db.SendBatch(ctx, batch)}
	_, err := rows.results.Exec()
	if err == nil {
		rows.Rows, err = rows.results.Query()
	}
	if err != nil {
		_ = rows.results.Close() // it says the same
		return nil, err
	}
	return rows, nil
}

// QueryRow runs a statement and returns its first row; Scan has its error.
func (d DB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if err := d.allowed(ctx); err != nil {
		return failedRow{err: err}
	}
	ctx, cancel := d.begin(ctx)
	row := d.db.QueryRow(ctx, d.set.Text(sql), d.args(args)...)
	return &boundRow{row: row, db: d, ctx: ctx, cancel: cancel, sql: sql}
}

type boundRow struct {
	row    pgx.Row
	db     DB
	ctx    context.Context
	cancel context.CancelFunc
	sql    string
}

func (r *boundRow) Scan(dest ...any) error {
	defer r.cancel()
	return r.db.explain(r.ctx, r.sql, r.row.Scan(dest...))
}

type boundRows struct {
	pgx.Rows
	db     DB
	ctx    context.Context
	cancel context.CancelFunc
	sql    string
}

func (r *boundRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.cancel()
	return false
}

func (r *boundRows) Close() {
	r.Rows.Close()
	r.cancel()
}

func (r *boundRows) Err() error { return r.db.explain(r.ctx, r.sql, r.Rows.Err()) }

// lastRows are those of the last statement of a batch, whose end is the commit.
type lastRows struct {
	pgx.Rows
	results pgx.BatchResults
	release func(error) // nil: there is nothing to release
	ended   bool
	err     error
}

func (r *lastRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

func (r *lastRows) Close() {
	if r.ended {
		return
	}
	r.ended = true
	r.Rows.Close()
	r.err = r.results.Close()
	if r.release != nil {
		r.release(r.Err())
	}
}

func (r *lastRows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.err
}
