package migrate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/schema"
)

// lockSpace is the first half of the advisory lock's key ("gwmi" in ASCII); the
// other half is a hash of the schema's name.
const lockSpace = 0x67776d69

// closeTimeout bounds the goodbye to a server that may not answer any more.
const closeTimeout = 5 * time.Second

// lock waits until this is the only run of ours on the schema. The lock is a
// transaction's, on a connection outside the pool: a session's lock, which goose
// has ready, stays behind in transaction poolers, and a connection of the pool
// could be the one that the holder of the lock waits for.
//
// Losing it early (say, to idle_in_transaction_session_timeout) does no harm:
// whatever races then is caught like a race with another runtime.
func lock(ctx context.Context, pool *pgxpool.Pool, name schema.Name) (release func(), err error) {
	config := pool.Config()
	if config.BeforeConnect != nil {
		if err := config.BeforeConnect(ctx, config.ConnConfig); err != nil {
			return nil, fmt.Errorf("connecting to lock migrations: %w", err)
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("connecting to lock migrations: %w", err)
	}
	release = func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		// The transaction, and with it the lock, end with the connection, and
		// nothing is lost with it.
		_ = conn.Close(ctx)
	}
	if _, err := conn.Exec(ctx, "begin"); err != nil {
		release()
		return nil, fmt.Errorf("locking migrations: %w", err)
	}
	if _, err := conn.Exec(ctx, dbgen.LockMigrations, pgx.QueryExecModeExec, int32(lockSpace), name.String()); err != nil {
		release()
		return nil, fmt.Errorf("waiting for another process to migrate: %w", err)
	}
	return release, nil
}
