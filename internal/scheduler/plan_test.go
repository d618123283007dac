package scheduler

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

// TestHeldClaimsUseIndexesOfTinyTables: a plan that was made for a tiny table is
// kept when it has grown, so it must not read whole tables.
func TestHeldClaimsUseIndexesOfTinyTables(t *testing.T) {
	url := testdb.Migrated(t)
	pool := testdb.Pool(t, url)
	const jobs = 30
	setUp, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"select graphile_worker.add_job('x', queue_name => 'q' || n) from generate_series(1, 30) n", "vacuum analyze"} {
		if _, err := setUp.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	// What a session has counted is told when it ends, at the latest.
	pid := setUp.PgConn().PID()
	if err := setUp.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for there := true; there; {
		if err := pool.QueryRow(t.Context(), "select exists (select from pg_stat_activity where pid = $1)", pid).Scan(&there); err != nil {
			t.Fatal(err)
		}
	}
	type scans struct{ seq, index int64 }
	read := func() map[string]scans {
		t.Helper()
		rows, err := pool.Query(t.Context(), `select relname::text, seq_scan, idx_scan from pg_stat_user_tables
			where schemaname = 'graphile_worker' and relname in ('_private_jobs', '_private_job_queues')`)
		if err != nil {
			t.Fatal(err)
		}
		read, name, s := map[string]scans{}, "", scans{}
		if _, err := pgx.ForEachRow(rows, []any{&name, &s.seq, &s.index}, func() error { read[name] = s; return nil }); err != nil {
			t.Fatal(err)
		}
		return read
	}
	set := statement.NewSet(statement.Options{})
	s := New(Config{
		Database: set.Bind(pool, nil), WorkerID: "gworker_test", Concurrency: 2, PollInterval: time.Minute,
		StatementTimeout: time.Minute, AbortTimeout: time.Minute, Events: eventstream.New(nil),
		Hold: Hold{
			Time: time.Minute, Statements: set,
			Connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) },
		},
		Handlers: map[string]Handler{"x": func(context.Context, *job.Claimed) job.Outcome { return job.Outcome{} }},
	})
	s.durations.ran("x", time.Microsecond) // so that all jobs are held
	s.claims.scan.away = true              // scans keep no plan, and look where they like
	before := read()
	if err := s.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := read()
	all := func(s scans) int64 { return s.seq + s.index }
	for all(after["_private_job_queues"]) < all(before["_private_job_queues"])+2*jobs {
		if t.Context().Err() != nil {
			t.Fatal("the figures of held claims never came")
		}
		after = read()
	}
	for table, a := range after {
		if b := before[table]; a.seq > b.seq {
			t.Errorf("%s was read from end to end %d times, and by its indexes %d times", table, a.seq-b.seq, a.index-b.index)
		}
	}
}

// TestClaimsKeepPlansThatSuitLargeTables: the plan that locked claims keep is made for
// tables that are empty.
func TestClaimsKeepPlansThatSuitLargeTables(t *testing.T) {
	var sample testdb.Sample
	for _, jobs := range []struct{ name, queue string }{{"without queues", "null"}, {"of queues", "n % 200 + 1"}} {
		t.Run(jobs.name, func(t *testing.T) {
			sample.Take(t)
			url := testdb.Migrated(t)
			pool, claiming := testdb.Pool(t, url), testdb.Pool(t, url)
			c := newClaimer(Config{
				Database: statement.NewSet(statement.Options{}).Bind(claiming, nil), WorkerID: "gworker_test",
				StatementTimeout: time.Minute, Handlers: map[string]Handler{"x": nil}, Events: eventstream.New(),
			})
			c.scan.lookAhead.queued = jobs.queue != "null"
			exec(t, pool, "insert into graphile_worker._private_tasks (identifier) values ('x')")
			exec(t, pool, "vacuum analyze")
			claim := func(limit int) int {
				t.Helper()
				rows, err := c.rows(t.Context(), limit, cursor{lookAt: c.scan.lookAhead.next(time.Now())})
				if err != nil {
					t.Fatal(err)
				}
				return len(rows.jobs)
			}
			for range 10 { // as often as it takes until a plan is kept
				claim(10)
			}
			exec(t, pool, "insert into graphile_worker._private_job_queues (id, queue_name) overriding system value select n, 'q' || n from generate_series(1, 200) n")
			exec(t, pool, `insert into graphile_worker._private_jobs (task_id, job_queue_id)
				select t.id, `+jobs.queue+` from graphile_worker._private_tasks t, generate_series(1, 4000) n`)
			taken := claim(100) + claim(100)
			if taken < 100 {
				t.Fatalf("took %d jobs", taken)
			}
			claiming.Close() // what a session has counted is told when it ends, at the latest
			var whole, found int64
			for whole+found == 0 {
				if err := pool.QueryRow(t.Context(), `select sum(seq_tup_read), sum(idx_tup_fetch) from pg_stat_user_tables
					where schemaname = 'graphile_worker' and relname in ('_private_jobs', '_private_job_queues')`).Scan(&whole, &found); err != nil {
					t.Fatal(err)
				}
			}
			if limit := int64(20 * taken); whole > 0 || found > limit {
				t.Errorf("to take %d jobs, %d rows were read from whole tables and %d by indexes", taken, whole, found)
			}
		})
	}
}
