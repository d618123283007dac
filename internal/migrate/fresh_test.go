package migrate_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/db"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/testdb"
)

var breaking = []int{1, 3, 11, 13, 14, 16}

var schemaNames = map[string]string{
	"default":             "",
	"plain":               "queue",
	"odd":                 `my "odd" Schema`,
	"quotes and dollars":  `it's $gw$ a $gw0$ name`,
	"as a comment":        `a -- b; /* c`,
	"with the default's":  "graphile_worker_2",
	"with a line":         "two\nlines;\n",
	"with a backslash":    `back\slash %s $1`,
	"with a dot":          "graphile.worker",
	"with a bracket list": "{a,b}",
}

func TestFreshInstall(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, name := range schemaNames {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, name)
			result := f.up()
			wantEqual(t, "applied", fromTo(1, 20), ids(result.Applied))
			f.wantCatalog("revision-20-rust.txt")

			var wrong []int
			for _, r := range result.Ledger.Revisions {
				if r.Breaking != slices.Contains(breaking, r.ID) {
					wrong = append(wrong, r.ID)
				}
			}
			wantEqual(t, "revisions with the wrong breaking flag", nil, wrong)
			f.sql(`select graphile_worker.add_job('t')`)
			wantEqual(t, "jobs", 1, one[int](f, `select count(*)::int from graphile_worker.jobs`))
		})
	}
}

func TestRunningAgainChangesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	f.up()
	f.sql(`select graphile_worker.add_job('t')`)
	before := one[string](f, "select txid_current()::text")
	ledger, bodies := f.ledger(), f.bodies()
	versions := `select string_agg(p.oid || ' ' || p.xmin, ',' order by p.oid) from pg_proc p
		join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'graphile_worker'`
	rows := one[string](f, versions)

	result := f.up()
	wantEqual(t, "applied", 0, len(result.Applied))
	wantEqual(t, "newest", 20, result.Ledger.Newest)
	wantEqual(t, "ledger", ledger, f.ledger())
	wantEqual(t, "functions", bodies, f.bodies())
	wantEqual(t, "versions of functions", rows, one[string](f, versions))
	// The xid asked for here is the next one after "before": nobody wrote.
	var first, second uint64
	if _, err := fmt.Sscan(before, &first); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(one[string](f, "select txid_current()::text"), &second); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "jobs", 1, one[int](f, `select count(*)::int from graphile_worker.jobs`))
}

var changeSection = regexp.MustCompile("(?s)## revision (\\d+)\n\n```\n(.*?)```")

// A state that we leave half way is one that another runtime can go on from.
func TestEveryRevisionIsAsListed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	files, err := fs.Glob(db.Migrations, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	f.installOne(files[0])
	ledgerLines := regexp.MustCompile(`migrations`)
	eraLines := regexp.MustCompile(`^(function|trigger) `)
	now := map[string]bool{}
	for at, section := range changeSection.FindAllStringSubmatch(testfile(t, "changes.md"), -1) {
		revision := at + 1
		if fmt.Sprint(revision) != section[1] {
			t.Fatalf("section %d of changes.md is about revision %s", revision, section[1])
		}
		if revision == 20 {
			break // another one than Node's; the listing of it is compared elsewhere
		}
		var gone, made []string
		for line := range strings.Lines(section[2]) {
			line = strings.TrimSuffix(line, "\n")
			if rest, ok := strings.CutPrefix(line, "< "); ok {
				gone = append(gone, rest)
			}
			if rest, ok := strings.CutPrefix(line, "> "); ok {
				made = append(made, rest)
			}
		}
		for _, line := range gone {
			delete(now, line)
		}
		for _, line := range made {
			now[line] = true
		}
		f.installOne(files[revision])

		var want, got []string
		for line := range now {
			if revision > 10 || !eraLines.MatchString(line) {
				want = append(want, line)
			}
		}
		for _, line := range f.catalog() {
			if !ledgerLines.MatchString(line) {
				got = append(got, line)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		wantEqual(t, "catalog at revision "+section[1], want, got)
	}
}

func TestEachRevisionIsAnnounced(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	conn, err := pgx.Connect(t.Context(), f.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `listen "worker:migrate"`); err != nil {
		t.Fatal(err)
	}
	f.up()
	for id := 1; id <= 20; id++ {
		n, err := conn.WaitForNotification(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "payload", fmt.Sprintf(`{"migrationNumber":%d,"breaking":%t}`, id, slices.Contains(breaking, id)), n.Payload)
		if !json.Valid([]byte(n.Payload)) {
			t.Errorf("%s is not JSON", n.Payload)
		}
	}
}

func TestCallbacksHaveTheLedgersRows(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	var told []migrate.Revision
	result, err := migrate.Up(t.Context(), f.Pool, migrate.Options{
		OnApplied: func(r migrate.Revision) { told = append(told, r) },
		OnWarning: func(text string) { t.Errorf("warned: %s", text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "told", result.Applied, told)
	wantEqual(t, "ledger", result.Ledger.Revisions, told)
	for _, r := range told {
		if r.At.IsZero() || r.At.Location() == nil || time.Since(r.At) < 0 {
			t.Errorf("revision %d was applied at %s", r.ID, r.At)
		}
	}
}

// Whatever the pool does, the run prepares nothing and finds its way.
func TestUpInAnyPool(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, change := range map[string]func(*pgxpool.Config){
		"one connection":  func(c *pgxpool.Config) { c.MaxConns = 1 },
		"simple protocol": func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol },
		"unprepared":      func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec },
		"own search path": func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["search_path"] = "graphile_worker, nowhere" },
		"no search path":  func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["search_path"] = "" },
		"catalog last":    func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["search_path"] = "public, pg_catalog" },
		"serializable": func(c *pgxpool.Config) {
			c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable"
		},
		"old strings": func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["standard_conforming_strings"] = "off" },
		"other dates": func(c *pgxpool.Config) {
			c.ConnConfig.RuntimeParams["datestyle"] = "SQL, DMY"
			c.ConnConfig.RuntimeParams["intervalstyle"] = "iso_8601"
			c.ConnConfig.RuntimeParams["timezone"] = "Asia/Kathmandu"
		},
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			f.sql(`create table public.migrations (id int)`)
			pool := newPool(t, f.url, change)
			if _, err := migrate.Up(t.Context(), pool, migrate.Options{}); err != nil {
				t.Fatal(err)
			}
			f.wantCatalog("revision-20-rust.txt")
			status, err := migrate.Inspect(t.Context(), pool, schema.Name{})
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "pending", nil, status.Pending())
			var prepared int
			err = pool.QueryRow(t.Context(), `select count(*) from pg_prepared_statements`, pgx.QueryExecModeExec).Scan(&prepared)
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "prepared statements", 0, prepared)
		})
	}
}

// A schema's owner need not have rights on the database.
func TestUpWhereTheSchemaWasGiven(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	role := one[string](f, `select 'gw_' || current_database()`)
	f.script(fmt.Sprintf(`create role %s; create schema graphile_worker authorization %s`, role, role))
	pool := newPool(t, f.url, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["role"] = role })
	if _, err := migrate.Up(t.Context(), pool, migrate.Options{}); err != nil {
		t.Fatal(err)
	}
	f.wantCatalog("revision-20-rust.txt")
}
