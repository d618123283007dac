package e2e_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// addsUnique tries what a producer may do with unique jobs, and what not.
func (g granted) addsUnique() {
	t, ctx := g.t, g.t.Context()
	t.Helper()
	g.do(`select #.gworker_add_unique('secret', '1 day', '{"password":4}', unique_key => 'theirs')`)
	theirs := gworker.JobSpec{Task: "secret", UniqueKey: "theirs", UniqueFor: time.Hour}
	row := add(t, g.client, theirs)
	if row.Added() || row.Duplicate == nil || row.Duplicate.State != gworker.DuplicateWaiting || row.ID == 0 || row.Task != "secret" || row.Payload != nil {
		t.Errorf("the job of another: %+v", row)
	}
	own := gworker.JobSpec{Task: "own", UniqueFor: time.Hour, Payload: []int{1}}
	g.may("select #.gworker_add_unique('by sql', '1 day')", "select #.gworker_add_unique('by sql', '1 day', job_key => 'u', queue_name => 'new q')")
	if row := add(t, g.client, own); !row.Added() || string(row.Payload) != "[1]" {
		t.Errorf("its own: %+v", row)
	}
	if row := add(t, g.client, own); row.Added() {
		t.Errorf("its own again: %+v", row)
	}
	other := gworker.JobSpec{Task: "another", UniqueFor: time.Hour, Key: "kept"}
	err := pgx.BeginFunc(ctx, g.pool, func(tx pgx.Tx) error {
		rows, err := g.client.WithTx(tx).AddJobs(ctx, []gworker.JobSpec{own, {Task: "plain"}, other, theirs})
		if err != nil || len(rows) != 4 || rows[0].Added() || rows[1].Task != "plain" || !rows[2].Added() || rows[2].Key != "kept" || rows[3].Added() {
			t.Errorf("%+v, %v", rows, err)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	g.mustNot(
		"select * from #._gworker_unique", "insert into #._gworker_unique values ('k', 't', 't', now(), now(), 1)", "update #._gworker_unique set job_id = 1",
		"delete from #._gworker_unique", "select #._gworker_unique_sweep(1)", "select * from #._gworker_unique_job(1)",
		"select #._gworker_upkeep('1 s', '1 s', '1 s')", "select * from #._gworker_events",
	)
	before := g.one(everything)
	// It cannot hold a key without adding a job.
	g.may("select #._gworker_unique_take('{key:x}', '{t}', '{t}', '{1 day}')")
	if _, err := g.sql(g.pool, "select #._gworker_unique_settle('{key:x}', '{t}', '{1}')"); err == nil {
		t.Error("a key without a job")
	}
	if after := g.one(everything); after != before {
		t.Errorf("jobs before:\n%s\nafter:\n%s", before, after)
	}
	if row := add(t, g.admin, gworker.JobSpec{Task: "t", UniqueKey: "x", UniqueFor: time.Hour}); !row.Added() {
		t.Errorf("a key without a job: %+v", row)
	}
}

// Only roles that may add jobs add unique ones: neither a reader, nor a role that may use the
// schema and call every function that is not kept from it.
func TestOthersAddNoUniqueJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for _, kind := range []gworker.Rights{gworker.RightsReader, ""} {
		g := granted{t: t, owner: testdb.Pool(t, testdb.Empty(t))}
		g.role, g.pool = testdb.Role(t, g.owner)
		g.admin, g.client = g.on(g.owner), g.on(g.pool)
		if err := g.admin.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		quoted := pgx.Identifier{g.role}.Sanitize()
		g.do("grant usage on schema # to " + quoted)
		if kind != "" {
			if _, err := g.admin.Grant(t.Context(), kind, g.role, gworker.GrantOptions{Payloads: true}); err != nil {
				t.Fatal(err)
			}
		}
		refused := func(with string) {
			t.Helper()
			g.mustNot("select #.gworker_add_unique('t', '1 day')")
			for _, spec := range [][]gworker.JobSpec{{{Task: "t", UniqueFor: time.Hour}}, {{Task: "t", UniqueFor: time.Hour}, {Task: "u"}}} {
				_, err := g.client.AddJobs(t.Context(), spec)
				var answer *pgconn.PgError
				if !errors.As(err, &answer) || answer.Code != "42501" {
					t.Errorf("%q %s: %v", kind, with, err)
				}
			}
			if row, err := g.client.AddJob(t.Context(), gworker.JobSpec{Task: "t", UniqueFor: time.Hour}); err == nil {
				t.Errorf("%q %s: %+v", kind, with, row)
			}
		}
		refused("")
		g.mustNot("select #._gworker_unique_take('{key:x}', '{t}', '{t}', '{1 day}')", "select #._gworker_unique_settle('{key:x}', '{t}', '{1}')")
		// Even with them all it adds none, since the function adds as its caller.
		g.do("grant execute on all functions in schema # to " + quoted)
		refused("with all functions")
		if got := g.one("select count(*)::text from #._private_jobs"); got != "0" {
			t.Errorf("%s jobs", got)
		}
		if got := g.one("select count(*)::text from #._gworker_unique where job_id is not null"); got != "0" {
			t.Errorf("%s keys", got)
		}
	}
}

// Roles that were producers and workers before, by a grant or by hand, need no further one.
func TestUniqueRightsOfBefore(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for _, kind := range []gworker.Rights{gworker.RightsProducer, gworker.RightsWorker} {
		g := granted{t: t, owner: testdb.Pool(t, testdb.Empty(t))}
		g.role, g.pool = testdb.Role(t, g.owner)
		g.admin, g.client = g.on(g.owner), g.on(g.pool)
		bare, err := gworker.NewClient(gworker.ClientConfig{Pool: g.owner, Schema: oddSchema, NoHistory: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := bare.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := g.admin.Grant(t.Context(), kind, g.role, gworker.GrantOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := g.admin.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		spec := gworker.JobSpec{Task: "t", UniqueFor: time.Hour}
		if row := add(t, g.client, spec); !row.Added() {
			t.Errorf("%s: %+v", kind, row)
		}
		if row := add(t, g.client, spec); row.Added() {
			t.Errorf("%s: %+v", kind, row)
		}
		// Who was given the tables by hand is told what is missing.
		g.do("revoke execute on function #._gworker_unique_take from " + pgx.Identifier{g.role}.Sanitize())
		if _, err := g.client.AddJob(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "grant producer") {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := g.admin.Grant(t.Context(), kind, g.role, gworker.GrantOptions{}); err != nil {
			t.Fatal(err)
		}
		if row := add(t, g.client, spec); row.Added() {
			t.Errorf("%s: %+v", kind, row)
		}
		// And what was taken is gone.
		if _, err := g.admin.Revoke(context.WithoutCancel(t.Context()), kind, g.role, gworker.GrantOptions{}); err != nil {
			t.Fatal(err)
		}
		g.mustNot("select #.gworker_add_unique('t', '1 day')", "select #._gworker_unique_take('{key:x}', '{t}', '{t}', '{1 day}')")
	}
}
