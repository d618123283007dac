package migrate_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

// catalogOf describes everything in a schema but history's tables.
func catalogOf(t *testing.T, pool *pgxpool.Pool, name schema.Name) string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		select 'relation ' || c.relname || ' ' || c.relkind::text || ' ' || coalesce(array_to_string(c.relacl, ','), '') ||
			coalesce((select string_agg(a.attname || ' ' || a.atttypid::regtype || ' ' || a.attnotnull, ', ' order by a.attnum) from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '')
		from pg_class c where c.relnamespace = quote_ident($1)::regnamespace and c.relname not like '\_gworker\_%'
		union all
		select 'function ' || p.oid::regprocedure || ' ' || md5(p.prosrc) || ' ' || coalesce(array_to_string(p.proacl, ','), '')
		from pg_proc p where p.pronamespace = quote_ident($1)::regnamespace and p.proname !~ '^_?gworker_'
		union all
		select 'trigger ' || t.tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid
		where c.relnamespace = quote_ident($1)::regnamespace and not t.tgisinternal and c.relname not like '\_gworker\_%'
		union all
		select 'constraint ' || k.conname || ' ' || pg_get_constraintdef(k.oid) from pg_constraint k join pg_class c on c.oid = k.conrelid
		where c.relnamespace = quote_ident($1)::regnamespace and c.relname not like '\_gworker\_%'
		order by 1`, name.String())
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(lines) < 20 {
		t.Fatalf("%d objects, %v", len(lines), err)
	}
	return strings.Join(lines, "\n")
}

// ours counts what history has in a schema.
func ours(t *testing.T, pool *pgxpool.Pool, name schema.Name) (objects int) {
	t.Helper()
	testdb.Scan(t, pool, `select (select count(*) from pg_class where relnamespace = quote_ident($1)::regnamespace and relname like '\_gworker\_%')
		+ (select count(*) from pg_proc where pronamespace = quote_ident($1)::regnamespace and proname ~ '^_?gworker_')`, []any{name.String()}, &objects)
	return objects
}

// History comes and goes next to the queue, in a schema of any name, and nothing that Node
// and Rust share is touched.
func TestHistoryComesAndGoes(t *testing.T) {
	for _, raw := range []string{"", `a "b" $gw$ $1`} {
		t.Run(raw, func(t *testing.T) {
			name, err := schema.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			pool := testdb.Pool(t, testdb.Empty(t))
			q := statement.NewSet(statement.Options{Schema: name}).On(pool)
			if found, err := migrate.ReadHistory(t.Context(), q, name); err != nil || found.Version != 0 {
				t.Errorf("in an empty database: %+v, %v", found, err)
			}
			if _, err := migrate.Up(t.Context(), pool, migrate.Options{Schema: name}); err != nil {
				t.Fatal(err)
			}
			before := catalogOf(t, pool, name)
			if found, err := migrate.ReadHistory(t.Context(), q, name); err != nil || found.Version != 0 || found.Records || found.Reads || !found.Creates {
				t.Errorf("before: %+v, %v", found, err)
			}
			for range 2 {
				if err := migrate.UpHistory(t.Context(), pool, name); err != nil {
					t.Fatal(err)
				}
				found, err := migrate.ReadHistory(t.Context(), q, name)
				if err != nil || found.Version != migrate.NewestHistory || !found.Records || !found.Reads {
					t.Errorf("afterwards: %+v, %v", found, err)
				}
			}
			if after := catalogOf(t, pool, name); after != before {
				t.Errorf("the queue's objects were\n%s\nand are\n%s", before, after)
			}
			problem, err := q.KeepHistory(t.Context(), keepAll)
			if err != nil || problem != "" {
				t.Errorf("upkeep: %q, %v", problem, err)
			}
			status, err := migrate.Inspect(t.Context(), pool, name)
			if err != nil || status.Refusal != nil || len(status.Pending()) > 0 || len(status.Missing) > 0 || len(status.Revisions) != migrate.Newest {
				t.Errorf("the queue's ledger: %+v, %v", status, err)
			}
			testdb.Exec(t, pool, "select "+name.Quoted()+".add_job('stays')")
			if err := migrate.DropHistory(t.Context(), pool, name); err != nil {
				t.Fatal(err)
			}
			if n := ours(t, pool, name); n > 0 {
				t.Errorf("%d objects of history are left", n)
			}
			jobs := 0
			testdb.Scan(t, pool, "select count(*) from "+name.Quoted()+".jobs", nil, &jobs)
			if after := catalogOf(t, pool, name); after != before || jobs != 1 {
				t.Errorf("%d jobs are left, of 1; the queue's objects were\n%s\nand are\n%s", jobs, before, after)
			}
			if err := migrate.DropHistory(t.Context(), pool, name); err != nil {
				t.Errorf("dropping it again: %v", err)
			}
			if err := migrate.UpHistory(t.Context(), pool, name); err != nil {
				t.Errorf("making it again: %v", err)
			}
		})
	}
}

var keepAll = dbgen.KeepHistoryParams{EventsFor: 7 * 86400, MinutesFor: 2 * 86400, HoursFor: 90 * 86400}

// Many processes may start at once.
func TestHistoryIsMadeOnce(t *testing.T) {
	pool := testdb.Pool(t, testdb.Empty(t))
	if _, err := migrate.Up(t.Context(), pool, migrate.Options{}); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 8)
	var running sync.WaitGroup
	for range cap(errs) {
		running.Go(func() {
			own, err := pgxpool.NewWithConfig(context.Background(), pool.Config())
			if err == nil {
				err = migrate.UpHistory(t.Context(), own, schema.Name{})
				own.Close()
			}
			errs <- err
		})
	}
	running.Wait()
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	rows := 0
	testdb.Scan(t, pool, "select count(*) from graphile_worker._gworker_journal", nil, &rows)
	if rows != 1 {
		t.Errorf("the journal has %d ids", rows)
	}
}

// Events have a partition for yesterday, today and a week, and old ones go.
func TestPartitionsOfEvents(t *testing.T) {
	pool := testdb.Pool(t, testdb.Migrated(t))
	q := statement.NewSet(statement.Options{}).On(pool)
	days := func() (list string) {
		testdb.Scan(t, pool, `select string_agg((to_date(right(c.relname, 8), 'YYYYMMDD') - (now() at time zone 'UTC')::date)::text, ' ' order by c.relname)
			from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'graphile_worker._gworker_events'::regclass`, nil, &list)
		return list
	}
	for _, ago := range []int{10, 9, 8, 7} {
		testdb.Exec(t, pool, fmt.Sprintf(`do $$ declare d timestamptz := (date_trunc('day', now() at time zone 'UTC') - interval '%d days') at time zone 'UTC'; begin
			execute format('create table graphile_worker._gworker_events_%%s partition of graphile_worker._gworker_events for values from (%%L) to (%%L)',
				to_char(d at time zone 'UTC', 'YYYYMMDD'), d, d + interval '1 day'); end $$`, ago))
	}
	testdb.Exec(t, pool, "drop table graphile_worker._gworker_events_"+dayName(t, pool, 3))
	if got, want := days(), "-10 -9 -8 -7 -1 0 1 2 4 5 6 7"; got != want {
		t.Fatalf("partitions %s, want %s", got, want)
	}
	if problem, err := q.KeepHistory(t.Context(), keepAll); err != nil || problem != "" {
		t.Errorf("%q, %v", problem, err)
	}
	if got, want := days(), "-7 -1 0 1 2 3 4 5 6 7"; got != want {
		t.Errorf("partitions %s, want %s", got, want)
	}

	// While one session does that, others leave it alone, and a table that is in use is left
	// for the next time.
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := statement.NewSet(statement.Options{}).On(tx).KeepHistory(t.Context(), keepAll); err != nil {
		t.Fatal(err)
	}
	soon := keepAll
	soon.EventsFor = 86400
	if problem, err := q.KeepHistory(t.Context(), soon); err != nil || problem != "" || !strings.Contains(days(), "-7") {
		t.Errorf("a second session: %q, %v, partitions %s", problem, err, days())
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	reader, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Rollback(context.Background())
	if _, err := reader.Exec(t.Context(), "select from graphile_worker._gworker_events"); err != nil {
		t.Fatal(err)
	}
	if problem, err := q.KeepHistory(t.Context(), soon); err != nil || !strings.Contains(problem, "55P03") {
		t.Errorf("with a reader: %q, %v", problem, err)
	}
	if err := reader.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if problem, err := q.KeepHistory(t.Context(), soon); err != nil || problem != "" || days() != "-1 0 1 2 3 4 5 6 7" {
		t.Errorf("afterwards: %q, %v, partitions %s", problem, err, days())
	}
}

func dayName(t *testing.T, pool *pgxpool.Pool, ahead int) (name string) {
	t.Helper()
	testdb.Scan(t, pool, "select to_char((now() at time zone 'UTC')::date + $1::int, 'YYYYMMDD')", []any{ahead}, &name)
	return name
}

// Minutes become hours, and hours days, each once and with nothing lost; and what is too old
// goes.
func TestStatisticsAreAddedUp(t *testing.T) {
	pool := testdb.Pool(t, testdb.Migrated(t))
	q := statement.NewSet(statement.Options{}).On(pool)
	// Two workers and two tasks, each minute of three days up to an hour ago.
	testdb.Exec(t, pool, `
		insert into graphile_worker._gworker_stats
		select 'minute', m, task, worker, 2, 1, 0, 0, 0, 0.5, 0.25, case worker when 'a' then '{1,2}' else '{0,0,0,3}' end::bigint[], '{3}'
		from generate_series(date_trunc('hour', now()) - interval '72 hours', date_trunc('hour', now()) - interval '61 minutes', interval '1 minute') m,
			unnest(array['t', 'u']) task, unnest(array['a', 'b']) worker;
		update graphile_worker._gworker_journal set hours_until = date_trunc('hour', now()) - interval '72 hours',
			days_until = date_trunc('day', (now() - interval '72 hours') at time zone 'UTC') at time zone 'UTC'`)
	sum := func(span string) (line string) {
		testdb.Scan(t, pool, `select count(*) || ' rows of ' || count(distinct worker) || ' workers: ' || coalesce(sum(completed), 0) || ' ' || coalesce(sum(failed), 0) || ' ' ||
			coalesce(sum(run_seconds), 0) || ' ' || coalesce(sum(wait_seconds), 0) || ' ' ||
			coalesce((select string_agg(n::text, ',' order by slot) from (select slot, sum(n) n from graphile_worker._gworker_stats s, unnest(runs) with ordinality u(n, slot) where span = $1 group by 1) x), '-')
			from graphile_worker._gworker_stats where span = $1`, []any{span}, &line)
		return line
	}
	minutes := 71 * 60 * 4
	whole := func(n int) string {
		return fmt.Sprintf("%d %d %v %v %d,%d,0,%d", 2*n, n, float64(n)/2, float64(n)/4, n/2, n, 3*n/2)
	}
	if got, want := sum("minute"), fmt.Sprintf("%d rows of 2 workers: %s", minutes, whole(minutes)); got != want {
		t.Fatalf("minutes: %s, want %s", got, want)
	}
	for range 2 {
		if problem, err := q.KeepHistory(t.Context(), keepAll); err != nil || problem != "" {
			t.Fatalf("%q, %v", problem, err)
		}
		if got, want := sum("hour"), fmt.Sprintf("%d rows of 1 workers: %s", 71*2, whole(minutes)); got != want {
			t.Errorf("hours: %s, want %s", got, want)
		}
	}
	var lost int
	testdb.Scan(t, pool, `select count(*) from graphile_worker._gworker_stats where span = 'minute' and at < now() - interval '2 days 10 minutes'`, nil, &lost)
	if lost > 0 {
		t.Errorf("%d minutes are older than 2 days", lost)
	}
	var inDays, inHours int64
	testdb.Scan(t, pool, `select coalesce(sum(completed), 0) from graphile_worker._gworker_stats where span = 'day'`, nil, &inDays)
	testdb.Scan(t, pool, `select coalesce(sum(completed), 0) from graphile_worker._gworker_stats, graphile_worker._gworker_journal where span = 'hour' and at < days_until`, nil, &inHours)
	if inDays == 0 || inDays != inHours {
		t.Errorf("%d runs in days, and %d in their hours", inDays, inHours)
	}

	// What comes late is counted anyway.
	for age, span := range map[float64]string{90: "minute", 65 * 60: "hour", 3 * 86400: "day"} {
		before := sum(span)
		if err := q.RecordStats(t.Context(), dbgen.RecordStatsParams{
			WorkerID: "late", Age: age, Tasks: []string{"t"}, Completed: []int64{7}, Failed: []int64{0}, PermanentlyFailed: []int64{0}, Returned: []int64{0},
			Snoozed: []int64{0}, RunSeconds: []float64{1}, WaitSeconds: []float64{1}, Runs: []string{"{7}"}, Waits: []string{"{}"},
		}); err != nil {
			t.Fatal(err)
		}
		if after := sum(span); after == before {
			t.Errorf("statistics of %.0f s ago are no %s", age, span)
		}
	}
}
