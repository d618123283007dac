//go:build unix

package poolers_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

const queueDatabase = "queue"

// server starts one on data that may be there already.
func server(t *testing.T, dir string, settings map[string]string) *devpg.Server {
	t.Helper()
	s, err := devpg.Start(t.Context(), devpg.Options{DataDir: dir, Fast: true, IgnoreEnvironment: true, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// makeStandby makes the data in dir that of a standby.
func makeStandby(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "pgdata", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func conninfo(t *testing.T, s *devpg.Server) string {
	t.Helper()
	u, err := url.Parse(s.URL(queueDatabase))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("host=%s port=%s user=%s sslmode=disable", u.Hostname(), u.Port(), u.User.Username())
}

// either is a connection string with two servers in it, of which it takes the
// one that can be written to.
func either(t *testing.T, first, second *devpg.Server, name string) string {
	t.Helper()
	a, err := url.Parse(first.URL(queueDatabase))
	if err != nil {
		t.Fatal(err)
	}
	b, err := url.Parse(second.URL(queueDatabase))
	if err != nil {
		t.Fatal(err)
	}
	a.Host += "," + b.Host
	q := a.Query()
	q.Set("target_session_attrs", "read-write")
	q.Set("application_name", name)
	a.RawQuery = q.Encode()
	return a.String()
}

// sessions counts the connections of a name on a server.
func sessions(t *testing.T, pool *pgxpool.Pool, name string) (all, listening int) {
	t.Helper()
	err := pool.QueryRow(t.Context(), `select count(*), count(*) filter (where query like 'LISTEN%' or query = '-- ping')
		from pg_stat_activity where application_name = $1`, name).Scan(&all, &listening)
	if err != nil {
		t.Fatal(err)
	}
	return all, listening
}

// Worker, client, listener and heartbeat are all on the primary, whichever of the
// servers in the connection string that is, also after the standby was promoted
// and the old primary has come back as a standby.
func TestSeveralHosts(t *testing.T) {
	t.Parallel()
	dir1, dir2 := testdb.OpenDir(t), testdb.OpenDir(t)
	first := server(t, dir1, nil)
	admin := testdb.Pool(t, first.URL("postgres"))
	testdb.Exec(t, admin, "create database "+queueDatabase)
	admin.Close()
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := osexec.Command("cp", "-a", filepath.Join(dir1, "pgdata"), dir2).CombinedOutput(); err != nil {
		t.Fatalf("copying the data: %v: %s", err, out)
	}
	if err := first.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	makeStandby(t, dir2)
	second := server(t, dir2, map[string]string{"primary_conninfo": conninfo(t, first)})
	onFirst, onSecond := testdb.Pool(t, first.URL(queueDatabase)), testdb.Pool(t, second.URL(queueDatabase))

	// The standby comes first in the connection string.
	const name = "two-hosts"
	database := either(t, second, first, name)
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: database})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := testworker.Start(t, gworker.Config{
		DatabaseURL: database, Tasks: []gworker.Task{gworker.NewTask("t", noop)}, PollInterval: 200 * time.Millisecond,
		Recovery: gworker.RecoveryConfig{HeartbeatInterval: 100 * time.Millisecond},
	})
	testworker.WaitForN[event.ListenerConnected](t, w.Events, 1, nil)
	testworker.Add(t, client, gworker.JobSpec{Task: "t"})
	testworker.WaitForN[event.JobCompleted](t, w.Events, 1, nil)
	beat := `select last_heartbeat_at from graphile_worker._private_workers where id = $1`
	wantAllOn := func(what string, primary, standby *pgxpool.Pool) {
		t.Helper()
		until(t, what+": the listener on the primary", func() (bool, error) {
			all, listening := sessions(t, primary, name)
			// The pool, the listener and the heartbeat.
			return all >= 3 && listening == 1, nil
		})
		before := one[time.Time](t, primary, beat, w.ID())
		until(t, what+": a heartbeat on the primary", func() (bool, error) {
			return one[time.Time](t, primary, beat, w.ID()).After(before), nil
		})
		if all, _ := sessions(t, standby, name); all != 0 {
			t.Errorf("%s: %d connections to the standby", what, all)
		}
	}
	wantAllOn("before", onFirst, onSecond)

	// What is written before the primary stops is on the standby.
	until(t, "the standby to follow", func() (bool, error) {
		var follows bool
		err := onFirst.QueryRow(t.Context(), "select count(*) > 0 from pg_stat_replication where state = 'streaming'").Scan(&follows)
		return follows, err
	})
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !one[bool](t, onSecond, "select pg_promote(true, 60)") {
		t.Fatal("the standby was not promoted in time")
	}
	addAfter := func(key string) {
		t.Helper()
		until(t, "a job to be added", func() (bool, error) {
			_, err := client.AddJob(t.Context(), gworker.JobSpec{Task: "t", Key: key})
			return err == nil, err
		})
	}
	addAfter("after the promotion")
	testworker.WaitForN[event.JobCompleted](t, w.Events, 2, nil)

	// The old primary comes back as a standby, and the connections break once
	// more: the old address answers again.
	makeStandby(t, dir1)
	if err := first.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	onFirst.Reset() // its own connections broke too
	wantAllOn("after the promotion", onSecond, onFirst)
	connected := len(testworker.Seen[event.ListenerConnected](w.Events))
	testdb.Exec(t, onSecond, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1", name)
	addAfter("after broken connections")
	testworker.WaitForN[event.JobCompleted](t, w.Events, 3, nil)
	testworker.WaitForN[event.ListenerConnected](t, w.Events, connected+1, nil)
	wantAllOn("after broken connections", onSecond, onFirst)

	// The standby is first in this order again.
	other, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: either(t, first, second, "other-order")})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	testworker.Add(t, other, gworker.JobSpec{Task: "t"})
	testworker.WaitForN[event.JobCompleted](t, w.Events, 4, nil)
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}
