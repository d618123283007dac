package statement_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/admin"
	"github.com/gworker/gworker/internal/cancel"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/recovery"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

// TestTransactionsOutliveTheirSessions: a transaction whose session has lost its
// prepared statements runs again, on another connection.
func TestTransactionsOutliveTheirSessions(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(ctx context.Context, pool, other *pgxpool.Pool, set *statement.Set) error{
		"sweep": func(ctx context.Context, pool, other *pgxpool.Pool, set *statement.Set) error {
			_, err := recovery.Sweep(ctx, pool, set, eventstream.New(func(event.Event) {}), recovery.SweepOptions{})
			return err
		},
		"cancel": func(ctx context.Context, pool, other *pgxpool.Pool, set *statement.Set) error {
			_, err := cancel.Cancel(ctx, pool, set, 1, "")
			return err
		},
		"cleanup": func(ctx context.Context, pool, other *pgxpool.Pool, set *statement.Set) error {
			if _, err := other.Exec(ctx, "insert into graphile_worker._private_job_queues (queue_name) values ('unused')"); err != nil {
				return err
			}
			_, err := admin.CleanUp(ctx, pool, set, set.On(other), admin.Cleanup{Tasks: []string{admin.GCJobQueues}})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := testdb.Migrated(t)
			config, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			config.MaxConns = 1
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			other := testdb.Pool(t, url)
			set := statement.NewSet(statement.Options{})
			for range 2 {
				if err := do(t.Context(), pool, other, set); err != nil {
					t.Fatal(err)
				}
				if _, err := pool.Exec(t.Context(), "deallocate all"); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
