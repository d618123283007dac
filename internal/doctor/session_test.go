package doctor_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/doctor"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/testdb"
)

// utf8 is the patient on connections like those that gworker makes.
func (p patient) utf8() patient {
	return p.as(func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["client_encoding"] = "UTF8" })
}

// user is a role that may use the schema, and the patient as its new sessions see it.
func (p patient) user() (string, func() patient) {
	name, poor := p.role()
	p.do("alter role " + name + " bypassrls; grant pg_read_all_stats to " + name)
	p.do("grant usage on schema graphile_worker to " + name + "; grant all on all tables in schema graphile_worker to " + name)
	return name, func() patient {
		return poor.as(func(c *pgxpool.Config) {
			c.ConnConfig.User = name
			c.ConnConfig.RuntimeParams["client_encoding"] = "UTF8"
		})
	}
}

// TestSettingsOfSessions: what is set for all roles, for the doctor's own and for another
// one that uses the queue, and nothing of one that does not.
func TestSettingsOfSessions(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for _, c := range []struct{ id, setting, bad, good string }{
		{"encoding", "client_encoding", "LATIN1", "'utf-8'"},
		{"isolation", "default_transaction_isolation", "serializable", "'read uncommitted'"},
		{"isolation", "default_transaction_isolation", "repeatable read", "'read committed'"},
	} {
		t.Run(c.setting+" "+c.bad, func(t *testing.T) {
			sample.Take(t)
			p := healthy(t).utf8()
			name, user := p.user()
			stranger, _ := p.role()
			database := value[string](p, "select current_database()")
			set := func(whose, value string) { p.do("alter " + whose + " set " + c.setting + " = " + value) }
			bad := "'" + c.bad + "'"

			set("database "+database, c.good)
			set("role "+name, c.good)
			set("role "+stranger, bad)
			wantOthersOK(t, p.examine())

			set("role "+name, bad)
			r := p.examine()
			want(t, r, c.id, doctor.Note, "role "+name, c.bad)
			wantOthersOK(t, r, c.id)
			want(t, user().examine(), c.id, doctor.Warning, "role "+name)

			// What is set for the role in this database comes before.
			set("role "+name+" in database "+database, c.good)
			wantOthersOK(t, p.examine())
			set("role "+name+" in database "+database, bad)
			r = user().examine()
			want(t, r, c.id, doctor.Warning, `in database "`+database+`" reset`)
			p.helps(r, c.id)
			r = user().examine()
			p.helps(r, c.id)
			wantOthersOK(t, user().examine())

			set("database "+database, bad)
			r = p.utf8().examine()
			want(t, r, c.id, doctor.Warning, "database "+database, c.bad)
			wantOthersOK(t, r, c.id)
			p.helps(r, c.id)
			wantOthersOK(t, p.utf8().examine())
		})
	}
}

func TestIsolationOfTheConnection(t *testing.T) {
	t.Parallel()
	r := healthy(t).as(func(c *pgxpool.Config) {
		c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable"
	}).examine()
	want(t, r, "isolation", doctor.Warning, "Remove default_transaction_isolation from the connection string")
	wantOthersOK(t, r, "isolation")
}

func TestEncodingsOfDatabases(t *testing.T) {
	t.Parallel()
	for encoding, c := range map[string]struct {
		severity doctor.Severity
		part     string
	}{
		"UTF8": {doctor.OK, "UTF8"}, "LATIN1": {doctor.Note, "cannot be added"}, "EUC_JP": {doctor.Note, "with escapes"}, "SQL_ASCII": {doctor.Warning, "any bytes"},
	} {
		if testing.Short() && encoding != "LATIN1" {
			continue
		}
		p := newPatient(t, testdb.EmptyIn(t, encoding)).utf8()
		if _, err := migrate.Up(t.Context(), p.pool, migrate.Options{}); err != nil {
			t.Fatal(err)
		}
		r := p.examine()
		want(t, r, "encoding", c.severity, encoding, c.part)
		wantOthersOK(t, r, "encoding")

		// Where nothing is converted, UTF-8 goes through.
		p.do("alter database " + value[string](p, "select current_database()") + " set client_encoding = 'SQL_ASCII'")
		if encoding == "LATIN1" || encoding == "EUC_JP" {
			c.severity = doctor.Warning
		}
		want(t, p.examine(), "encoding", c.severity)
	}
}

// TestWritableSchemas: schemas of a search path in which others than their owner and the
// queue's may create.
func TestWritableSchemas(t *testing.T) {
	t.Parallel()
	p := healthy(t)
	name, user := p.user()
	owner, _ := p.role()
	p.do("alter schema graphile_worker owner to " + owner)
	defer p.do("alter schema graphile_worker owner to current_user")
	const odd = `"a,""B"`
	p.do(`create schema ` + odd + `; create schema elsewhere; create schema safe; create schema ` + name + ` authorization ` + name)
	p.do("grant create on schema elsewhere to public")
	p.do("grant create on schema safe to " + owner + "; grant usage on schema safe to public")
	p.do("grant create on schema " + odd + " to " + name)
	p.do("alter role " + name + " set search_path = safe, \"$user\", public")
	want(t, p.examine(), "search-path", doctor.OK)
	want(t, user().examine(), "search-path", doctor.OK)

	// Of another role that uses the queue.
	p.do("alter role " + name + " set search_path = nosuch, " + odd + ", \"$user\", PUBLIC")
	r := p.examine()
	want(t, r, "search-path", doctor.Note, `Schema a,"B is in the search path, and role `+name+" may create")
	wantOthersOK(t, r, "search-path")
	p.helps(r, "search-path")
	want(t, p.examine(), "search-path", doctor.OK)

	// Of the session itself, and of the database.
	r = p.as(func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["search_path"] = "elsewhere" }).examine()
	want(t, r, "search-path", doctor.Note, "Schema elsewhere", "every role")
	p.do("alter database " + value[string](p, "select current_database()") + " set search_path = elsewhere")
	r = p.examine()
	want(t, r, "search-path", doctor.Note, "Schema elsewhere", "every role")
	p.helps(r, "search-path")
	want(t, p.examine(), "search-path", doctor.OK)
}

func TestWritablePublic(t *testing.T) {
	t.Parallel()
	p := healthy(t)
	want(t, p.examine(), "search-path", doctor.OK)
	p.do("grant create on schema public to public")
	r := p.examine()
	want(t, r, "search-path", doctor.Note, "public", "every role", `revoke create on schema "public" from public;`)
	wantOthersOK(t, r, "search-path")

	// A body that another runtime or an older version of ours has installed.
	p.do(`create or replace function graphile_worker.remove_job(job_key text) returns graphile_worker._private_jobs
		language sql strict as 'select null::graphile_worker._private_jobs'`)
	r = p.examine()
	want(t, r, "search-path", doctor.Warning, "1 function of the schema")
	wantOthersOK(t, r, "search-path", "functions")
	p.helps(r, "search-path")
	wantOthersOK(t, p.examine(), "functions")
}
