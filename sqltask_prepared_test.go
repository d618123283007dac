package gworker_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// TestSQLTaskThatDeallocates: whatever a file does to the prepared statements of its
// session, neither its own job fails for it, nor any after it on the same connection.
func TestSQLTaskThatDeallocates(t *testing.T) {
	var sample testdb.Sample
	for name, sql := range map[string]string{
		"deallocate": "deallocate all",
		"in a block": "do $$ begin execute 'dealloc' || 'ate all'; end $$", // seen only by what it has done
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			config, err := pgxpool.ParseConfig(testdb.Migrated(t))
			if err != nil {
				t.Fatal(err)
			}
			config.MaxConns = 2
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			client := newClient(t, pool)
			for range 6 {
				for _, task := range []string{"other", "deallocates", "go"} {
					add(t, client, gworker.JobSpec{Task: task})
				}
			}
			e := runOnce(t, gworker.Config{Pool: pool, HoldTime: new(time.Duration), Concurrency: 1, Tasks: append(
				sqlTasks(t, map[string]string{"deallocates": sql, "other": "select 1"}), gworker.NewRawTask("go", nothing),
			)})
			if n := jobCount(t, pool); n != 0 || count[gworker.JobFailed](e) != 0 {
				seen, _ := e.snapshot()
				t.Errorf("%d jobs are left: %s", n, describe(seen))
			}
		})
	}
}
