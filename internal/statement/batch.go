package statement

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
)

// A Step is one statement of those that are run together.
type Step struct {
	SQL  string // the text of dbgen
	Args []any
	// Read reads its rows, which are closed for it.
	Read func(pgx.Rows) error
}

// StepOf is the statement that call would run, a method of dbgen's with its arguments:
// nothing is run, and call gets an error.
func StepOf(call func(*dbgen.Queries) error, read func(pgx.Rows) error) Step {
	c := &capture{}
	_ = call(dbgen.New(c))
	return Step{SQL: c.sql, Args: c.args, Read: read}
}

var errCaptured = errors.New("the statement is run later")

// capture notes a statement.
type capture struct {
	sql  string
	args []any
}

func (c *capture) note(sql string, args []any) error {
	c.sql, c.args = sql, args
	return errCaptured
}

func (c *capture) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return pgconn.CommandTag{}, c.note(sql, args)
}

func (c *capture) Query(_ context.Context, sql string, args ...any) (pgx.Rows, error) {
	return nil, c.note(sql, args)
}

func (c *capture) QueryRow(_ context.Context, sql string, args ...any) pgx.Row {
	return failedRow{err: c.note(sql, args)}
}

// Together runs statements in one transaction, which commits if none of them fails. That is
// one round trip, but for statements that are not prepared. DB must be of a pool.
func (d DB) Together(ctx context.Context, steps ...Step) error {
	if err := d.allowed(ctx); err != nil {
		return err
	}
	ctx, cancel := d.begin(ctx)
	defer cancel()
	conns, ok := d.db.(pooled)
	if !ok {
		return fmt.Errorf("running %d statements together: %T is no pool", len(steps), d.db)
	}
	for tries := 0; ; tries++ {
		conn, err := conns.pool.Acquire(ctx)
		if err != nil {
			return d.explain(ctx, steps[0].SQL, err)
		}
		if d.set.options.Unprepared {
			err = d.oneByOne(ctx, conn, steps)
		} else {
			err = d.batch(ctx, conn, steps)
		}
		if !conns.release(ctx, conn, err, tries) {
			return d.explain(ctx, steps[0].SQL, err)
		}
	}
}

func (d DB) batch(ctx context.Context, conn *pgxpool.Conn, steps []Step) error {
	batch := &pgx.Batch{} // up to its end it is one transaction
	for _, s := range steps {
		batch.Queue(d.set.Text(s.SQL), s.Args...)
	}
	results := conn.SendBatch(ctx, batch)
	for _, s := range steps {
		rows, err := results.Query()
		if err == nil {
			err = readAll(rows, s.Read)
		}
		if err != nil {
			_ = results.Close() // it says the same
			return err
		}
	}
	return results.Close()
}

func (d DB) oneByOne(ctx context.Context, conn *pgxpool.Conn, steps []Step) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, s := range steps {
			rows, err := tx.Query(ctx, d.set.Text(s.SQL), d.args(s.Args)...)
			if err == nil {
				err = readAll(rows, s.Read)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func readAll(rows pgx.Rows, read func(pgx.Rows) error) error {
	defer rows.Close()
	if err := read(rows); err != nil {
		return err
	}
	rows.Close()
	return rows.Err()
}
