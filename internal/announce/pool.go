package announce

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/statement"
)

// DB runs adds on connections of the pool. While all of them are in use and many callers
// wait for one, an announcement does not queue up behind these: it gets the connection of
// the next add that ends.
func (a *Announcer) DB() dbgen.DBTX { return statement.PerStatement(returningPool{a}) }

// connection returns a connection of the pool, or that of an add that ends, whichever is
// available first.
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
	case conn := <-a.handOff:
		cancel()
		if r := <-acquired; r.err == nil {
			r.conn.Release()
		}
		return conn, nil
	}
}

// release returns the connection of an add.
func (a *Announcer) release(conn *pgxpool.Conn) {
	if !a.hand(conn) {
		conn.Release()
	}
}

// hand passes a usable connection on to a waiting announcement, and reports whether it
// did.
func (a *Announcer) hand(conn *pgxpool.Conn) bool {
	if c := conn.Conn().PgConn(); c.IsClosed() || c.TxStatus() != 'I' {
		return false
	}
	select {
	case a.handOff <- conn:
		return true
	default:
		return false
	}
}

// returningPool is the pool, but offers each returned connection to an announcement
// first.
type returningPool struct{ a *Announcer }

func (p returningPool) Acquire(ctx context.Context) (*pgxpool.Conn, error) {
	return p.a.pool.Acquire(ctx)
}

func (p returningPool) Release(conn *pgxpool.Conn) { p.a.release(conn) }

func (p returningPool) Most() int { return int(p.a.pool.Stat().MaxConns()) }
