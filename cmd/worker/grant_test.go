package main

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/testdb"
)

// role is the name of the role of a test's database.
func role(t *testing.T, database, kind string) string {
	t.Helper()
	at, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	return kind + " of " + strings.Trim(at.Path, "/")
}

// granted gives a role rights by the command, and returns how to run others as it.
func granted(t *testing.T, kind string, options ...string) (as func(args ...string) result, database string) {
	t.Helper()
	database = testdb.Migrated(t)
	pool := testdb.Pool(t, database)
	role := role(t, database, kind)
	do := func(ctx context.Context, sql string) {
		if _, err := pool.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	quoted := pgx.Identifier{role}.Sanitize()
	do(t.Context(), "create role "+quoted+" login")
	t.Cleanup(func() { do(context.Background(), "drop owned by "+quoted+"; drop role "+quoted) })
	do(t.Context(), `select graphile_worker.add_job('send', '{"secret":7}', 'q', job_key := 'k')`)

	dry := worker(t, "", append([]string{"grant", kind, role, "--dry-run", "-c", database}, options...)...)
	dry.want(t, 0, "grant usage on schema graphile_worker to "+quoted, "create policy")
	for range 2 {
		worker(t, "", append([]string{"grant", kind, role, "-c", database}, options...)...).want(t, 0, "granted the rights of a "+kind, role)
	}
	at, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	at.User = url.User(role)
	return func(args ...string) result { return worker(t, "", append(args, "-c", at.String())...) }, database
}

func TestGrantedProducer(t *testing.T) {
	as, database := granted(t, "producer")
	as("add", "mail", "--payload", "{}", "--key", "mine").want(t, 0)
	as("add", "mail", "--payload", "[1]", "--key", "k").want(t, 0)
	for _, args := range [][]string{
		{"list"}, {"show", "1"}, {"stats"}, {"queues"}, {"workers"}, {"complete", "1"}, {"remove", "mine"}, {"sweep"},
		{"force-unlock", "w"}, {"grant", "reader", role(t, database, "producer")}, {"revoke", "producer", role(t, database, "producer")},
	} {
		if r := as(args...); r.status != 1 || !strings.Contains(r.err, "(SQLSTATE 42501)") || r.out != "" {
			t.Errorf("%s: status %d\n%s%s", args, r.status, r.out, r.err)
		}
	}
	as("run", "--once", "--tasks", tasksDir(t, map[string]string{"mail.sql": "select 1"})).want(t, 1, "row level security")
	worker(t, "", "list", "-c", database).want(t, 0, "mail")
}

func TestGrantedReader(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	as, _ := granted(t, "reader")
	as("list").want(t, 0, "send")
	as("show", "1").want(t, 0, "send")
	as("show", "--key", "k").want(t, 0, "send")
	as("list", "--json").want(t, 0, "send")
	as("list", "--payload").want(t, 1, "permission denied")
	as("stats").want(t, 0, "send")
	as("queues").want(t, 0, "q")
	as("workers").want(t, 0)
	as("doctor").want(t, 1, "lacks rights")
	as("add", "x").want(t, 1, "permission denied")
	as("complete", "1").want(t, 1, "permission denied")
	for _, r := range []result{as("list"), as("show", "1"), as("list", "--json"), as("stats")} {
		if strings.Contains(r.out+r.err, "secret") || strings.Contains(r.err, "row level") {
			t.Errorf("%s%s", r.out, r.err)
		}
	}
	as, _ = granted(t, "reader", "--payloads")
	as("list", "--payload").want(t, 0, "secret")
	as("show", "1").want(t, 0, "secret")
}

func TestGrantedWorker(t *testing.T) {
	as, database := granted(t, "worker")
	dir := tasksDir(t, map[string]string{"send.sql": "select 1"})
	if err := os.WriteFile(filepath.Join(dir, "crontab"), []byte("* * * * * send ?fill=1m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	as("run", "--once", "--tasks", dir).want(t, 0)
	worker(t, "", "list", "-c", database).want(t, 0, "no jobs")
	as("migrate").want(t, 0)
	as("doctor").want(t, 0)
	as("sweep").want(t, 0)
	as("add", "send").want(t, 0)
	as("cleanup").want(t, 0)
}

func TestGrantAndRevokeRefuse(t *testing.T) {
	database := testdb.Migrated(t)
	for _, args := range [][]string{
		{"grant"}, {"grant", "producer"}, {"grant", "boss", "postgres"}, {"grant", "producer", "no such role"},
		{"revoke", "worker", "no such role"}, {"grant", "worker", "no such role", "--payloads"}, {"revoke", "reader", "x", "--payloads"},
		{"grant", "producer", ""}, {"grant", "worker", "a", "b"},
	} {
		r := worker(t, "", append(args, "-c", database)...)
		if r.status != 2 || strings.Count(r.err, "\n") != 1 || r.out != "" {
			t.Errorf("%q: status %d\n%s%s", args, r.status, r.out, r.err)
		}
	}
	worker(t, "", "grant", "worker", "no such role", "-c", database).want(t, 2, `the role is "no such role"`)
}
