package statement

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Transaction runs do in a transaction at the level "read committed", whatever the
// database's default is, and commits if do returns true. Like a single statement it runs
// again on another connection if it fails because of its session: then nothing of it was
// committed.
func (s *Set) Transaction(ctx context.Context, pool *pgxpool.Pool, do func(pgx.Tx) (commit bool, err error)) error {
	conns := pooled{pgxPool{pool}}
	for tries := 0; ; tries++ {
		begin, cancel := context.WithTimeout(ctx, s.options.Timeout)
		conn, err := pool.Acquire(begin)
		cancel()
		if err != nil {
			return fmt.Errorf("beginning the transaction: %w", err)
		}
		err = s.transaction(ctx, conn, do)
		if !conns.release(ctx, conn, err, tries) {
			return err
		}
	}
}

func (s *Set) transaction(ctx context.Context, conn *pgxpool.Conn, do func(pgx.Tx) (bool, error)) error {
	begin, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	tx, err := conn.BeginTx(begin, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return fmt.Errorf("beginning the transaction: %w", err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.Timeout)
		defer cancel()
		_ = tx.Rollback(end) // after a commit it does nothing
	}()
	commit, err := do(tx)
	if err != nil || !commit {
		return err
	}
	end, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	if err := tx.Commit(end); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}
