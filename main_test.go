package gworker_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

func TestMain(m *testing.M) { testdb.Main(m) }

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
