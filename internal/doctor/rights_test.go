package doctor_test

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/doctor"
)

// role makes a role that goes with the test, and the patient as it sees it.
func (p patient) role() (string, patient) {
	p.t.Helper()
	name := "gworker_test_" + strings.ToLower(rand.Text()[:10])
	p.do("create role " + name + " login")
	p.t.Cleanup(func() {
		if _, err := p.pool.Exec(context.Background(), "drop owned by "+name+"; drop role "+name); err != nil {
			p.t.Error(err)
		}
	})
	return name, p.as(func(c *pgxpool.Config) { c.ConnConfig.User = name })
}

func TestRights(t *testing.T) {
	p := healthyIn(t, oddName)
	p.waiting("x", "1 day")
	name, poor := p.role()

	r := poor.examine()
	want(t, r, "schema", doctor.Warning, "could not be checked", "permission denied", "as the owner")
	want(t, r, "rights", doctor.Problem, "usage of the schema", "select, insert, update, delete on _private_jobs")
	if _, found := r.Find("latency"); found {
		t.Error("a table was read that may not be")
	}

	p.do("grant usage on schema graphile_worker to " + name)
	p.do("grant select on all tables in schema graphile_worker to " + name)
	r = poor.examine()
	want(t, r, "rights", doctor.Problem, "insert, update, delete on _private_jobs")
	want(t, r, "row-security", doctor.Problem, "_private_jobs", "bypassrls")
	if _, found := r.Find("latency"); found {
		t.Error("a table was read of which the role sees no row")
	}

	p.helps(r, "rights")
	p.do("revoke execute on function graphile_worker.remove_job from public")
	r = poor.examine()
	want(t, r, "rights", doctor.Problem, "execute on function remove_job")
	p.helps(r, "rights")
	p.helps(r, "row-security")
	r = poor.examine()
	want(t, r, "old-transactions", doctor.Note, name+" may not look into", "grant pg_read_all_stats to")
	want(t, r, "latency", doctor.Problem, "1 d")
	wantOthersOK(t, r, "old-transactions", "latency", "schema")

	// Of others' transactions it sees how many came after them.
	conn := p.session("another role")
	for _, sql := range []string{"begin", "create table held (id int)"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	want(t, poor.examine(doctor.Aged(0, 2_000_000)), "old-transactions", doctor.Warning, "for 2,000,0", "transactions of others")
	p.do("grant pg_read_all_stats to " + name)
	want(t, poor.examine(), "old-transactions", doctor.OK)
}
