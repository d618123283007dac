package announce

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
)

// DB runs adds on connections of the pool. While all of them are in use and many
// callers wait for one, the announcement need not stand in that line: it takes the
// connection of the next add that ends.
func (a *Announcer) DB() dbgen.DBTX { return lending{a} }

// connection is a connection of the pool, or of an add that ends, whichever is
// there first.
func (a *Announcer) connection(ctx context.Context) (*pgxpool.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn *pgxpool.Conn
		err  error
	}
	acquired := make(chan result, 1)
	go func() {
		conn, err := a.pool.Acquire(ctx)
		acquired <- result{conn, err}
	}()
	select {
	case r := <-acquired:
		return r.conn, r.err
	case conn := <-a.handOver:
		cancel()
		if r := <-acquired; r.err == nil {
			r.conn.Release()
		}
		return conn, nil
	}
}

// release gives back the connection of an add.
func (a *Announcer) release(conn *pgxpool.Conn) {
	if !a.offer(conn) {
		conn.Release()
	}
}

// offer hands a connection that is fit for it to an announcement that waits for
// one, and reports whether it did.
func (a *Announcer) offer(conn *pgxpool.Conn) bool {
	if c := conn.Conn().PgConn(); c.IsClosed() || c.TxStatus() != 'I' {
		return false
	}
	select {
	case a.handOver <- conn:
		return true
	default:
		return false
	}
}

// lending is the pool, but for where its connections go afterwards.
type lending struct{ a *Announcer }

func (l lending) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	conn, err := l.a.pool.Acquire(ctx)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	defer l.a.release(conn)
	return conn.Exec(ctx, sql, args...)
}

func (l lending) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	conn, err := l.a.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		l.a.release(conn)
		return nil, err
	}
	return &lentRows{Rows: rows, a: l.a, conn: conn}, nil
}

func (l lending) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	conn, err := l.a.pool.Acquire(ctx)
	if err != nil {
		return noRow{err}
	}
	return &lentRow{row: conn.QueryRow(ctx, sql, args...), a: l.a, conn: conn}
}

type noRow struct{ err error }

func (r noRow) Scan(...any) error { return r.err }

type lentRow struct {
	row  pgx.Row
	a    *Announcer
	conn *pgxpool.Conn
}

func (r *lentRow) Scan(dest ...any) error {
	defer r.a.release(r.conn)
	return r.row.Scan(dest...)
}

type lentRows struct {
	pgx.Rows
	a    *Announcer
	conn *pgxpool.Conn // nil once it is given back
}

func (r *lentRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.giveBack()
	return false
}

func (r *lentRows) Close() {
	r.Rows.Close()
	r.giveBack()
}

func (r *lentRows) giveBack() {
	if r.conn != nil {
		r.a.release(r.conn)
		r.conn = nil
	}
}
