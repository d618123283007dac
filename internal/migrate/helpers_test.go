package migrate_test

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/db"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/testdb"
)

//go:embed testdata
var testdata embed.FS

func testfile(t testing.TB, name string) string {
	t.Helper()
	text, err := testdata.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fixture is a fresh database and one schema in it.
type fixture struct {
	*pgxpool.Pool
	t    testing.TB
	url  string
	name schema.Name
}

func newFixture(t testing.TB, name string) fixture {
	t.Helper()
	parsed, err := schema.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	url := testdb.Empty(t)
	return fixture{Pool: newPool(t, url), t: t, url: url, name: parsed}
}

// newMigrated is a fixture with the finished schema, which is faster than to
// migrate one.
func newMigrated(t testing.TB) fixture {
	t.Helper()
	url := testdb.Migrated(t)
	return fixture{Pool: newPool(t, url), t: t, url: url}
}

func newPool(t testing.TB, url string, change ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(config)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// sql runs statements written for the default schema.
func (f fixture) sql(text string, args ...any) {
	f.t.Helper()
	if err := f.try(text, args...); err != nil {
		f.t.Fatalf("%v\n%s", err, text)
	}
}

func (f fixture) try(text string, args ...any) error {
	_, err := f.Exec(f.t.Context(), f.name.Render(text), append([]any{pgx.QueryExecModeExec}, args...)...)
	return err
}

// script runs many statements at once.
func (f fixture) script(text string) {
	f.t.Helper()
	if _, err := f.Exec(f.t.Context(), f.name.Render(text)); err != nil {
		f.t.Fatalf("%v\n%s", err, text)
	}
}

// one returns the single value that a query finds.
func one[T any](f fixture, text string, args ...any) T {
	f.t.Helper()
	rows, err := f.Query(f.t.Context(), f.name.Render(text), append([]any{pgx.QueryExecModeExec}, args...)...)
	if err != nil {
		f.t.Fatalf("%v\n%s", err, text)
	}
	value, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	if err != nil {
		f.t.Fatalf("%v\n%s", err, text)
	}
	return value
}

// lines returns a query's single text column.
func (f fixture) lines(text string, args ...any) []string {
	f.t.Helper()
	rows, err := f.Query(f.t.Context(), f.name.Render(text), append([]any{pgx.QueryExecModeExec}, args...)...)
	if err != nil {
		f.t.Fatalf("%v\n%s", err, text)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		f.t.Fatalf("%v\n%s", err, text)
	}
	return found
}

func (f fixture) up() migrate.Result {
	f.t.Helper()
	result, err := migrate.Up(f.t.Context(), f.Pool, migrate.Options{Schema: f.name})
	if err != nil {
		f.t.Fatal(err)
	}
	return result
}

func (f fixture) inspect() migrate.Status {
	f.t.Helper()
	status, err := migrate.Inspect(f.t.Context(), f.Pool, f.name)
	if err != nil {
		f.t.Fatal(err)
	}
	return status
}

var migrationName = regexp.MustCompile(`^0*(\d+)_`)

// install runs our migration files up to a revision as they are, like psql.
func (f fixture) install(upTo int) {
	f.t.Helper()
	names, err := fs.Glob(db.Migrations, "*.sql")
	if err != nil {
		f.t.Fatal(err)
	}
	slices.Sort(names)
	for _, name := range names {
		id, err := strconv.Atoi(migrationName.FindStringSubmatch(name)[1])
		if err != nil {
			f.t.Fatal(err)
		}
		if id <= upTo {
			f.installOne(name)
		}
	}
}

func (f fixture) installOne(file string) {
	f.t.Helper()
	text, err := fs.ReadFile(db.Migrations, file)
	if err != nil {
		f.t.Fatal(err)
	}
	f.script(string(text))
}

// catalog prints the schema, but for what gworker has next to it.
func (f fixture) catalog() []string {
	f.t.Helper()
	return slices.DeleteFunc(f.lines(testfile(f.t, "catalog.sql"), f.name.String()), func(line string) bool {
		return strings.Contains(line, "_gworker_") || strings.HasPrefix(line, "function gworker_add_unique(")
	})
}

// listing is a listing of testdata for the schema's name.
func (f fixture) listing(file string) []string {
	f.t.Helper()
	name := one[string](f, `select quote_ident($1)`, f.name.String())
	lines := strings.Split(strings.TrimSpace(testfile(f.t, file)), "\n")
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(line, "graphile_worker", name)
	}
	return lines
}

// wantCatalog compares the schema with a listing, line by line.
func (f fixture) wantCatalog(file string) {
	f.t.Helper()
	want, got := f.listing(file), f.catalog()
	// A view is printed on one line, whatever the schema's name.
	for _, lines := range [][]string{want, got} {
		for i, line := range lines {
			lines[i] = strings.Join(strings.Fields(line), " ")
		}
	}
	// Names of other lengths sort elsewhere.
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		f.t.Errorf("catalog (-%s +database):\n%s", file, diff)
	}
}

// bodies is what the functions do, for comparison.
func (f fixture) bodies() []string {
	f.t.Helper()
	return f.lines(`select p.oid::regprocedure || ' ' || p.prosrc from pg_proc p
		join pg_namespace n on n.oid = p.pronamespace where n.nspname = $1 order by 1`, f.name.String())
}

// ledger prints the rows of the ledger.
func (f fixture) ledger() []string {
	f.t.Helper()
	return f.lines(`select id || ' ' || ts || ' ' || breaking from graphile_worker.migrations order by id`)
}

// ids are those of revisions, for comparison.
func ids(revisions []migrate.Revision) []int {
	var found []int
	for _, r := range revisions {
		found = append(found, r.ID)
	}
	return found
}

// fromTo counts.
func fromTo(first, last int) []int {
	var found []int
	for i := first; i <= last; i++ {
		found = append(found, i)
	}
	return found
}

func wantEqual[T any](t testing.TB, what string, want, got T) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func wantState(t testing.TB, err error, state string) *pgconn.PgError {
	t.Helper()
	answer, ok := err.(*pgconn.PgError)
	if !ok || answer.Code != state {
		t.Fatalf("got error %v, want one with SQLSTATE %s", err, state)
	}
	return answer
}

// waitForWaiters returns when n sessions of the database wait for a lock.
func (f fixture) waitForWaiters(ctx context.Context, n int) {
	f.t.Helper()
	f.waitForSessions(ctx, n, "wait_event_type = 'Lock'")
}

// waitForSessions waits until n sessions are in a state.
func (f fixture) waitForSessions(ctx context.Context, n int, state string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		// The pause is the server's, and only keeps this loop from being busy.
		waiting := one[int](f, `select count(*)::int from pg_sleep(0.005), pg_stat_activity
			where datname = current_database() and `+state)
		if waiting >= n {
			return
		}
		if err := ctx.Err(); err != nil {
			f.t.Fatal(fmt.Errorf("waiting for %d sessions with %s: %w", n, state, err))
		}
	}
}

func wantContains(t testing.TB, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%q does not contain %q", text, part)
	}
}

func wantMember(t testing.TB, member string, list []string) {
	t.Helper()
	if !slices.Contains(list, member) {
		t.Errorf("%q is not among %q", member, list)
	}
}

// wantCause returns what the server said.
func wantCause(t testing.TB, err error) *pgconn.PgError {
	t.Helper()
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		t.Fatalf("got error %v, want one of the server's", err)
	}
	return answer
}
