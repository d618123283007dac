package gworker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/connect"
	"github.com/gworker/gworker/internal/connstring"
	"github.com/gworker/gworker/internal/dial"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/statement"
)

// openPool returns the pool to use, and whether it was made here. If so, d dials for it, and
// silent is called with connections that did not answer.
func openPool(
	owner string, given *pgxpool.Pool, url string, size int, o statement.Options, d *dial.Dialer, silent func(),
) (*pgxpool.Pool, bool, error) {
	if given != nil {
		if url != "" {
			return nil, false, problem(owner+".DatabaseURL", "is given as well as %s.Pool: give one of them", owner)
		}
		return given, false, nil
	}
	config, err := connstring.Parse(url)
	if err != nil {
		return nil, false, problem(owner+".DatabaseURL", "cannot be used: %v", err)
	}
	if size > 0 {
		config.MaxConns = int32(size)
	}
	pool, err := connect.NewPool(config, !o.Unprepared, d, silent)
	if err != nil {
		return nil, false, err
	}
	return pool, true, nil
}

func statementOptions(owner, schemaName string, timeout time.Duration, unprepared bool) (statement.Options, error) {
	name, err := schema.Parse(schemaName)
	if err != nil {
		return statement.Options{}, problem(owner+".Schema", "cannot be used: %v", err)
	}
	if timeout < 0 {
		return statement.Options{}, problem(owner+".StatementTimeout", "is %s: it cannot be negative", timeout)
	}
	return statement.Options{Schema: name, Timeout: timeout, Unprepared: unprepared}, nil
}

// The listener and the heartbeat have a connection each outside of the pool. With
// Config.ListenDatabaseURL these lead past the proxy that the pool goes through.

// directTimeout bounds an attempt to reach the server without the proxy, so that there is
// time left to connect through it.
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
	connect.Prepare(config.ConnConfig, true)
	// A server that is no longer the primary refuses LISTEN and heartbeats; then the
	// proxy may know where the new one is.
	if config.ConnConfig.ValidateConnect == nil {
		config.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return config, nil
}

// listenConnect opens the listener's connection.
func (w *Worker) listenConnect(ctx context.Context) (*pgx.Conn, error) {
	if w.direct != nil {
		return connect.Outside(ctx, w.dialer, w.direct.Copy())
	}
	conn, err := connect.Outside(ctx, w.dialer, w.pool.Config())
	if err == nil {
		w.warnOfPooler(ctx, conn)
	}
	return conn, err
}

// holdConnect opens a connection for held claims.
func (w *Worker) holdConnect(ctx context.Context) (*pgx.Conn, error) {
	return connect.Outside(ctx, w.dialer, w.pool.Config())
}

// heartbeatConnect opens the heartbeat's connection, with the proxy or without it, since a
// worker without a heartbeat loses its jobs.
func (w *Worker) heartbeatConnect(ctx context.Context) (*pgx.Conn, error) {
	if w.direct == nil {
		return connect.Outside(ctx, w.dialer, w.pool.Config())
	}
	limited, cancel := context.WithTimeout(ctx, directTimeout)
	defer cancel()
	conn, err := connect.Outside(limited, w.dialer, w.direct.Copy())
	if err == nil || ctx.Err() != nil {
		return conn, err
	}
	conn, poolErr := connect.Outside(ctx, w.dialer, w.pool.Config())
	if poolErr != nil {
		return nil, errors.Join(err, poolErr)
	}
	return conn, nil
}

// checkDirect refuses a ListenDatabaseURL that leads to another database, from which no
// notification would ever arrive, and where no worker would see the heartbeats. If the
// server cannot be reached by it now, the listener reports that and keeps trying.
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
	conn, err := connect.Outside(limited, w.dialer, w.direct.Copy())
	if err != nil {
		return true, nil // as far as is known
	}
	defer connect.CloseSoon(conn)
	direct, err := w.client.unchecked.On(conn).ServerIdentity(limited)
	if err != nil {
		return true, nil
	}
	return direct.StartedAt == pooled.StartedAt && direct.DatabaseOid == pooled.DatabaseOid, nil
}

// warnOfPooler warns once if the listener's connection goes through a pooler. It checks only
// if statements are not prepared, as that suggests a pooler. A pooler shows in that the
// process id which the client was given is not that of the server process.
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

// Ping reports whether the database answers. Its error names the server and says what went
// wrong, even if ctx has ended. It is safe for concurrent use.
func (c *Client) Ping(ctx context.Context) error {
	if err := connect.Ping(ctx, c.pool); err != nil {
		return fmt.Errorf("connecting to the database: %w", connect.Advised(err))
	}
	return nil
}

// reach waits for the database no longer than ClientConfig.ConnectTimeout.
func (c *Client) reach(ctx context.Context) error {
	if c.schema.reach == nil {
		return nil
	}
	return c.schema.reach(ctx)
}
