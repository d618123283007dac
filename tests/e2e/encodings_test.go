package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// TestReasonsFitEveryEncoding: a reason that the database's encoding cannot hold is
// stored in escapes.
func TestReasonsFitEveryEncoding(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for _, encoding := range []string{"EUC_JP", "LATIN1"} {
		t.Run(encoding, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			pool := inEncoding(t, encoding)
			client := newClient(t, pool)
			cancelled, failed := add(t, client, gworker.JobSpec{Task: "x"}), add(t, client, gworker.JobSpec{Task: "x"})
			if _, err := client.Cancel(t.Context(), cancelled.ID, "no 😀"); err != nil {
				t.Error(err)
			}
			if _, err := client.PermanentlyFailJobs(t.Context(), []int64{failed.ID}, "no 😀"); err != nil {
				t.Error(err)
			}
			for _, id := range []int64{cancelled.ID, failed.ID} {
				var text string
				scan(t, pool, `select coalesce(last_error, '') from graphile_worker._private_jobs where id = $1`, []any{id}, &text)
				if text != `no \ud83d\ude00` {
					t.Errorf("job %d: %q", id, text)
				}
			}
		})
	}
}

// incompressible is a text that no index takes.
func incompressible(n int) string {
	var b strings.Builder
	for i := uint64(1); b.Len() < n; i++ {
		fmt.Fprintf(&b, "%x", i*0x9e3779b97f4a7c15)
	}
	return b.String()
}

// inEncoding makes a migrated database of an encoding, and a pool on it.
func inEncoding(t *testing.T, encoding string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(testdb.EmptyIn(t, encoding))
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["client_encoding"] = "UTF8" // as a worker demands of a pool
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := migrate.Up(t.Context(), pool, migrate.Options{}); err != nil {
		t.Fatal(err)
	}
	return pool
}

// TestFailureTextsFitEveryEncoding: what the encoding of the database cannot hold is
// stored in escapes, and what it can is not.
func TestFailureTextsFitEveryEncoding(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for _, encoding := range []string{"EUC_JP", "LATIN1", "SQL_ASCII", "UTF8"} {
		for mode, hold := range map[string]*time.Duration{"held": nil, "locked": new(time.Duration)} {
			t.Run(encoding+", "+mode, func(t *testing.T) {
				sample.Take(t)
				t.Parallel()
				pool := inEncoding(t, encoding)
				client := newClient(t, pool)
				for _, task := range []string{"plain", "japanese", "emoji", "nul"} {
					add(t, client, gworker.JobSpec{Task: task})
				}
				fails := func(text string) func(context.Context, *gworker.RawJob) error {
					return func(context.Context, *gworker.RawJob) error { return errors.New(text) }
				}
				events := runOnce(t, gworker.Config{Pool: pool, HoldTime: hold, Tasks: []gworker.Task{
					gworker.NewRawTask("plain", fails("plain")), gworker.NewRawTask("japanese", fails("no such file: 日本")),
					gworker.NewRawTask("emoji", fails("no such file: 😀")), gworker.NewRawTask("nul", fails("a\x00b")),
				}})
				if n := count[event.JobFailed](events); n != 4 {
					seen, _ := events.Seen()
					t.Errorf("%d failures are told of, want 4: %s", n, testworker.Describe(seen))
				}
				for task, fit := range map[string][]string{
					"plain": {"plain"}, "japanese": {"no such file: 日本", `no such file: \u65e5\u672c`},
					"emoji": {"no such file: 😀", `no such file: \ud83d\ude00`}, "nul": {"a\uFFFDb", `a\ufffdb`},
				} {
					var text []byte
					scan(t, pool, `select convert_to(j.last_error, getdatabaseencoding()::name) from graphile_worker._private_jobs j
						join graphile_worker._private_tasks t on t.id = j.task_id where t.identifier = $1 and j.locked_at is null`, []any{task}, &text)
					if encoding == "UTF8" {
						fit = fit[:1]
					}
					if encoding != "EUC_JP" && encoding != "SQL_ASCII" && strings.TrimSpace(string(text)) != fit[0] && string(text) != fit[len(fit)-1] {
						t.Errorf("%s: %q", task, text)
					}
				}
			})
		}
	}
}
