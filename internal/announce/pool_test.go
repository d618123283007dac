package announce

import (
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

// While all connections are in use, an announcement takes the one of the next add
// that ends.
func TestAnnouncementTakesAnAddsConnection(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	config, err := pgxpool.ParseConfig(testdb.Migrated(t))
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	a := New(pool, statement.NewSet(statement.Options{}))
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.Begin()
	a.End(1)
	for deadline := time.Now().Add(time.Minute); !a.hand(conn); runtime.Gosched() {
		if time.Now().After(deadline) {
			conn.Release()
			t.Fatal("nobody took the connection")
		}
	}
	a.Close(t.Context())
	if n := pool.Stat().AcquiredConns(); n != 0 {
		t.Errorf("%d connections are not given back", n)
	}
	if conn, err = pool.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Nothing waits for it now: it goes back to the pool.
	a.release(conn)
	if n := pool.Stat().AcquiredConns(); n != 0 {
		t.Errorf("%d connections are not given back", n)
	}
}
