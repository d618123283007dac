// Package testdb gives tests real databases: one server for each test process,
// started when the first test asks, and a fresh database for each test.
//
// What comes in is a test; what goes out is the URL of a database that belongs
// to it and goes with it. The one thing not to break: nothing is shared between
// tests, so that they can run beside each other and in any order.
package testdb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/internal/migrate"
)

// timeout is for a single step on a machine that is busy with everything else.
const timeout = 2 * time.Minute

// shared is the server of this process.
var shared struct {
	once     sync.Once
	server   *devpg.Server
	err      error
	prefix   string
	template sync.Once
	failed   error
}

// Main is for TestMain: it runs the tests, stops what they have started, and
// fails if a goroutine is left.
func Main(m *testing.M) {
	status := m.Run()
	if shared.server != nil {
		if err := stop(); err != nil {
			fmt.Fprintln(os.Stderr, "testdb:", err)
			status = max(status, 1)
		}
	}
	if status == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			status = 1
		}
	}
	os.Exit(status)
}

func stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if shared.server.External() {
		if err := drop(ctx, templateName()); err != nil {
			return err
		}
	}
	return shared.server.Close(ctx)
}

// server starts this process's server when it is asked for first.
func server(t testing.TB) *devpg.Server {
	t.Helper()
	shared.once.Do(func() {
		shared.prefix = "gworker_test_" + strings.ToLower(rand.Text()[:10])
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		shared.server, shared.err = devpg.Start(ctx, devpg.Options{Fast: true})
	})
	if shared.err != nil {
		t.Fatalf("no PostgreSQL for tests: %v", shared.err)
	}
	return shared.server
}

// Example is Migrated for the example functions of Go's documentation, which
// have no test. drop removes the database again. It panics on errors.
func Example() (url string, drop func()) {
	t := &exampleTest{}
	return Migrated(t), t.cleanUp
}

// exampleTest is what this package needs of a test.
type exampleTest struct {
	testing.TB // nil: nothing else is called
	cleanups   []func()
}

func (t *exampleTest) Helper()                      {}
func (t *exampleTest) Cleanup(f func())             { t.cleanups = append(t.cleanups, f) }
func (t *exampleTest) Fatal(args ...any)            { panic(fmt.Sprint(args...)) }
func (t *exampleTest) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }
func (t *exampleTest) Error(args ...any)            { panic(fmt.Sprint(args...)) }

func (t *exampleTest) cleanUp() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}

// Empty gives the URL of a database with nothing in it.
func Empty(t testing.TB) string {
	t.Helper()
	server(t)
	return create(t, "template0")
}

// Migrated gives the URL of a database with the finished schema.
func Migrated(t testing.TB) string {
	t.Helper()
	server(t)
	shared.template.Do(func() { shared.failed = makeTemplate() })
	if shared.failed != nil {
		t.Fatalf("making a migrated database: %v", shared.failed)
	}
	return create(t, templateName())
}

func templateName() string { return shared.prefix + "_template" }

func makeTemplate() error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := admin(ctx, "create database "+quoted(templateName())+" template template0"); err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, shared.server.URL(templateName()))
	if err != nil {
		return err
	}
	defer pool.Close()
	_, err = migrate.Up(ctx, pool, migrate.Options{})
	return err
}

func create(t testing.TB, template string) string {
	t.Helper()
	name := shared.prefix + "_" + strings.ToLower(rand.Text()[:12])
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := admin(ctx, "create database "+quoted(name)+" template "+quoted(template)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if err := drop(ctx, name); err != nil {
			t.Error(err)
		}
	})
	return shared.server.URL(name)
}

// drop removes a database, also while somebody is connected: PostgreSQL 12 has
// no "with (force)". A session that ends just now may still be seen.
func drop(ctx context.Context, name string) error {
	for {
		err := admin(ctx, "select pg_terminate_backend(pid) from pg_stat_activity where datname = "+
			"'"+strings.ReplaceAll(name, "'", "''")+"'")
		if err != nil {
			return err
		}
		err = admin(ctx, "drop database if exists "+quoted(name))
		var answer *pgconn.PgError
		if !errors.As(err, &answer) || answer.Code != "55006" || ctx.Err() != nil {
			return err
		}
	}
}

// admin runs a statement in the server's own database. Making two databases of
// one template at once is an error, and waiting our turn is the cure.
func admin(ctx context.Context, sql string) error {
	adminMu.Lock()
	defer adminMu.Unlock()
	conn, err := pgx.Connect(ctx, shared.server.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

var adminMu sync.Mutex

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

// Pool gives a pool on the database, which closes with the test.
func Pool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// PrivateServer starts a server for this test alone, which it may stop and
// crash.
func PrivateServer(t testing.TB) *devpg.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	server, err := devpg.Start(ctx, devpg.Options{Fast: true, IgnoreEnvironment: true})
	if err != nil {
		t.Fatalf("no PostgreSQL for this test: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if err := server.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return server
}

// OpenDir gives an empty folder that every account can reach: for the data of a
// server, which root runs under another account.
func OpenDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gworker-test-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
