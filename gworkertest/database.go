package gworkertest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/internal/testserver"
	"github.com/gworker/gworker/internal/wait"
)

// ServerGoroutine is the function of the one goroutine that stays while a server
// of the test process's own runs, for detectors of goroutine leaks:
//
//	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(gworkertest.ServerGoroutine))
//
// A TestMain that calls StopServer before it looks for leaks needs no exception.
const ServerGoroutine = "github.com/gworker/gworker/internal/devpg.(*process).follow"

// poolPatience is how long a test's pool may take to close.
var poolPatience = 10 * time.Second

var plain Template

// Database returns the URL of a new database with the finished schema in it. It
// is dropped when the test ends, whoever is still connected to it.
func Database(t testing.TB) string {
	t.Helper()
	return plain.Database(t)
}

// Pool returns a pool on a new database, as Database makes it. It is closed when
// the test ends; connections that the test has not given back by then are an
// error of the test.
func Pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return plain.Pool(t)
}

// StopServer stops the server that was started for this process, and removes its
// data. It is not needed, but for a TestMain that wants nothing left when it
// looks for leaks. It does nothing where there is no such server. No test may be
// running.
func StopServer() error {
	if err := testserver.Stop(); err != nil {
		return fmt.Errorf("gworkertest: stopping PostgreSQL: %w", err)
	}
	return nil
}

// A Template is a database that those of tests are copied from: the queue's
// schema, and what Setup adds. It is made once a process, by the first test that
// needs it, and must not be copied or changed after that. A package of tests
// declares one as a variable:
//
//	var databases = gworkertest.Template{Setup: migrateMyTables}
//
// On a server that was running before, nothing is to be left behind, so each
// database is made from scratch there.
type Template struct {
	// Schema is the schema of the queue. Empty means graphile_worker.
	Schema string

	// Setup prepares the database further: it makes the program's own tables,
	// say. The queue is installed already. It must have closed its connections
	// when it returns. nil means nothing more.
	Setup func(ctx context.Context, databaseURL string) error

	mu     sync.Mutex
	server *devpg.Server // on which name is
	name   string
	err    error
}

// Database returns the URL of a new database. It is dropped when the test ends,
// whoever is still connected to it.
func (d *Template) Database(t testing.TB) string {
	t.Helper()
	server, err := testserver.Start()
	if err != nil {
		t.Fatalf("gworkertest: no PostgreSQL for this test: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testserver.Timeout)
	defer cancel()
	from := "template0"
	if !server.External() {
		if from, err = d.made(ctx, server); err != nil {
			t.Fatalf("gworkertest: making the template of this test's database: %v", err)
		}
	}
	name := testserver.Name()
	url, err := testserver.Create(ctx, name, from)
	if err != nil {
		t.Fatalf("gworkertest: making a database for this test: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testserver.Timeout)
		defer cancel()
		if err := testserver.Drop(ctx, name); err != nil {
			t.Errorf("gworkertest: dropping this test's database: %v", err)
		}
	})
	if server.External() {
		if err := d.fill(ctx, url); err != nil {
			t.Fatalf("gworkertest: making a database for this test: %v", err)
		}
	}
	return url
}

// Pool returns a pool on a new database, with client_encoding UTF8 as clients and
// workers need it. It is closed when the test ends; connections that the test has
// not given back by then are an error of the test.
func (d *Template) Pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := newPool(context.Background(), d.Database(t))
	if err != nil {
		t.Fatalf("gworkertest: making a pool: %v", err)
	}
	t.Cleanup(func() {
		closed := make(chan struct{})
		go func() {
			pool.Close()
			close(closed)
		}()
		if !wait.For(context.Background(), closed, poolPatience) {
			// The goroutine ends when they are given back after all.
			t.Errorf("gworkertest: %d connections of the test's pool are still in use %s after its end: "+
				"a transaction was not ended, rows were not closed, or a connection was not released",
				pool.Stat().AcquiredConns(), poolPatience)
		}
	})
	return pool
}

// made returns the name of the template on the server, making it if need be.
func (d *Template) made(ctx context.Context, server *devpg.Server) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == server {
		return d.name, d.err
	}
	d.server, d.name = server, testserver.Name()
	var url string
	if url, d.err = testserver.Create(ctx, d.name, "template0"); d.err == nil {
		d.err = d.fill(ctx, url)
	}
	return d.name, d.err
}

func (d *Template) fill(ctx context.Context, url string) error {
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: url, Schema: d.Schema})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Migrate(ctx); err != nil {
		return err
	}
	if d.Setup == nil {
		return nil
	}
	if err := d.Setup(ctx, url); err != nil {
		return fmt.Errorf("Template.Setup: %w", err)
	}
	return nil
}

// newPool makes a pool whose texts are UTF-8, whatever the server or the role has set.
func newPool(ctx context.Context, url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.ConnConfig.RuntimeParams["client_encoding"] = "UTF8"
	return pgxpool.NewWithConfig(ctx, config)
}
