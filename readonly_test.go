package gworker_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
)

// TestClaimsOnAReadOnlyServerWait: where every connection that holds jobs fails at its
// first claim, the next ones wait, as after any failure. They followed one another as
// fast as the server let them, each on a new connection, and without a word.
func TestClaimsOnAReadOnlyServerWait(t *testing.T) {
	t.Parallel()
	owner := migrated(t)
	client := newClient(t, owner)
	var readOnly atomic.Bool
	config := owner.Config()
	config.MaxConns = 8
	config.ConnConfig.RuntimeParams["application_name"] = "of the worker"
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if !readOnly.Load() {
			return nil
		}
		_, err := conn.Exec(ctx, "set default_transaction_read_only = on")
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	held := make(chan struct{}, 100)
	w := start(t, gworker.Config{Pool: pool, NoMigrations: true, PollInterval: 500 * time.Millisecond, Tasks: []gworker.Task{
		gworker.NewRawTask("x", func(_ context.Context, job *gworker.RawJob) error {
			if !lockIsWritten(t, owner, job.ID) {
				held <- struct{}{}
			}
			return nil
		}),
	}})
	for len(held) == 0 {
		before := add(t, client, gworker.JobSpec{Task: "x"})
		waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == before.ID })
	}
	readOnly.Store(true)
	exec(t, owner, "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'of the worker'")
	add(t, client, gworker.JobSpec{Task: "x"})
	failed, started := count[gworker.ClaimFailed](w.events), count[gworker.ClaimStarted](w.events)
	for deadline := time.Now().Add(patience); count[gworker.ClaimFailed](w.events) < failed+5; {
		if time.Now().After(deadline) {
			t.Fatalf("%d claims have failed", count[gworker.ClaimFailed](w.events)-failed)
		}
		time.Sleep(10 * time.Millisecond)
	}
	failed, started = count[gworker.ClaimFailed](w.events)-failed, count[gworker.ClaimStarted](w.events)-started
	if started > 4*failed+8 {
		t.Errorf("%d claims have begun, of which %d have failed", started, failed)
	}
}
