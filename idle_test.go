package gworker_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// TestRunOnceOutlivesItsIdleSessions: the server ends every session of the worker while
// a job runs. Those that were idle are lost connections and nothing else.
func TestRunOnceOutlivesItsIdleSessions(t *testing.T) {
	var sample testdb.Sample
	for name, hold := range map[string]*time.Duration{"held": nil, "locked": new(time.Duration)} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			url := testdb.Migrated(t)
			pool := testdb.Pool(t, url) // whose sessions stay
			name := "gworker_idle_" + t.Name()[len("TestRunOnceOutlivesItsIdleSessions/"):]
			config, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			config.ConnConfig.RuntimeParams["application_name"] = name
			config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
			own, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer own.Close()
			end := func(ctx context.Context, job *gworker.RawJob) error {
				// As idle_session_timeout would, but for the session that holds the job.
				_, err := pool.Exec(ctx, `select pg_terminate_backend(pid) from pg_stat_activity
					where state = 'idle' and datname = current_database() and pid <> pg_backend_pid()`)
				return err
			}
			client := newClient(t, pool)
			for range 3 {
				add(t, client, gworker.JobSpec{Task: "x"})
			}
			events := runOnce(t, gworker.Config{Pool: own, HoldTime: hold, Concurrency: 1, Tasks: []gworker.Task{gworker.NewRawTask("x", end)}})
			seen, _ := events.snapshot()
			if n := jobCount(t, pool); n != 0 || count[gworker.JobFailed](events) != 0 {
				t.Errorf("%d jobs are left: %s", n, describe(seen))
			}
			if n := count[gworker.HeartbeatFailed](events); n != 0 {
				t.Errorf("the worker did not say goodbye: %s", describe(seen))
			}
		})
	}
}
