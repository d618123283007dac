package gworkertest_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/gworkertest"
	"github.com/gworker/gworker/internal/testdb"
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func query(t *testing.T, conn *pgx.Conn, sql string, args ...any) (found string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&found); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return found
}

func TestEachTestHasADatabaseThatGoesWithIt(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	mine := connect(t, gworkertest.Database(t))
	var name string
	t.Run("another", func(t *testing.T) {
		pool := gworkertest.Pool(t)
		add(t, client(t, gworker.ClientConfig{Pool: pool}), gworker.JobSpec{Task: "x"})
		name = pool.Config().ConnConfig.Database
		if n := query(t, mine, "select count(*)::text from pg_database where datname = $1", name); n != "1" {
			t.Errorf("%s databases during the test", n)
		}
	})
	if n := query(t, mine, "select count(*)::text from pg_database where datname = $1", name); n != "0" {
		t.Errorf("database %s is left", name)
	}
	if n := query(t, mine, "select count(*)::text from graphile_worker.jobs"); n != "0" {
		t.Errorf("%s jobs of another test", n)
	}
}

// The tests' server runs statements as the user who tests: it is not for others.
func TestServerIsOutOfReachForOtherAccounts(t *testing.T) {
	conn := connect(t, gworkertest.Database(t))
	if os.Getenv("DATABASE_URL")+os.Getenv("GWORKER_TEST_DATABASE_URL") != "" || runtime.GOOS == "windows" {
		t.Skip("not a server of these tests")
	}
	if listens := query(t, conn, "show listen_addresses"); listens != "" {
		t.Errorf("it listens on %s", listens)
	}
	dir := strings.Trim(query(t, conn, "show unix_socket_directories"), `"`)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the socket is in %s: %v (%v)", dir, info, err)
	}
}

func TestDatabaseIsDroppedUnderConnections(t *testing.T) {
	var held *pgx.Conn
	t.Run("holds on", func(t *testing.T) {
		var err error
		if held, err = pgx.Connect(t.Context(), gworkertest.Database(t)); err != nil {
			t.Fatal(err)
		}
	})
	defer held.Close(t.Context())
	if _, err := held.Exec(t.Context(), "select 1"); err == nil {
		t.Error("the database is still there")
	}
}

func TestTemplate(t *testing.T) {
	var times atomic.Int32
	template := gworkertest.Template{Schema: "my queue", Setup: func(ctx context.Context, url string) error {
		times.Add(1)
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, `create table orders (id int); insert into orders values (7); select "my queue".add_job('x')`)
		return err
	}}
	for range 3 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			pool := template.Pool(t)
			var orders, jobs int
			err := pool.QueryRow(t.Context(), `select (select count(*) from orders), (select count(*) from "my queue".jobs)`).Scan(&orders, &jobs)
			if err != nil || orders != 1 || jobs != 1 {
				t.Errorf("%d orders, %d jobs, %v", orders, jobs, err)
			}
			if _, err := pool.Exec(t.Context(), "insert into orders values (8)"); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		if n := times.Load(); n != 1 && os.Getenv("DATABASE_URL") == "" {
			t.Errorf("Setup ran %d times", n)
		}
	})
}

func TestTemplateThatCannotBeMade(t *testing.T) {
	template := gworkertest.Template{Setup: func(context.Context, string) error { return errors.New("no tables today") }}
	for range 2 { // also the second test says why
		wantFailure(t, func(t testing.TB) { template.Database(t) }, "Template.Setup: no tables today")
	}
	wantFailure(t, func(t testing.TB) { (&gworkertest.Template{Schema: strings.Repeat("x", 99)}).Database(t) }, "Schema")
}

func TestConnectionsThatAreNotGivenBack(t *testing.T) {
	defer gworkertest.Impatient(10 * time.Millisecond)()
	release := func() {}
	wantFailure(t, func(t testing.TB) {
		conn, err := gworkertest.Pool(t).Acquire(context.Background())
		if err != nil {
			t.Fatalf("%v", err)
		}
		release = conn.Release
	}, "1 connections of the test's pool are still in use", "a transaction was not ended")
	release()
}

// TestAsUser is what the processes of the next tests run.
func TestAsUser(t *testing.T) {
	if os.Getenv(asUser) == "" {
		t.Skip("for other tests")
	}
	worker := gworkertest.StartWorker(t, gworker.Config{Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	if r := worker.WaitJob(t.Context(), add(t, worker.Client(), gworker.JobSpec{Task: "x"}).ID); r.Outcome != gworkertest.Completed {
		t.Error(r)
	}
	var dir string
	if err := gworkertest.Pool(t).QueryRow(t.Context(), "select current_setting('data_directory')").Scan(&dir); err != nil {
		t.Log(err) // only a superuser may ask
	}
	fmt.Println("data directory:", dir)
}

// runAsUser runs TestAsUser in a process with these variables.
func runAsUser(t *testing.T, env ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAsUser$", "-test.v")
	cmd.Env = append(os.Environ(), asUser+"=1", "DATABASE_URL=", "GWORKER_TEST_DATABASE_URL=")
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestServerGoesWithAProcessWithoutTestMain(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	// DATABASE_URL names a server that is not there: "local" goes before it.
	out, err := runAsUser(t, "DATABASE_URL=postgres://127.0.0.1:1/none", "GWORKER_TEST_DATABASE_URL=local")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, rest, found := strings.Cut(out, "data directory: ")
	dir, _, _ := strings.Cut(rest, "\n")
	if !found || !strings.HasSuffix(dir, "pgdata") {
		t.Fatalf("no data directory in:\n%s", out)
	}
	deadline := time.Now().Add(time.Minute)
	for ; ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Dir(dir)); errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is left", filepath.Dir(dir))
		}
	}
}

func TestServerThatRunsAlready(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	server := testdb.PrivateServer(t)
	admin := connect(t, server.URL("postgres"))
	before := query(t, admin, "select string_agg(datname, ',' order by oid) from pg_database")
	if _, err := admin.Exec(t.Context(), "create role maker login createdb; create role poor login"); err != nil {
		t.Fatal(err)
	}
	as := func(role string) string {
		u, err := url.Parse(server.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(role, "secret")
		return u.String()
	}
	if out, err := runAsUser(t, "DATABASE_URL="+as("maker")+"&pool_max_conns=7"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// The other variable goes first.
	if out, err := runAsUser(t, "DATABASE_URL=postgres://127.0.0.1:1/none", "GWORKER_TEST_DATABASE_URL="+as("maker")); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for name, c := range map[string]struct{ env, says string }{
		"no right":  {"DATABASE_URL=" + as("poor"), "the role that DATABASE_URL names must be allowed"},
		"no server": {"GWORKER_TEST_DATABASE_URL=postgres://me:secret@127.0.0.1:1/none", "GWORKER_TEST_DATABASE_URL names a server that cannot be used"},
		"no URL":    {"DATABASE_URL=postgres://me:secret@[/x", "cannot be used"},
	} {
		out, err := runAsUser(t, c.env)
		if err == nil || !strings.Contains(out, c.says) || !strings.Contains(out, `"local"`) || strings.Contains(out, "secret") {
			t.Errorf("%s: %v, and it says\n%s", name, err, out)
		}
	}
	if after := query(t, admin, "select string_agg(datname, ',' order by oid) from pg_database"); after != before {
		t.Errorf("databases before: %s, after: %s", before, after)
	}
}
