package migrate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/wait"
)

// lockSpace is the first half of the advisory lock's key ("gwmi" in ASCII); the
// other half is a hash of the schema's name.
const lockSpace = 0x67776d69

// closeTimeout bounds the end of a connection, as its server may no longer answer.
const closeTimeout = 5 * time.Second

// lock waits until this is the only gworker that migrates the schema. It takes a
// transaction's advisory lock, on a connection outside the pool: a session's lock, which
// goose offers, stays behind in transaction poolers, and a connection of the pool could be
// the one that the holder of the lock waits for.
//
// A process that does not get the lock asks again later, and waits outside of a
// transaction: a waiting transaction occupies one of a pooler's server connections, and
// many starting processes would occupy them all, while the holder needs one more.
//
// Losing the lock early (for example to idle_in_transaction_session_timeout) does no harm:
// races are then handled like those with another runtime.
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
		// The transaction, and with it the lock, end with the connection anyway. A
		// pooler would drop a server connection that is left inside of one.
		_, _ = conn.Exec(ctx, "rollback")
		_ = conn.Close(ctx)
	}
	for waits := retry.MigrationLockBackoff(); ; {
		locked, err := tryLock(ctx, conn, name)
		if err != nil {
			release()
			return nil, fmt.Errorf("locking migrations: %w", err)
		}
		if locked {
			return release, nil
		}
		if err := wait.Sleep(ctx, waits.NextBackOff()); err != nil {
			release()
			return nil, fmt.Errorf("waiting for another process to migrate: %w", err)
		}
	}
}

// tryLock leaves a transaction open if, and only if, it has the lock.
func tryLock(ctx context.Context, conn *pgx.Conn, name schema.Name) (locked bool, err error) {
	if _, err := conn.Exec(ctx, "begin"); err != nil {
		return false, err
	}
	err = conn.QueryRow(ctx, dbgen.TryLockMigrations, pgx.QueryExecModeExec, int32(lockSpace), name.String()).Scan(&locked)
	if err != nil || locked {
		return locked, err
	}
	_, err = conn.Exec(ctx, "rollback")
	return false, err
}
