package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// granted is a queue of a schema with an odd name, and a role that was given rights.
type granted struct {
	t           *testing.T
	owner, pool *pgxpool.Pool
	role        string
	admin       *gworker.Client // of the owner
	client      *gworker.Client // of the role
}

const oddSchema = `odd "schema" of 'jobs'`

func grant(t *testing.T, kind gworker.Rights, o gworker.GrantOptions) granted {
	t.Helper()
	g := granted{t: t, owner: testdb.Pool(t, testdb.Empty(t))}
	g.role, g.pool = testdb.Role(t, g.owner)
	g.admin, g.client = g.on(g.owner), g.on(g.pool)
	if err := g.admin.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again it changes nothing
		if _, err := g.admin.Grant(t.Context(), kind, g.role, o); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func (g granted) on(pool *pgxpool.Pool) *gworker.Client {
	g.t.Helper()
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, Schema: oddSchema})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(client.Close)
	return client
}

// sql is a statement with the schema's name for each #.
func (g granted) sql(pool *pgxpool.Pool, text string) (int64, error) {
	tag, err := pool.Exec(g.t.Context(), strings.ReplaceAll(text, "#", pgx.Identifier{oddSchema}.Sanitize()))
	return tag.RowsAffected(), err
}

func (g granted) do(text string) {
	g.t.Helper()
	if _, err := g.sql(g.owner, text); err != nil {
		g.t.Fatalf("%s: %v", text, err)
	}
}

func (g granted) one(text string) (value string) {
	g.t.Helper()
	err := g.owner.QueryRow(g.t.Context(), strings.ReplaceAll(text, "#", pgx.Identifier{oddSchema}.Sanitize())).Scan(&value)
	if err != nil {
		g.t.Fatalf("%s: %v", text, err)
	}
	return value
}

// may and mustNot try statements as the role. What finds no row is not allowed either.
func (g granted) may(statements ...string) {
	g.t.Helper()
	for _, text := range statements {
		if _, err := g.sql(g.pool, text); err != nil {
			g.t.Errorf("must be allowed: %s: %v", text, err)
		}
	}
}

func (g granted) mustNot(statements ...string) {
	g.t.Helper()
	for _, text := range statements {
		rows, err := g.sql(g.pool, text)
		var answer *pgconn.PgError
		switch {
		case err == nil && rows > 0:
			g.t.Errorf("must not be allowed: %s: %d rows", text, rows)
		case err != nil && (!errors.As(err, &answer) || answer.Code != "42501"):
			g.t.Errorf("%s: %v", text, err)
		}
	}
}

const everything = `select string_agg(to_jsonb(j)::text, E'\n' order by id) from #._private_jobs j`

// nobodysBusiness is what none of the roles may do.
var nobodysBusiness = []string{
	"drop table #._private_jobs", "alter table #._private_jobs disable row level security", "truncate #._private_jobs",
	"create table #.mine (id int)", "create index on #._private_jobs (payload)", "create policy mine on #._private_jobs using (true)",
	"drop function #.add_job", "update #.migrations set breaking = true", "insert into #.migrations (id) values (21)",
	"delete from #.migrations", "create trigger mine before insert on #._private_jobs execute function #.add_job()",
	"alter schema # rename to mine", "select * from private_matters.secrets", "insert into private_matters.secrets values (1)",
}

