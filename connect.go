package gworker

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/connstring"
	"github.com/gworker/gworker/internal/dial"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/statement"
)

// openPool returns the pool to use, and whether it was made here. Then d dials for it,
// and silent is told of connections that did not answer.
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
	prepare(config.ConnConfig, !o.Unprepared)
	config.BeforeConnect = func(_ context.Context, config *pgx.ConnConfig) error {
		d.Prepare(config)
		return nil
	}
	config.ShouldPing = (&pinger{timeout: config.PingTimeout, silent: silent}).failed
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, false, fmt.Errorf("making a connection pool: %w", err)
	}
	return pool, true, nil
}

// pinned are settings on which the meaning of our statements and their results depends,
// whatever the role, the database or the connection string say. PgBouncer takes these at
// the start of a session, and others only if told to ignore them.
var pinned = map[string]string{
	// Go's strings are UTF-8. With another encoding, text would be stored garbled.
	"client_encoding": "UTF8",
	// Without prepared statements times come as text, of which pgx reads this form.
	"datestyle": "ISO",
	// A backslash in a literal is a backslash.
	"standard_conforming_strings": "on",
}

// prepare sets what our own connections have and a caller's pool decides for
// itself. cancels says that they may send cancel requests.
func prepare(config *pgx.ConnConfig, cancels bool) {
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "gworker"
	}
	for name, value := range pinned {
		maps.DeleteFunc(config.RuntimeParams, func(given, _ string) bool { return strings.EqualFold(given, name) })
		config.RuntimeParams[name] = value
	}
	if !cancels {
		// Behind a pooler a cancel request may end more than its statement:
		// PgBouncer 1.18 itself ends on some. So the connection is closed.
		return
	}
	// A statement that its time-out ends is cancelled on the server too, and
	// its connection stays usable if the server answers soon.
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Second}
	}
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

// startWaits are the waits between tries to start.
func startWaits() backoff.BackOff {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.MaxInterval = 200*time.Millisecond, 5*time.Second
	return waits
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
