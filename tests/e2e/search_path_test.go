package e2e_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// TestTrapsInTheSearchPath: a role that owns nothing, in whose search path others have
// made operators that match better than pg_catalog's, adds, runs, sweeps and administers
// without calling one of them.
func TestTrapsInTheSearchPath(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	url := testdb.Migrated(t)
	owner := testdb.Pool(t, url)
	exec(t, owner, testdb.Traps)
	role := "gworker_test_" + strings.ToLower(rand.Text()[:10])
	exec(t, owner, "create role "+role+" login")
	t.Cleanup(func() {
		if _, err := owner.Exec(context.Background(), "drop owned by "+role+"; drop role "+role); err != nil {
			t.Error(err)
		}
	})
	exec(t, owner, "grant usage on schema trap to "+role)
	// The one who grants has the traps before pg_catalog.
	granter := poolWith(t, url, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["search_path"] = "trap, pg_catalog, public" })
	for _, given := range []gworker.Rights{gworker.RightsProducer, gworker.RightsReader, gworker.RightsWorker} {
		if _, err := newClient(t, granter).Grant(t.Context(), given, role, gworker.GrantOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var caught string
	scan(t, owner, `select coalesce(string_agg(policyname || ': ' || concat(qual, with_check), ', '), '') from pg_policies where concat(qual, with_check) like '%trap.%'`,
		nil, &caught)
	if caught != "" {
		t.Errorf("policies call what others have made: %s", caught)
	}
	exec(t, owner, "alter role "+role+" set search_path = trap, public")

	pool := poolWith(t, url, func(c *pgxpool.Config) { c.ConnConfig.User = role })
	var found string
	if err := pool.QueryRow(t.Context(), "select 'a'::text || 1::bigint::float8").Scan(&found); err == nil || !strings.Contains(err.Error(), "trapped") {
		t.Fatalf("the traps do not work: %q, %v", found, err)
	}

	for name, hold := range map[string]time.Duration{"locked": 0, "held": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) { runAmongTraps(t, owner, pool, hold) })
	}
}

// TestMigrationAmongTraps: no default, constraint, index, policy or function argument of
// the schema depends on what others had made in the search path of the one who migrated.
func TestMigrationAmongTraps(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	url := testdb.Empty(t)
	owner := testdb.Pool(t, url)
	exec(t, owner, testdb.Traps)
	pool := poolWith(t, url, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["search_path"] = "trap, public" })
	if err := newClient(t, pool).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var caught string
	scan(t, owner, `select coalesce(string_agg(distinct pg_describe_object(d.classid, d.objid, d.objsubid), ', '), '') from pg_depend d
		where (d.refclassid, d.refobjid) in (
			select 'pg_operator'::regclass, oid from pg_operator where oprnamespace = 'trap'::regnamespace
			union all select 'pg_proc'::regclass, oid from pg_proc where pronamespace = 'trap'::regnamespace)
		and d.classid <> 'pg_operator'::regclass`, nil, &caught)
	if caught != "" {
		t.Errorf("these depend on what others have made: %s", caught)
	}
}

