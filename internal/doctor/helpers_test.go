package doctor_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/doctor"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/testdb"
)

// patience is how long a test waits for what the server tells a moment later.
const patience = time.Minute

// patient is a database to examine.
type patient struct {
	t    testing.TB
	url  string
	pool *pgxpool.Pool
	name schema.Name
}

func newPatient(t testing.TB, url string) patient {
	t.Helper()
	p := patient{t: t, url: url, pool: testdb.Pool(t, url)}
	// As in new databases of PostgreSQL 15 and newer.
	p.do("do $$ begin if not pg_is_in_recovery() then revoke create on schema public from public; end if; end $$")
	return p
}

// healthy is one with the finished schema and nothing wrong.
func healthy(t testing.TB) patient {
	t.Helper()
	return newPatient(t, testdb.Migrated(t))
}

// healthyIn is healthy with another schema's name.
func healthyIn(t testing.TB, name string) patient {
	t.Helper()
	p := newPatient(t, testdb.Empty(t))
	var err error
	if p.name, err = schema.Parse(name); err != nil {
		t.Fatal(err)
	}
	if _, err := migrate.Up(t.Context(), p.pool, migrate.Options{Schema: p.name}); err != nil {
		t.Fatal(err)
	}
	return p
}

// do runs statements that are written for the default schema.
func (p patient) do(sql string, args ...any) {
	p.t.Helper()
	if _, err := p.pool.Exec(p.t.Context(), p.name.Render(sql), args...); err != nil {
		p.t.Fatalf("%v\n%s", err, sql)
	}
}

// value is the single value that a query finds.
func value[T any](p patient, sql string, args ...any) T {
	p.t.Helper()
	rows, err := p.pool.Query(p.t.Context(), p.name.Render(sql), args...)
	if err != nil {
		p.t.Fatalf("%v\n%s", err, sql)
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	if err != nil {
		p.t.Fatalf("%v\n%s", err, sql)
	}
	return found
}

func (p patient) examine(change ...func(*doctor.Options)) doctor.Report {
	p.t.Helper()
	o := doctor.Options{Schema: p.name}
	for _, f := range change {
		f(&o)
	}
	report, err := doctor.Examine(p.t.Context(), p.pool, o)
	if err != nil {
		p.t.Fatal(err)
	}
	return report
}

// as is the same patient, seen by another pool.
func (p patient) as(change func(*pgxpool.Config)) patient {
	p.t.Helper()
	config, err := pgxpool.ParseConfig(p.url)
	if err != nil {
		p.t.Fatal(err)
	}
	change(config)
	pool, err := pgxpool.NewWithConfig(p.t.Context(), config)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(pool.Close)
	p.pool = pool
	return p
}

// session is a connection of its own, which can be left in any state.
func (p patient) session(application string) *pgx.Conn {
	p.t.Helper()
	config, err := pgx.ParseConfig(p.url)
	if err != nil {
		p.t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = application
	conn, err := pgx.ConnectConfig(p.t.Context(), config)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// want checks a finding, and that its text, reason and help hold all parts.
func want(t testing.TB, r doctor.Report, id string, severity doctor.Severity, parts ...string) {
	t.Helper()
	f, found := r.Find(id)
	if !found {
		t.Errorf("no finding %s", id)
		return
	}
	if f.Severity != severity {
		t.Errorf("%s: %s, want %s: %+v", id, f.Severity, severity, f)
	}
	if severity > doctor.Note && (f.Why == "" || len(f.Help) == 0) {
		t.Errorf("%s does not say why and what helps: %+v", id, f)
	}
	text := f.What + "\n" + f.Why + "\n" + strings.Join(f.Help, "\n")
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s lacks %q:\n%s", id, part, text)
		}
	}
}

// outlived says that a finding is about the age of the server that the tests run
// on, which is no matter of theirs.
func outlived(f doctor.Finding) bool {
	return f.ID == "server-version" && f.Severity == doctor.Warning && strings.Contains(f.What, "no longer supported")
}

// wantOthersOK checks that nothing but some ids is worse than ok.
func wantOthersOK(t testing.TB, r doctor.Report, except ...string) {
	t.Helper()
	for _, f := range r.Findings {
		expected := outlived(f)
		for _, id := range except {
			expected = expected || f.ID == id
		}
		if f.Severity != doctor.OK && !expected {
			t.Errorf("unexpected: %+v", f)
		}
	}
}

func dump(t testing.TB, r doctor.Report) string {
	t.Helper()
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// helps runs the SQL that a finding offers.
func (p patient) helps(r doctor.Report, id string) {
	p.t.Helper()
	f, _ := r.Find(id)
	ran := 0
	for _, line := range f.Help {
		sql, _, _ := strings.Cut(line, "; --")
		verb, _, _ := strings.Cut(sql, " ")
		switch verb {
		case "select", "update", "alter", "create", "drop", "grant", "revoke", "vacuum", "reindex", "rollback":
		default:
			continue
		}
		ran++
		if _, err := p.pool.Exec(p.t.Context(), strings.TrimSuffix(sql, ";")); err != nil {
			p.t.Errorf("%s offers %q: %v", id, line, err)
		}
	}
	if ran == 0 {
		p.t.Errorf("%s offers no SQL: %q", id, f.Help)
	}
}
