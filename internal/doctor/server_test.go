package doctor_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/doctor"
)

func TestServerVersions(t *testing.T) {
	now := time.Date(2026, time.November, 23, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		number  int
		version string
		want    doctor.Severity
		what    string
	}{
		{110022, "11.22", doctor.Problem, "This version of Graphile Worker requires PostgreSQL v12.0 or greater (detected `server_version_num` = 110022)."},
		{120022, "12.22", doctor.Warning, "PostgreSQL 12.22 is no longer supported: fixes ended on 2024-11-21."},
		{140020, "14.20", doctor.Warning, "PostgreSQL 14.20 is no longer supported: fixes ended on 2026-11-12."},
		{150015, "15.15", doctor.OK, "PostgreSQL 15.15."},
		{180001, "18.1", doctor.OK, "PostgreSQL 18.1."},
		{990000, "99.0", doctor.OK, "PostgreSQL 99.0."},
	} {
		f := doctor.JudgeVersion(c.number, c.version, now)
		if f.Severity != c.want || f.What != c.what {
			t.Errorf("%d: %+v", c.number, f)
		}
	}
}

func TestSettingsThatHurt(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	p := private(t, map[string]string{"max_connections": "12"})
	p.do("alter system set autovacuum = off")
	p.do("alter system set track_counts = off")
	p.do("select pg_reload_conf()")
	p.until("select bool_and(setting = 'off') from pg_settings where name in ('autovacuum', 'track_counts')")
	r := p.examine()
	want(t, r, "autovacuum", doctor.Problem, "off on this server")
	want(t, r, "track-counts", doctor.Problem)
	wantOthersOK(t, r, "autovacuum", "track-counts")
	p.helps(r, "autovacuum")
	p.helps(r, "track-counts")
	p.until("select bool_and(setting = 'on') from pg_settings where name in ('autovacuum', 'track_counts')")
	wantOthersOK(t, p.examine())

	// Of 12 connections, 3 are for superusers.
	p = p.as(func(c *pgxpool.Config) { c.MaxConns = 2; c.MinConns = 0 })
	var sessions []*pgx.Conn
	for range 9 {
		used := value[int64](p, "select count(*) from pg_stat_activity where backend_type = 'client backend'")
		r := p.examine()
		switch {
		case used < 8: // of 9
			want(t, r, "connections", doctor.OK)
		case used == 8:
			want(t, r, "connections", doctor.Warning, "8 of the 9 connections of the server")
		default:
			want(t, r, "connections", doctor.Problem, "9 of the 9 connections of the server")
			return
		}
		sessions = append(sessions, p.session("more"))
	}
	t.Errorf("%d sessions more, and still there is room", len(sessions))
}

func TestConnectionLimitsOfDatabaseAndRole(t *testing.T) {
	p := healthy(t)
	name, poor := p.role()
	p.do("alter role " + name + " connection limit 2")
	// The doctor holds two connections for a moment only.
	poor = poor.as(func(c *pgxpool.Config) { c.ConnConfig.User = name; c.MaxConns = 1 })
	want(t, poor.examine(), "connections", doctor.OK)
	p.do("alter role " + name + " connection limit 1")
	r := poor.examine() // by its one connection, which it has
	want(t, r, "connections", doctor.Problem, "1 of the 1 connections of role "+name)
	p.do("alter role " + name + " connection limit 100")
	database := value[string](p, "select current_database()")
	p.do("alter database " + database + " connection limit 2")
	want(t, poor.examine(), "connections", doctor.Problem, "2 of the 2 connections of database "+database)
}

func TestTimeouts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, c := range []struct {
		setting, value string
		want           doctor.Severity
		text           string
	}{
		{"statement_timeout", "30s", doctor.OK, ""},
		{"statement_timeout", "9s", doctor.Warning, "statement_timeout is 9s"},
		{"statement_timeout", "900ms", doctor.Problem, "Remove statement_timeout from the connection string"},
		{"idle_in_transaction_session_timeout", "1min", doctor.OK, ""},
		{"idle_in_transaction_session_timeout", "5s", doctor.Warning, "idle_in_transaction_session_timeout is 5s"},
		{"idle_in_transaction_session_timeout", "500ms", doctor.Problem, ""},
		{"idle_session_timeout", "2min", doctor.Warning, "idle_session_timeout is 2 min"},
	} {
		p := healthy(t)
		known := value[bool](p, "select exists (select from pg_settings where name = '"+c.setting+"')")
		if !known {
			continue // idle_session_timeout came with PostgreSQL 14
		}
		r := p.as(func(p *pgxpool.Config) { p.ConnConfig.RuntimeParams[c.setting] = c.value }).examine()
		want(t, r, "timeouts", c.want, c.text)
		wantOthersOK(t, r, "timeouts")
	}

	p := healthy(t)
	name, poor := p.role()
	p.do("alter role " + name + " bypassrls; grant pg_read_all_stats to " + name)
	p.do("grant usage on schema graphile_worker to " + name + "; grant all on all tables in schema graphile_worker to " + name)
	database := value[string](p, "select current_database()")
	p.do("alter role " + name + " in database " + database + " set statement_timeout = '5s'")
	parts := []string{"statement_timeout is 5s", "(source: database user)"}
	if value[bool](p, "select exists (select from pg_settings where name = 'idle_session_timeout')") {
		p.do("alter role " + name + " in database " + database + " set idle_session_timeout = '5s'")
		parts = append(parts, "idle_session_timeout is 5s")
	}
	r := poor.examine()
	want(t, r, "timeouts", doctor.Problem, parts...)
	p.helps(r, "timeouts")
	wantOthersOK(t, poor.as(func(c *pgxpool.Config) { c.ConnConfig.User = name }).examine())
}

func TestClocks(t *testing.T) {
	p := healthy(t)
	ahead := func(d time.Duration) func(*doctor.Options) {
		return func(o *doctor.Options) { o.Now = func() time.Time { return time.Now().Add(d) } }
	}
	want(t, p.examine(), "clock", doctor.OK)
	want(t, p.examine(ahead(time.Second)), "clock", doctor.OK)
	r := p.examine(ahead(5 * time.Second))
	want(t, r, "clock", doctor.Warning, "behind this machine's", "NTP")
	wantOthersOK(t, r, "clock")
	want(t, p.examine(ahead(-2*time.Minute)), "clock", doctor.Problem, "2 min ahead of this machine's")

	// What a long round trip explains is no difference.
	if f := doctor.JudgeClock(3*time.Second, 4*time.Second); f.Severity != doctor.OK {
		t.Errorf("%+v", f)
	}
}
