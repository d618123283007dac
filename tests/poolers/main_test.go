//go:build unix

// Package poolers_test runs gworker where it does not have the server to itself: behind a
// real PgBouncer in transaction mode, and on two servers of which one is the primary.
//
// Each test has its own pooler, with fewer server connections than clients, which avoids
// running two transactions of a client on the same one. The one thing not to break: a test
// fails behind such a pooler if the code relies on a session
// (TestPreparedStatementsDoNotSurvive proves that the pooler is one).
package poolers_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testbouncer"
	"github.com/gworker/gworker/internal/testdb"
)

func TestMain(m *testing.M) { testdb.HeavyMain(m) }

// patience is how long a test waits for something that should happen soon; it
// is never waited for in full unless the test fails.
const patience = 60 * time.Second

// never is an interval of polling that does not come up during a test.
const never = time.Hour

// setting is a database with a pooler before it.
type setting struct {
	*testbouncer.Bouncer
	direct string // the URL past the pooler
	pool   *pgxpool.Pool
}

// behind makes a pooler before a database.
func behind(t *testing.T, database string) setting {
	t.Helper()
	b := testbouncer.Start(t, database, testbouncer.Options{})
	return setting{Bouncer: b, direct: database, pool: testdb.Pool(t, database)}
}

// client is one through the pooler.
func (s setting) client(t *testing.T) *gworker.Client {
	t.Helper()
	c, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: s.URL(), NoPreparedStatements: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// config is that of a worker through the pooler.
func (s setting) config(tasks ...gworker.Task) gworker.Config {
	return gworker.Config{DatabaseURL: s.URL(), NoPreparedStatements: true, Tasks: tasks}
}

// through is a pool through the pooler, for what a test itself wants there.
func (s setting) through(t *testing.T) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func one[T any](t *testing.T, pool *pgxpool.Pool, sql string, args ...any) T {
	t.Helper()
	var value T
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// until polls, for what cannot be listened to.
func until(t *testing.T, what string, holds func() (bool, error)) {
	t.Helper()
	deadline := time.After(patience)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, err := holds()
		if ok && err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}
