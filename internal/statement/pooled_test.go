package statement_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

const idle = "ended while it was idle"

// everyWay runs statements of each kind, and then again, all on whatever connections
// the pool gives.
func everyWay(t *testing.T, ctx context.Context, db statement.DB) {
	t.Helper()
	const sql = "select a from changing where a = $1"
	var a int
	if _, err := db.Exec(ctx, sql, 1); err != nil {
		t.Error(err)
	}
	if err := db.QueryRow(ctx, sql, 1).Scan(&a); err != nil {
		t.Error(err)
	}
	for _, query := range []func(context.Context, string, ...any) (pgx.Rows, error){db.Query, db.QueryByIndex} {
		rows, err := query(ctx, sql, 1)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int]); err != nil {
			t.Error(err)
		}
	}
}

// TestStatementsOutliveTheirSessions: whatever makes a session unfit for statements
// that it has carried out before, others carry them out.
func TestStatementsOutliveTheirSessions(t *testing.T) {
	var sample testdb.Sample
	for name, spoil := range map[string]string{
		"deallocate all": "deallocate all",
		"discard all":    "discard all",
		"result type":    "alter table changing alter column a type bigint",
		idle:             "set idle_session_timeout = 1",
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			ctx := t.Context()
			url := testdb.Migrated(t)
			config, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			config.MaxConns = 3
			// Pgx must not notice first what has become of a session.
			config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
			pool, err := pgxpool.NewWithConfig(ctx, config)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			db := statement.NewSet(statement.Options{}).Bind(pool, nil)
			if _, err := pool.Exec(ctx, "create table changing as select 1 as a"); err != nil {
				t.Fatal(err)
			}
			conns := make([]*pgxpool.Conn, config.MaxConns)
			release := sync.OnceFunc(func() {
				for _, conn := range conns {
					if conn != nil {
						conn.Release()
					}
				}
			})
			defer release()
			for i := range conns {
				if conns[i], err = pool.Acquire(ctx); err != nil {
					t.Fatal(err)
				}
			}
			for _, conn := range conns { // each knows each statement
				everyWay(t, ctx, statement.NewSet(statement.Options{}).Bind(conn, nil))
			}
			var pids []uint32
			for _, conn := range conns {
				pids = append(pids, conn.Conn().PgConn().PID())
				var answer *pgconn.PgError
				_, err := conn.Exec(ctx, spoil)
				if name == idle && errors.As(err, &answer) && answer.Code == "42704" {
					t.Skip("this server has no idle_session_timeout")
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			release()
			if name == idle {
				awaitEnd(t, url, pids)
			}
			everyWay(t, ctx, db)
			everyWay(t, ctx, db)
		})
	}
}

// awaitEnd waits until the server has ended the sessions.
func awaitEnd(t *testing.T, url string, pids []uint32) {
	t.Helper()
	pool := testdb.Pool(t, url)
	for deadline := time.Now().Add(time.Minute); ; {
		left := 0
		err := pool.QueryRow(t.Context(), "select count(*) from pg_stat_activity where pid = any ($1::int[])", pids).Scan(&left)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%d sessions are left: %v", left, err)
		}
		if left == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
