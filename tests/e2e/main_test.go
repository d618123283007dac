// Package e2e_test has the tests of whole workers under faults: processes that are killed,
// servers, networks and rights that change or fail, and input, handlers and hooks that do
// harm.
//
// They use the public API and a real server. The one thing not to break: a worker outlives
// the fault, and no job is lost.
package e2e_test

import (
	"flag"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// inParallel is how many tests run at a time, unless -parallel says: most of them wait
// for a time-out or for a server that is away.
const inParallel = "4"

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set(inParallel); err != nil {
			panic(err)
		}
	}
	testdb.Main(m)
}

const patience = testworker.Patience

// What nearly every test calls has a short name here.
var (
	start     = testworker.Start
	runOnce   = testworker.RunOnce
	newClient = testworker.Client
	add       = testworker.Add
	nothing   = testworker.Nothing
)

func waitFor[E event.Event](t *testing.T, e *testworker.Events, ok func(E) bool) E {
	t.Helper()
	return testworker.WaitFor(t, e, ok)
}

func count[E event.Event](e *testworker.Events) int { return testworker.Count[E](e) }

// migrated returns a pool on a fresh migrated database.
func migrated(t *testing.T) *pgxpool.Pool {
	t.Helper()
	return testdb.Pool(t, testdb.Migrated(t))
}

func scan(t *testing.T, pool *pgxpool.Pool, sql string, args []any, dest ...any) {
	t.Helper()
	testdb.Scan(t, pool, sql, args, dest...)
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	testdb.Exec(t, pool, sql, args...)
}

func jobCount(t *testing.T, pool *pgxpool.Pool) int {
	t.Helper()
	var n int
	scan(t, pool, "select count(*) from graphile_worker._private_jobs", nil, &n)
	return n
}