func TestProducerOnlyAdds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	g := grant(t, gworker.RightsProducer, gworker.GrantOptions{})
	g.do("create schema private_matters; create table private_matters.secrets as select 1 as secret")
	g.do(`select #.add_job('secret', '{"password":1}'), #.add_job('secret', '{"password":2}', job_key := 'theirs', queue_name := 'q')`)
	g.do(`select #.add_job('secret', '{"password":3}', job_key := 'runs')`)
	g.do(`update #._private_jobs set locked_at = now(), locked_by = 'w', attempts = 1 where key = 'runs'`)
	before := g.one(everything)
	g.mustNot(nobodysBusiness...)
	g.mustNot(
		"select payload from #._private_jobs", "select id from #._private_jobs", "select * from #.jobs", "select * from #._private_jobs for update",
		"delete from #._private_jobs", "update #._private_jobs set payload = '{}'", "update #._private_jobs set locked_at = now(), locked_by = 'me'",
		"update #._private_jobs set priority = 1 where key = 'theirs'", "select * from #.complete_jobs('{1,2,3}')",
		"select * from #.permanently_fail_jobs('{1,2,3}')", "select * from #.reschedule_jobs('{1,2,3}', now())",
		"select #.force_unlock_workers('{w}')", "select #.worker_heartbeat('w')", "select #.recover_dead_worker_jobs('{w}')",
		"select * from #._private_workers", "select * from #._private_known_crontabs", "delete from #._private_tasks",
		"update #._private_job_queues set locked_at = null", "update #._private_tasks set identifier = 'x'",
		"select locked_by from #._private_job_queues", "select 1 from #.remove_job('theirs') r where r.id is not null",
		"insert into #._private_jobs (task_id, locked_at, locked_by) values (1, now(), 'me')", "select #.worker_deregister('w')",
	)
	if after := g.one(everything); after != before {
		t.Errorf("jobs before:\n%s\nafter:\n%s", before, after)
	}

	g.may("select #.add_job('a')", "select #.add_job('b', '{}', 'new queue', now(), 3, 'mine', 4, '{f}')",
		"select #.add_job('b', job_key := 'mine', job_key_mode := 'preserve_run_at')",
		"select #.add_job('b', job_key := 'mine', job_key_mode := 'unsafe_dedupe')",
		`select #.add_job('b', '[1]', job_key := 'list')`, `select #.add_job('b', '[2]', job_key := 'list')`,
		"select #.add_job('b', job_key := 'runs')",
		"select * from #.add_jobs(array(select row('many', '{}', 'q' || i, null, null, 'k' || i, null, null)::#.job_spec from generate_series(1, 300) i))",
		"select * from #.add_jobs(array(select row('many', '{}', 'q' || i, null, null, 'k' || i, null, null)::#.job_spec from generate_series(1, 300) i))",
		"select count(#.add_job('many', job_key := 'k' || i)) from generate_series(1, 300) i",
		"select count(#.add_job('many', job_key := 'k' || i, job_key_mode := 'unsafe_dedupe')) from generate_series(1, 300) i",
	)
	ctx := t.Context()
	add(t, g.client, gworker.JobSpec{Task: "client"})
	for _, mode := range []gworker.KeyMode{gworker.KeyReplace, gworker.KeyPreserveRunAt, gworker.KeyUnsafeDedupe} {
		for range 2 {
			add(t, g.client, gworker.JobSpec{Task: "client", Key: "c", KeyMode: mode, Queue: "q", Payload: []int{1}, Flags: []string{"f"}})
		}
	}
	specs := make([]gworker.JobSpec, 250)
	for i := range specs {
		specs[i] = gworker.JobSpec{Task: "plenty", Queue: fmt.Sprint("q", i), Key: fmt.Sprint("p", i)}
	}
	for range 2 {
		if _, err := g.client.AddJobs(ctx, specs); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.client.AddJobs(ctx, []gworker.JobSpec{{Task: "x"}, {Task: "y", Queue: "z"}}); err != nil {
		t.Fatal(err)
	}
	err := pgx.BeginFunc(ctx, g.pool, func(tx pgx.Tx) error {
		add(t, g.client.WithTx(tx), gworker.JobSpec{Task: "client", Key: "c"})
		add(t, g.client.WithTx(tx), gworker.JobSpec{Task: "client"})
		_, err := g.client.WithTx(tx).AddJobs(ctx, specs)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := g.one("select concat_ws(' ', payload, revision) from #._private_jobs where key = 'list'"); got != "[1, 2] 1" {
		t.Errorf("the list is %s", got)
	}
	if got := g.one("select string_agg(concat_ws(' ', key, attempts, locked_by), ', ' order by id) from #._private_jobs where id = 3 or key = 'runs'"); got != "25 w, runs 0" {
		t.Errorf("replaced while it runs: %s", got)
	}
	g.addsUnique()
	g.mustNot("select id from #._private_jobs") // of its own, earlier ones neither
	var hidden *gworker.HiddenRowsError
	if err := g.client.CheckSchema(ctx); !errors.As(err, &hidden) {
		t.Errorf("CheckSchema: %v", err)
	}
}

func TestReaderOnlyReads(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for _, payloads := range []bool{false, true} {
		g := grant(t, gworker.RightsReader, gworker.GrantOptions{Payloads: payloads})
		g.do("create schema private_matters; create table private_matters.secrets as select 1 as secret")
		g.do(`select #.add_job('t', '{"password":1}', job_key := 'k', queue_name := 'q')`)
		g.mustNot(nobodysBusiness...)
		g.mustNot("select #.add_job('x')", "delete from #._private_jobs", "update #._private_jobs set priority = 1", "select * from #._private_jobs for update",
			"update #._private_job_queues set locked_at = now()", "insert into #._private_tasks (identifier) values ('x')",
			"select #.worker_heartbeat('w')", "select * from #.complete_jobs('{1}')", "select #.remove_job('k')")
		reads := []string{"select payload from #._private_jobs", "select * from #._private_jobs"}
		if payloads {
			g.may(reads...)
		} else {
			g.mustNot(reads...)
		}
		ctx := t.Context()
		page, err := g.client.ListJobs(ctx, gworker.JobFilter{})
		if err != nil || len(page.Jobs) != 1 {
			t.Fatalf("ListJobs: %v, %v", page, err)
		}
		for _, order := range []gworker.JobOrder{gworker.OrderByID, gworker.OrderNewestFirst, gworker.OrderNext} {
			page, err := g.client.ListJobs(ctx, gworker.JobFilter{Order: order, WithPayload: true})
			switch {
			case !payloads:
				var answer *pgconn.PgError
				if !errors.As(err, &answer) || answer.Code != "42501" {
					t.Errorf("payloads: %v, %v", page, err)
				}
			case err != nil || string(page.Jobs[0].Payload) != `{"password":1}`:
				t.Errorf("payloads: %v, %v", page, err)
			}
		}
		want := ""
		if payloads {
			want = `{"password":1}`
		}
		job, err := g.client.GetJob(ctx, page.Jobs[0].ID)
		if err != nil || string(job.Payload) != want {
			t.Errorf("GetJob: %v, %v", job, err)
		}
		job, err = g.client.GetJobByKey(ctx, "k")
		if err != nil || string(job.Payload) != want {
			t.Errorf("GetJobByKey: %v, %v", job, err)
		}
		if _, err := g.client.Stats(ctx, gworker.StatsOptions{}); err != nil {
			t.Error(err)
		}
		if _, err := g.client.Queues(ctx, gworker.QueueFilter{}); err != nil {
			t.Error(err)
		}
		if _, err := g.client.Workers(ctx); err != nil {
			t.Error(err)
		}
		if err := g.client.CheckSchema(ctx); err != nil {
			t.Error(err)
		}
	}
}

func TestWorkerWorksWithoutOwning(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for _, hold := range []bool{true, false} {
		g := grant(t, gworker.RightsWorker, gworker.GrantOptions{})
		g.do("create schema private_matters; create table private_matters.secrets as select 1 as secret")
		g.mustNot(nobodysBusiness...)
		config := gworker.Config{
			Pool: g.pool, Schema: oddSchema, Concurrency: 4,
			Tasks: []gworker.Task{
				gworker.NewTask("ok", func(context.Context, *gworker.Job[any]) error { return nil }),
				gworker.NewTask("fails", func(context.Context, *gworker.Job[any]) error { return errors.New("no") }),
				gworker.NewTask("adds", func(ctx context.Context, job *gworker.Job[any]) error {
					_, err := job.Client().AddJob(ctx, gworker.JobSpec{Task: "ok", Key: "k", Queue: "q"})
					return err
				}),
			},
		}
		if !hold {
			config.HoldTime = new(time.Duration)
		}
		for i := range 20 {
			add(t, g.admin, gworker.JobSpec{Task: "ok", Queue: []string{"", "q"}[i%2]})
		}
		add(t, g.admin, gworker.JobSpec{Task: "fails"})
		add(t, g.admin, gworker.JobSpec{Task: "adds"})
		w := start(t, config)
		waitFor(t, w.Events, func(e event.JobFailed) bool { return true })
		for limit := time.Now().Add(patience); g.one("select count(*)::text from #.jobs") != "1"; {
			if time.Now().After(limit) {
				t.Fatal("jobs are left: " + g.one(everything))
			}
		}
		if err := w.Stop(); err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		row := add(t, g.client, gworker.JobSpec{Task: "ok", Key: "k"})
		if _, err := g.client.CompleteJobs(ctx, []int64{row.ID}); err != nil {
			t.Error(err)
		}
		add(t, g.client, gworker.JobSpec{Task: "ok", Key: "k"})
		if _, err := g.client.RemoveJob(ctx, "k"); err != nil {
			t.Error(err)
		}
		if _, err := g.client.Sweep(ctx, gworker.SweepOptions{}); err != nil {
			t.Error(err)
		}
		if err := g.client.CheckSchema(ctx); err != nil {
			t.Error(err)
		}
		if err := g.admin.Migrate(ctx); err != nil {
			t.Error(err)
		}
	}
}

// aclOf is everything that is granted in the database, and all policies.
const aclOf = `select string_agg(line, E'\n' order by line) from (
	select c.relname || ' ' || a.grantee::regrole || ' ' || a.privilege_type as line
	from pg_class c, aclexplode(c.relacl) a where c.relnamespace = (select oid from pg_namespace where nspname like 'odd%') and a.grantee <> c.relowner
	union all
	select t.attname || ' ' || a.grantee::regrole || ' ' || a.privilege_type from pg_attribute t, aclexplode(t.attacl) a where a.grantee <> 0
	union all
	select n.nspname || ' ' || a.grantee::regrole || ' ' || a.privilege_type from pg_namespace n, aclexplode(n.nspacl) a
		where n.nspname like 'odd%' and a.grantee <> n.nspowner
	union all
	select p.proname || ' ' || a.grantee || ' ' || a.privilege_type from pg_proc p, aclexplode(p.proacl) a
		where p.pronamespace = (select oid from pg_namespace where nspname like 'odd%') and a.grantee not in (0, p.proowner)
	union all
	select polname::text from pg_policy
	union all select 'end'
) x`

func TestRevokeUndoesAGrant(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	kinds := []gworker.Rights{gworker.RightsProducer, gworker.RightsWorker, gworker.RightsReader}
	for _, kind := range kinds {
		g := grant(t, kind, gworker.GrantOptions{Payloads: kind == gworker.RightsReader})
		ctx := t.Context()
		given := g.one(aclOf)
		for _, other := range kinds {
			if other == kind {
				continue
			}
			if _, err := g.admin.Grant(ctx, other, g.role, gworker.GrantOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := g.admin.Revoke(ctx, other, g.role, gworker.GrantOptions{}); err != nil {
				t.Fatal(err)
			}
			if after := g.one(aclOf); after != given {
				t.Errorf("%s: before:\n%s\nafter granting and revoking %s:\n%s", kind, given, other, after)
			}
		}
		planned, err := g.admin.Revoke(ctx, kind, g.role, gworker.GrantOptions{DryRun: true})
		if err != nil || g.one(aclOf) != given {
			t.Errorf("a dry run has changed something, or failed: %v", err)
		}
		if _, err := g.owner.Exec(ctx, planned); err != nil { // it can be run
			t.Fatal(err)
		}
		if after := g.one(aclOf); after != "end" {
			t.Errorf("%s: left after revoking:\n%s", kind, after)
		}
		planned, err = g.admin.Grant(ctx, kind, g.role, gworker.GrantOptions{DryRun: true, Payloads: kind == gworker.RightsReader})
		if err != nil || g.one(aclOf) != "end" {
			t.Errorf("a dry run has changed something, or failed: %v", err)
		}
		if _, err := g.owner.Exec(ctx, planned); err != nil {
			t.Fatal(err)
		}
		if after := g.one(aclOf); after != given {
			t.Errorf("%s: granted:\n%s\nby the SQL of a dry run:\n%s", kind, given, after)
		}
	}
}

func TestGrantRefuses(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	owner := pool.Config().ConnConfig.User
	_, err := client.Grant(t.Context(), gworker.RightsReader, "no such role", gworker.GrantOptions{})
	testworker.WantFieldError(t, err, "role", "no such role")
	_, err = client.Grant(t.Context(), gworker.RightsReader, owner, gworker.GrantOptions{})
	testworker.WantFieldError(t, err, "role", "owns")
	_, err = client.Revoke(t.Context(), gworker.RightsWorker, owner, gworker.GrantOptions{})
	testworker.WantFieldError(t, err, "role", "owns")
	_, err = client.Grant(t.Context(), "god", owner, gworker.GrantOptions{})
	testworker.WantFieldError(t, err, "Rights", `"god"`)
	_, err = client.Grant(t.Context(), gworker.RightsWorker, owner, gworker.GrantOptions{Payloads: true})
	testworker.WantFieldError(t, err, "GrantOptions.Payloads", "readers")
	exec(t, pool, "drop schema graphile_worker cascade")
	if _, err = client.Grant(t.Context(), gworker.RightsReader, owner, gworker.GrantOptions{}); !errors.Is(err, gworker.ErrNotInstalled) {
		t.Errorf("without a schema: %v", err)
	}
}
