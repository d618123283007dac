// Package testserver is the PostgreSQL of a test process: one server, started when the
// first test asks, and fresh databases on it.
//
// A request for a database comes in; its URL and the function that drops it go out. The
// package does not know about tests: internal/testdb uses it for our own tests, and
// gworkertest for those of users.
//
// The one thing not to break: only databases that were made here are dropped, and
// nothing else is changed on a server that was running before.
package testserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker/internal/connstring"
	"github.com/gworker/gworker/internal/devpg"
)

// Variable names a server for tests. It goes before DATABASE_URL, which is often
// set for the program under test. Local as its value means a server of the test
// process's own, even if DATABASE_URL is set.
const (
	Variable = "GWORKER_TEST_DATABASE_URL"
	Local    = "local"
)

// Prefix is what the names of all databases begin with.
const Prefix = "gworker_test_"

// Timeout is for a single step on a machine that is busy with everything else.
const Timeout = 2 * time.Minute

// loopback says that a server of our own is to have a port.
var loopback atomic.Bool

// OnLoopback makes the server that Start starts listen on the loopback interface, for
// tests that put something between. Otherwise it is private to the user's account.
func OnLoopback() { loopback.Store(true) }

var shared struct {
	mu     sync.Mutex
	server *devpg.Server
	err    error
	source string // where an external server's address comes from
	prefix string
}

// Start starts this process's server, or returns the one that it has. What went
// wrong once goes wrong at once the next time.
func Start() (*devpg.Server, error) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.prefix = Prefix + strings.ToLower(rand.Text()[:10])
		shared.server, shared.err = start()
	}
	return shared.server, shared.err
}

func start() (*devpg.Server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	options := devpg.Options{Fast: true, Private: !loopback.Load()}
	shared.source = "DATABASE_URL"
	switch own := os.Getenv(Variable); own {
	case "":
	case Local:
		options.IgnoreEnvironment = true
	default:
		shared.source, options.URL = Variable, own
	}
	server, err := devpg.Start(ctx, options)
	if err != nil {
		return nil, err
	}
	if server.External() {
		if err := connect(ctx, server, func(*pgx.Conn) error { return nil }); err != nil {
			return nil, fmt.Errorf("%s names a server that cannot be used: %w. "+
				"Start it, or set %s to the URL of another one, or to %q to have one started for the tests",
				shared.source, err, Variable, Local)
		}
	}
	return server, nil
}

// Stop stops the server, if there is one and it was started here, and
// removes its data. The next Start makes another.
func Stop() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	server := shared.server
	shared.server, shared.err = nil, nil
	if server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	return server.Close(ctx)
}

// Name makes up the name of a database.
func Name() string {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	return shared.prefix + "_" + strings.ToLower(rand.Text()[:12])
}

// Create makes a database from a template. The server must have been started.
func Create(ctx context.Context, name, template string) (string, error) {
	return create(ctx, name, "template "+quoted(template))
}

// copying is added to the making of a database on a server of our own: copies of files
// take half of the time of PostgreSQL's default, which goes through the log. On another
// server they would cost it a checkpoint.
const copying = " strategy file_copy"

// noCopying says that the server is older than that.
var noCopying atomic.Bool

// CreateIn makes an empty database of an encoding, and returns its URL.
func CreateIn(ctx context.Context, name, encoding string) (string, error) {
	return create(ctx, name, "template template0 lc_collate 'C' lc_ctype 'C' encoding "+quoted(encoding))
}

func create(ctx context.Context, name, as string) (string, error) {
	server, err := Start()
	if err != nil {
		return "", err
	}
	statement := "create database " + quoted(name) + " " + as
	if server.External() || noCopying.Load() {
		err = admin(ctx, server, statement)
	} else if err = admin(ctx, server, statement+copying); code(err) == pgerrcode.SyntaxError { // PostgreSQL 14 and older
		noCopying.Store(true)
		err = admin(ctx, server, statement)
	}
	if err != nil {
		return "", err
	}
	return server.URL(name), nil
}

// Drop removes a database, also if clients are connected to it.
func Drop(ctx context.Context, name string) error {
	server, err := Start()
	if err != nil {
		return err
	}
	err = admin(ctx, server, "drop database if exists "+quoted(name)+" with (force)")
	if code(err) != pgerrcode.SyntaxError {
		return err
	}
	// PostgreSQL 12 knows no force, and may still see a session that ends just now.
	return connect(ctx, server, func(conn *pgx.Conn) error {
		for {
			_, err := conn.Exec(ctx, "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name)
			if err == nil {
				_, err = conn.Exec(ctx, "drop database if exists "+quoted(name))
			}
			if code(err) != pgerrcode.ObjectInUse || ctx.Err() != nil {
				return err
			}
		}
	})
}

// adminMu lets one statement at a time change databases: making two databases of
// one template at once is an error, and waiting our turn is the cure.
var adminMu sync.Mutex

// templateWaits is how often a template that another process is using is tried
// again.
const templateWaits = 100

func admin(ctx context.Context, server *devpg.Server, sql string) error {
	adminMu.Lock()
	defer adminMu.Unlock()
	return connect(ctx, server, func(conn *pgx.Conn) error {
		for try := 0; ; try++ {
			_, err := conn.Exec(ctx, sql)
			switch {
			case err == nil:
				return nil
			case code(err) == pgerrcode.ObjectInUse && try < templateWaits:
				select {
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
					return fmt.Errorf("%s: %w", sql, err)
				}
			case code(err) == pgerrcode.InsufficientPrivilege && server.External():
				return fmt.Errorf("%s: %w: tests make databases of their own, so the role that %s names must be allowed to "+
					"(alter role ... createdb). Or set %s to the URL of another server, or to %q to have one started for the tests",
					sql, err, shared.source, Variable, Local)
			default:
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
	})
}

// connect is to the database that an external server's URL names, since a role
// may be let into no other.
func connect(ctx context.Context, server *devpg.Server, do func(*pgx.Conn) error) error {
	config, err := connstring.Parse(server.AdminURL()) // which knows the settings of pools, too
	if err != nil {
		return fmt.Errorf("the connection string cannot be used: %w", err)
	}
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return do(conn)
}

func code(err error) string {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return answer.Code
	}
	return ""
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }
