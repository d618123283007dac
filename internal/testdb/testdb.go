// Package testdb gives tests real databases: one server for each test process, started
// when the first test asks, and a fresh database for each test.
//
// A test comes in; the URL of a database that is dropped with the test goes out. The one
// thing not to break: tests share nothing, so that they can run in parallel and in any
// order.
package testdb

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/testserver"
)

// timeout is for a single step on a machine that is busy with everything else.
const timeout = testserver.Timeout

// template is the migrated database that others are copied from.
var template struct {
	once   sync.Once
	name   string
	failed error
}

// HeavyEnv names the environment variable that asks for suites which take minutes.
const HeavyEnv = "GWORKER_HEAVY"

// HeavyMain is Main for such a suite, which has a command of its own: without
// GWORKER_HEAVY=1, or with -short, none of its tests runs, and go test says so.
// Ask with -count=1: go test does not know that a kept result depends on it.
func HeavyMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(HeavyEnv) == "" || testing.Short() {
		if err := flag.Set("test.skip", "."); err != nil {
			panic(err) // the testing package has no such flag
		}
	}
	Main(m)
}

// Main is for TestMain: it runs the tests, stops what they have started, and
// fails if a goroutine is left. Workers without a logger are silent meanwhile.
func Main(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	status := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "testdb:", err)
		status = max(status, 1)
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
	if template.name != "" { // so there is a server
		if err := testserver.Drop(ctx, template.name); err != nil {
			return err
		}
	}
	return testserver.Stop()
}

// server starts this process's server when it is asked for first.
func server(t testing.TB) *devpg.Server {
	t.Helper()
	testserver.OnLoopback()
	server, err := testserver.Start()
	if err != nil {
		t.Fatalf("no PostgreSQL for tests: %v", err)
	}
	return server
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

// EmptyIn is Empty with an encoding, such as LATIN1, and the locale C.
func EmptyIn(t testing.TB, encoding string) string {
	t.Helper()
	server(t)
	return created(t, func(ctx context.Context, name string) (string, error) {
		return testserver.CreateIn(ctx, name, encoding)
	})
}

// Migrated gives the URL of a database with the finished schema.
func Migrated(t testing.TB) string {
	t.Helper()
	server(t)
	template.once.Do(func() { template.failed = makeTemplate() })
	if template.failed != nil {
		t.Fatalf("making a migrated database: %v", template.failed)
	}
	return create(t, template.name)
}

func makeTemplate() error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	name := testserver.Name()
	url, err := testserver.Create(ctx, name, "template0")
	if err != nil {
		return err
	}
	template.name = name
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err = migrate.Up(ctx, pool, migrate.Options{}); err != nil {
		return err
	}
	return migrate.UpHistory(ctx, pool, schema.Name{})
}

func create(t testing.TB, from string) string {
	t.Helper()
	return created(t, func(ctx context.Context, name string) (string, error) {
		return testserver.Create(ctx, name, from)
	})
}

func created(t testing.TB, create func(ctx context.Context, name string) (string, error)) string {
	t.Helper()
	name := testserver.Name()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	url, err := create(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if err := testserver.Drop(ctx, name); err != nil {
			t.Error(err)
		}
	})
	return url
}

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

// Exec runs a statement, or ends the test.
func Exec(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Scan reads the one row of a query, or ends the test.
func Scan(t testing.TB, pool *pgxpool.Pool, sql string, args []any, dest ...any) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(dest...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
