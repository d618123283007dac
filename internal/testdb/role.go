package testdb

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

var roles atomic.Int64

// Role makes a role for the test's database, and gives a pool that connects as it.
func Role(t testing.TB, owner *pgxpool.Pool, rights ...string) (string, *pgxpool.Pool) {
	t.Helper()
	name := fmt.Sprintf(`role "%d" of %s`, roles.Add(1), owner.Config().ConnConfig.Database)
	quoted := pgx.Identifier{name}.Sanitize()
	Exec(t, owner, "create role "+quoted+" login")
	t.Cleanup(func() {
		if _, err := owner.Exec(context.Background(), "drop owned by "+quoted+"; drop role "+quoted); err != nil {
			t.Error(err)
		}
	})
	for _, right := range rights {
		Exec(t, owner, fmt.Sprintf(right, quoted))
	}
	config := owner.Config()
	config.MaxConns = 8
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "set session authorization "+quoted)
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return name, pool
}
