package gworker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/connstring"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/migrate"
)

// The listener and the heartbeat have a connection each beside the pool. With
// Config.ListenDatabaseURL these lead past the proxy that the pool goes through.

// directTimeout bounds a try to reach the server past the proxy, so that there
// is time left to go through it.
const directTimeout = 5 * time.Second

// parseDirect returns nil for an empty connection string.
func parseDirect(url string) (*pgxpool.Config, error) {
	if url == "" {
		return nil, nil
	}
	// Parsed as for a pool, so that the settings of one do no harm.
	config, err := connstring.Parse(url)
	if err != nil {
		return nil, problem("Config.ListenDatabaseURL", "cannot be used: %v", err)
	}
	prepare(config.ConnConfig, true)
	// A server that was the primary refuses LISTEN and heartbeats; then the
	// proxy may know better where the new one is.
	if config.ConnConfig.ValidateConnect == nil {
		config.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return config, nil
}

// listenConnect opens the listener's connection.
func (w *Worker) listenConnect(ctx context.Context) (*pgx.Conn, error) {
	if w.direct != nil {
		return connectBeside(ctx, w.dialer, w.direct.Copy())
	}
	conn, err := connectBeside(ctx, w.dialer, w.pool.Config())
	if err == nil {
		w.warnOfPooler(ctx, conn)
	}
	return conn, err
}

// holdConnect opens a connection for held claims.
func (w *Worker) holdConnect(ctx context.Context) (*pgx.Conn, error) {
	return connectBeside(ctx, w.dialer, w.pool.Config())
}

// keeperConnect opens the heartbeat's connection. Any way to the database will
// do, since a worker that is not heard of loses its jobs.
func (w *Worker) keeperConnect(ctx context.Context) (*pgx.Conn, error) {
	if w.direct == nil {
		return connectBeside(ctx, w.dialer, w.pool.Config())
	}
	limited, cancel := context.WithTimeout(ctx, directTimeout)
	defer cancel()
	conn, err := connectBeside(limited, w.dialer, w.direct.Copy())
	if err == nil || ctx.Err() != nil {
		return conn, err
	}
	conn, poolErr := connectBeside(ctx, w.dialer, w.pool.Config())
	if poolErr != nil {
		return nil, errors.Join(err, poolErr)
	}
	return conn, nil
}

// checkDirect refuses a ListenDatabaseURL that leads to another database: no
// notification would ever come from there, and heartbeats would go where nobody
// looks for them. Where the server cannot be reached by it at this moment, the
// listener says so and goes on trying.
func (w *Worker) checkDirect(ctx context.Context) error {
	if w.direct == nil {
		return nil
	}
	same, err := w.directIsSame(ctx)
	if err == nil && !same {
		// After a failover the pool may still hold connections to the server
		// that was the primary.
		w.pool.Reset()
		same, err = w.directIsSame(ctx)
	}
	if err == nil && !same {
		return problem("Config.ListenDatabaseURL", "leads to another server or database than the worker's other connections: "+
			"it must lead to the same database, past the proxy")
	}
	return err
}

func (w *Worker) directIsSame(ctx context.Context) (bool, error) {
	pooled, err := w.client.queries.ServerIdentity(ctx)
	if err != nil {
		return false, fmt.Errorf("asking the database who it is: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, directTimeout)
	defer cancel()
	conn, err := connectBeside(limited, w.dialer, w.direct.Copy())
	if err != nil {
		return true, nil // as far as is known
	}
	defer closeSoon(conn)
	direct, err := w.client.unchecked.On(conn).ServerIdentity(limited)
	if err != nil {
		return true, nil
	}
	return direct.StartedAt == pooled.StartedAt && direct.DatabaseOid == pooled.DatabaseOid, nil
}

// warnOfPooler says once, where statements are not prepared and so a pooler is
// to be expected, that the listener's connection goes through one: what told the
// client another process id than the server's own process has is a pooler.
func (w *Worker) warnOfPooler(ctx context.Context, conn *pgx.Conn) {
	if !w.config.NoPreparedStatements || w.pooled.Load() {
		return
	}
	row, err := w.client.unchecked.On(conn).ServerIdentity(ctx)
	if err != nil || uint32(row.Pid) == conn.PgConn().PID() {
		return
	}
	w.pooled.Store(true)
	w.events.Emit(event.ListenerPooled{WorkerID: w.id})
}

// watchLedger stops the worker for a breaking migration of which, without a
// listener, it does not hear.
func (w *Worker) watchLedger(ctx context.Context, before migrate.Ledger, stop context.CancelCauseFunc) {
	ticker := time.NewTicker(w.config.Recovery.HeartbeatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.checkLedger(ctx, before, stop)
		}
	}
}