func poolWith(t *testing.T, url string, change func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	change(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func runAmongTraps(t *testing.T, owner, pool *pgxpool.Pool, hold time.Duration) {
	client := newClient(t, pool)
	ok := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	later := time.Now().Add(time.Hour)
	spare := add(t, client, gworker.JobSpec{Task: "x", RunAt: later})
	for _, mode := range []gworker.KeyMode{gworker.KeyReplace, gworker.KeyPreserveRunAt, gworker.KeyUnsafeDedupe} {
		for range 2 {
			add(t, client, gworker.JobSpec{Task: "x", Key: "k" + string(mode), KeyMode: mode, Queue: "q", Flags: []string{"f"}})
		}
	}
	specs := []gworker.JobSpec{{Task: "x"}, {Task: "x", Queue: "q", Key: "many"}, {Task: "fails"}, {Task: "fails", MaxAttempts: 1}, {Task: "snoozes"}, {Task: "cancels"}}
	ok(client.AddJobs(t.Context(), specs))
	ok(client.AddJobs(t.Context(), specs))
	exec(t, pool, "select graphile_worker.add_job('x', '[1]', 'q', now(), 3, 'sql', 1, array['f'])")
	exec(t, pool, `select graphile_worker.add_jobs(array[('x', '[1]', 'q', null, null, 'sqls', null, null), ('x', null, null, null, null, null, null, array['g'])]::graphile_worker.job_spec[], true)`)
	exec(t, owner, `with w as (insert into graphile_worker._private_workers (id, last_heartbeat_at) values ('gworker_dead', now() - interval '1 hour'))
		update graphile_worker._private_jobs set locked_by = 'gworker_dead', locked_at = now() - interval '10 minutes', attempts = 1
		where id = (select min(id) from graphile_worker._private_jobs where key is null and id <> $1)`, spare.ID)
	ok(client.Sweep(t.Context(), gworker.SweepOptions{DryRun: true}))
	swept, err := client.Sweep(t.Context(), gworker.SweepOptions{})
	ok(swept, err)
	exec(t, owner, "update graphile_worker._private_jobs set run_at = now() where locked_at is null and id <> $1", spare.ID)

	config := gworker.Config{
		Pool: pool, HoldTime: &hold,
		Tasks: append(testworker.SQLTasks(t, map[string]string{"sql": "select 1"}),
			gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error { return nil }),
			gworker.NewRawTask("fails", func(context.Context, *gworker.RawJob) error { return errors.New("not today") }),
			gworker.NewRawTask("snoozes", func(context.Context, *gworker.RawJob) error { return gworker.Snooze(time.Hour) }),
			gworker.NewRawTask("cancels", func(context.Context, *gworker.RawJob) error { return gworker.Discard(errors.New("never")) }),
			gworker.NewRawTask("tick", func(context.Context, *gworker.RawJob) error { return nil })),
		Cron: gworker.CronConfig{Crontab: "* * * * * tick ?id=traps&fill=2m"},
	}
	if hold == 0 { // held jobs cannot have them
		config.ForbiddenFlags = []string{"g"}
	}
	add(t, client, gworker.JobSpec{Task: "sql"})
	exec(t, owner, `insert into graphile_worker._private_known_crontabs (identifier, known_since) values ('traps', now() - interval '1 hour')
		on conflict (identifier) do update set known_since = excluded.known_since, last_execution = null`)
	w := start(t, config)
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.Task == "tick" })
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.Task == "sql" })
	testworker.WaitForN[event.JobFailed](t, w.Events, 2, nil)
	ok(client.Cancel(t.Context(), spare.ID, "no"))
	add(t, client, gworker.JobSpec{Task: "x", Key: "heard"})
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.Key == "heard" })
	ok(nil, w.Stop())
	seen, _ := w.Events.Seen()
	for _, e := range seen {
		if text := fmt.Sprintf("%+v", e); strings.Contains(text, "trapped") {
			t.Errorf("%T: %s", e, text)
		}
	}

	priority := 3
	a, b, c := add(t, client, gworker.JobSpec{Task: "x", Key: "a"}), add(t, client, gworker.JobSpec{Task: "x"}), add(t, client, gworker.JobSpec{Task: "x", Queue: "r"})
	ok(client.RescheduleJobs(t.Context(), []int64{a.ID, b.ID}, gworker.RescheduleOptions{RunAt: &later, Priority: &priority}))
	ok(client.PermanentlyFailJobs(t.Context(), []int64{b.ID}, "no"))
	ok(client.RetryJobs(t.Context(), []int64{b.ID}))
	ok(client.PreviewJobs(t.Context(), []int64{b.ID}))
	ok(client.GetJob(t.Context(), a.ID))
	ok(client.GetJobByKey(t.Context(), "a"))
	ok(client.ListJobs(t.Context(), gworker.JobFilter{}))
	ok(client.Stats(t.Context(), gworker.StatsOptions{}))
	ok(client.Queues(t.Context(), gworker.QueueFilter{}))
	ok(client.Workers(t.Context()))
	ok(client.LockedBy(t.Context(), []string{"nobody"}))
	ok(client.ForceUnlockWorkers(t.Context(), []string{"nobody"}))
	ok(client.CompleteJobs(t.Context(), []int64{c.ID}))
	ok(client.RemoveJob(t.Context(), "a"))
	exec(t, pool, "select graphile_worker.remove_job('heard')")
	ok(client.Cleanup(t.Context(), gworker.CleanupOptions{Tasks: []gworker.CleanupTask{
		gworker.GCTaskIdentifiers, gworker.GCJobQueues, gworker.DeletePermafailedJobs,
	}}))
	report, err := client.Doctor(t.Context())
	ok(report, err)
	for _, f := range report.Findings {
		if strings.Contains(f.What, "trapped") {
			t.Errorf("%+v", f)
		}
	}
	testworker.NoLocks(t, owner)
	exec(t, owner, "delete from graphile_worker._private_jobs")
}
