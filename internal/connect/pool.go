// Package connect makes the connections of workers, clients and listeners, and says what
// is wrong where none can be made.
//
// A configuration comes in; connections go out that have what gworker's statements rely
// on, and errors that name the server and what the reader can do. The one thing not to
// break: a server that may come back is waited for, a refusal that stays is reported at
// once.
package connect

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dial"
)

// NewPool makes a pool of connections that d dials. cancels says that they may send
// cancel requests; silent is told of connections that did not answer.
func NewPool(config *pgxpool.Config, cancels bool, d *dial.Dialer, silent func()) (*pgxpool.Pool, error) {
	Prepare(config.ConnConfig, cancels)
	config.BeforeConnect = func(_ context.Context, config *pgx.ConnConfig) error {
		d.Prepare(config)
		return nil
	}
	config.ShouldPing = (&pinger{timeout: config.PingTimeout, silent: silent}).failed
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("making a connection pool: %w", err)
	}
	return pool, nil
}

// pinned are the settings on which the meaning of gworker's statements and their results
// depends. They override those of the role, the database and the connection string. PgBouncer
// accepts these at the start of a session; others it has to be configured to ignore.
var pinned = map[string]string{
	// Go's strings are UTF-8. With another encoding, text would be stored garbled.
	"client_encoding": "UTF8",
	// Without prepared statements times come as text, of which pgx reads this form.
	"datestyle": "ISO",
	// A backslash in a literal is a backslash.
	"standard_conforming_strings": "on",
}

// Prepare configures connections of gworker's own pools; a caller's pool is left as it is.
// cancels says that they may send cancel requests.
func Prepare(config *pgx.ConnConfig, cancels bool) {
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
	// A statement that exceeds its time-out is cancelled on the server, too, and its
	// connection stays usable if the server answers soon.
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Second}
	}
}
