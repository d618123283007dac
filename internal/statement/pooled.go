package statement

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/retry"
)

// Pool gives out connections.
type Pool interface {
	Acquire(context.Context) (*pgxpool.Conn, error)
	// Release takes the connection back, which may be closed.
	Release(*pgxpool.Conn)
	// Most is how many connections there may be.
	Most() int
}

// PerStatement runs each statement on its own connection from the pool. A connection that
// fails because of its session, whose prepared statements are gone or outdated, or which the
// server has ended while it was idle, is closed, and the statement runs again on another
// one.
func PerStatement(p Pool) dbgen.DBTX { return pooled{p} }

type pgxPool struct{ *pgxpool.Pool }

func (pgxPool) Release(conn *pgxpool.Conn) { conn.Release() }

func (p pgxPool) Most() int { return int(p.Stat().MaxConns()) }

// pooled is a Pool as a dbgen.DBTX.
type pooled struct{ pool Pool }

// release gives a connection back after a statement that ended with err, and reports
// whether to run it again on another connection. tries is how often that was done.
func (p pooled) release(ctx context.Context, conn *pgxpool.Conn, err error, tries int) (again bool) {
	if !retry.Elsewhere(err) {
		p.pool.Release(conn)
		return false
	}
	// DDL outdates the statements of every connection, so each may fail once. An error
	// that a wrong statement would have on any connection is retried only once.
	most := 1
	if retry.SessionOnly(err) {
		most = p.pool.Most()
	}
	_ = conn.Conn().Close(ctx)
	p.pool.Release(conn)
	return tries < most && ctx.Err() == nil
}

func (p pooled) Exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	for tries := 0; ; tries++ {
		conn, err := p.pool.Acquire(ctx)
		if err != nil {
			return tag, err
		}
		tag, err = conn.Exec(ctx, sql, args...)
		if !p.release(ctx, conn, err, tries) {
			return tag, err
		}
	}
}

func (p pooled) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows := &pooledRows{pooled: p, ctx: ctx, sql: sql, args: args}
	if err := rows.begin(); err != nil {
		return nil, err
	}
	return rows, nil
}

func (p pooled) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return &pooledRow{pooled: p, ctx: ctx, sql: sql, args: args}
}

type pooledRow struct {
	pooled
	ctx  context.Context
	sql  string
	args []any
}

func (r *pooledRow) Scan(dest ...any) error {
	for tries := 0; ; tries++ {
		conn, err := r.pool.Acquire(r.ctx)
		if err != nil {
			return err
		}
		err = conn.QueryRow(r.ctx, r.sql, r.args...).Scan(dest...)
		if !r.release(r.ctx, conn, err, tries) {
			return err
		}
	}
}

// pooledRows are the rows of a query, which runs again on another connection if it fails
// because of its session before its first row.
type pooledRows struct {
	pgx.Rows
	pooled
	ctx   context.Context
	sql   string
	args  []any
	conn  *pgxpool.Conn // nil once it is given back
	tries int
	some  bool // rows were read
}

func (r *pooledRows) begin() error {
	for {
		conn, err := r.pool.Acquire(r.ctx)
		if err != nil {
			return err
		}
		if r.Rows, err = conn.Query(r.ctx, r.sql, r.args...); err == nil {
			r.conn = conn
			return nil
		}
		if !r.release(r.ctx, conn, err, r.tries) {
			return err
		}
		r.tries++
	}
}

func (r *pooledRows) Next() bool {
	for {
		if r.Rows.Next() {
			r.some = true
			return true
		}
		if !r.end() || r.some {
			return false
		}
		r.tries++
		if err := r.begin(); err != nil {
			r.Rows = noRows{Rows: r.Rows, err: err}
			return false
		}
	}
}

// end gives the connection back, and reports whether to begin again.
func (r *pooledRows) end() (again bool) {
	r.Rows.Close()
	conn := r.conn
	r.conn = nil
	return conn != nil && r.release(r.ctx, conn, r.Rows.Err(), r.tries)
}

func (r *pooledRows) Close() { r.end() }

// noRows are the closed rows of a query that could not begin again.
type noRows struct {
	pgx.Rows
	err error
}

func (r noRows) Next() bool { return false }
func (r noRows) Err() error { return r.err }
