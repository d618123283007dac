package gworker_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// patience is how long a test waits for something that should happen soon; it
// is never waited for in full unless the test fails.
const patience = 60 * time.Second

// events records what a worker reports and lets a test wait for it.
type events struct {
	mu     sync.Mutex
	seen   []gworker.Event
	change chan struct{}
}

func newEvents() *events { return &events{change: make(chan struct{})} }

func (e *events) observe(event gworker.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, event)
	close(e.change)
	e.change = make(chan struct{})
}

func (e *events) snapshot() ([]gworker.Event, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]gworker.Event(nil), e.seen...), e.change
}

// waitFor returns the first event of type E that ok accepts.
func waitFor[E gworker.Event](t *testing.T, e *events, ok func(E) bool) E {
	t.Helper()
	timeout := time.After(patience)
	for {
		seen, change := e.snapshot()
		for _, event := range seen {
			if typed, is := event.(E); is && (ok == nil || ok(typed)) {
				return typed
			}
		}
		select {
		case <-change:
		case <-timeout:
			var zero E
			t.Fatalf("no %T within %s; seen: %s", zero, patience, describe(seen))
		}
	}
}

func count[E gworker.Event](e *events) int {
	seen, _ := e.snapshot()
	n := 0
	for _, event := range seen {
		if _, is := event.(E); is {
			n++
		}
	}
	return n
}

func describe(seen []gworker.Event) string {
	var lines []string
	for _, event := range seen {
		lines = append(lines, fmt.Sprintf("%T %+v", event, event))
	}
	return "\n" + strings.Join(lines, "\n")
}

// running is a worker that a test has started.
type running struct {
	*gworker.Worker
	events *events
	stop   func() error
}

// start runs a worker until the test ends, or until stop, which returns what
// Run returned.
func start(t *testing.T, config gworker.Config) *running {
	t.Helper()
	e := newEvents()
	config.Observers = append(config.Observers, e.observe)
	worker, err := gworker.NewWorker(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- worker.Run(ctx) }()
	var once sync.Once
	var runErr error
	stop := func() error {
		once.Do(func() {
			cancel()
			select {
			case runErr = <-result:
			case <-time.After(patience):
				t.Errorf("Run did not return within %s of its context's end", patience)
			}
		})
		return runErr
	}
	t.Cleanup(func() { _ = stop() })
	return &running{Worker: worker, events: e, stop: stop}
}

// runOnce runs a worker until nothing is runnable.
func runOnce(t *testing.T, config gworker.Config) *events {
	t.Helper()
	e := newEvents()
	config.Observers = append(config.Observers, e.observe)
	worker, err := gworker.NewWorker(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	defer cancel()
	if err := worker.RunOnce(ctx); err != nil {
		t.Fatalf("RunOnce: %v", err)
	}
	if ctx.Err() != nil {
		t.Fatalf("RunOnce did not end within %s", 5*patience)
	}
	return e
}

func newClient(t *testing.T, pool *pgxpool.Pool) *gworker.Client {
	t.Helper()
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// add adds a job or ends the test.
func add(t *testing.T, client gworker.JobAdder, spec gworker.JobSpec) *gworker.JobRow {
	t.Helper()
	job, err := client.AddJob(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// migrated returns a pool on a fresh migrated database.
func migrated(t *testing.T) *pgxpool.Pool {
	t.Helper()
	return testdb.Pool(t, testdb.Migrated(t))
}

// scan runs a query for one row.
func scan(t *testing.T, pool *pgxpool.Pool, sql string, args []any, dest ...any) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(dest...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func jobCount(t *testing.T, pool *pgxpool.Pool) int {
	t.Helper()
	var n int
	scan(t, pool, "select count(*) from graphile_worker._private_jobs", nil, &n)
	return n
}
