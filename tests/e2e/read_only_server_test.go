package e2e_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// TestClaimsOnAReadOnlyServerWait: where every connection that holds jobs fails at its
// first claim, the next ones wait, as after any failure. They followed one another as
// fast as the server let them, each on a new connection, and without a word.
func TestClaimsOnAReadOnlyServerWait(t *testing.T) {
	t.Parallel()
	owner := migrated(t)
	client := newClient(t, owner)
	var readOnly atomic.Bool
	config := owner.Config()
	config.MaxConns = 8
	config.ConnConfig.RuntimeParams["application_name"] = "of the worker"
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if !readOnly.Load() {
			return nil
		}
		_, err := conn.Exec(ctx, "set default_transaction_read_only = on")
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	held := make(chan struct{}, 100)
	w := start(t, gworker.Config{Pool: pool, NoMigrations: true, PollInterval: 500 * time.Millisecond, Tasks: []gworker.Task{
		gworker.NewRawTask("x", func(_ context.Context, job *gworker.RawJob) error {
			if !testworker.IsLocked(t, owner, job.ID) {
				held <- struct{}{}
			}
			return nil
		}),
	}})
	for len(held) == 0 {
		before := add(t, client, gworker.JobSpec{Task: "x"})
		waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == before.ID })
	}
	readOnly.Store(true)
	exec(t, owner, "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'of the worker'")
	add(t, client, gworker.JobSpec{Task: "x"})
	failed, started := count[event.ClaimFailed](w.Events), count[event.ClaimStarted](w.Events)
	for deadline := time.Now().Add(patience); count[event.ClaimFailed](w.Events) < failed+5; {
		if time.Now().After(deadline) {
			t.Fatalf("%d claims have failed", count[event.ClaimFailed](w.Events)-failed)
		}
		time.Sleep(10 * time.Millisecond)
	}
	failed, started = count[event.ClaimFailed](w.Events)-failed, count[event.ClaimStarted](w.Events)-started
	if started > 4*failed+8 {
		t.Errorf("%d claims have begun, of which %d have failed", started, failed)
	}
}

// TestServerThatBecomesReadOnlyIsLeft: as after a failover, the old primary still
// answers, and new connections reach the new one.
func TestServerThatBecomesReadOnlyIsLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	before, after, pool, failOver := twoServers(t)
	w := start(t, gworker.Config{
		Pool: pool, PollInterval: 50 * time.Millisecond, Recovery: testworker.FastRecovery,
		Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)},
	})
	waitFor[event.ListenerConnected](t, w.Events, nil)

	failOver()
	old := testdb.Pool(t, before.URL("postgres"))
	exec(t, old, "alter system set default_transaction_read_only = on")
	exec(t, old, "select pg_reload_conf()")
	job := add(t, newClient(t, testdb.Pool(t, after.URL("postgres"))), gworker.JobSpec{Task: "x"})
	done := waitFor[event.JobCompleted](t, w.Events, nil)
	if done.Job.ID != job.ID {
		t.Errorf("completed %+v", done.Job)
	}
	waitFor[event.ListenerLost](t, w.Events, nil)
	there := testdb.Pool(t, after.URL("postgres"))
	listening := func() bool {
		var n int
		scan(t, there, `select count(*) from pg_stat_activity where query like '%LISTEN "jobs:insert"%'
			and pid <> pg_backend_pid()`, nil, &n)
		return n > 0
	}
	for deadline := time.Now().Add(patience); !listening(); {
		if time.Now().After(deadline) {
			t.Fatal("the listener stays with the old server")
		}
	}
}

// twoServers are two servers with a queue each, and a pool whose new connections
// lead to the second one after failOver.
func twoServers(t *testing.T) (before, after *devpg.Server, pool *pgxpool.Pool, failOver func()) {
	t.Helper()
	before, after = testdb.PrivateServer(t), testdb.PrivateServer(t)
	for _, server := range []*devpg.Server{before, after} {
		if err := newClient(t, testdb.Pool(t, server.URL("postgres"))).Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	config, err := pgxpool.ParseConfig(before.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	new, err := pgxpool.ParseConfig(after.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	var failedOver atomic.Bool
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		if failedOver.Load() {
			c.Port = new.ConnConfig.Port
		}
		return nil
	}
	pool, err = pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return before, after, pool, func() { failedOver.Store(true) }
}

// TestHeldJobOfAServerThatBecomesReadOnly: its transaction is older than that, and
// so it is done there. The next claim is on the new server.
func TestHeldJobOfAServerThatBecomesReadOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	before, after, pool, failOver := twoServers(t)
	started, release := make(chan struct{}), make(chan struct{})
	old := testdb.Pool(t, before.URL("postgres"))
	locked := false // the job that ran last
	w := start(t, gworker.Config{
		Pool: pool, PollInterval: 50 * time.Millisecond, HoldTime: new(10 * time.Second), Recovery: testworker.FastRecovery,
		Tasks: []gworker.Task{gworker.NewTask("x", func(_ context.Context, job *gworker.Job[string]) error {
			if job.Payload == "held" {
				close(started)
				<-release
			}
			if job.Payload == "first" {
				locked = testworker.IsLocked(t, old, job.ID)
			}
			return nil
		})},
	})
	client := newClient(t, old)
	// The first job is locked, and so are all before there is a connection to hold.
	for patient, tries := time.Now().Add(patience), 0; tries == 0 || locked; tries++ {
		if time.Now().After(patient) {
			t.Fatal("no job was held")
		}
		first := add(t, client, gworker.JobSpec{Task: "x", Payload: "first"})
		waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == first.ID })
	}
	held := add(t, client, gworker.JobSpec{Task: "x", Payload: "held"})
	<-started
	if testworker.IsLocked(t, old, held.ID) {
		t.Error("the job is locked")
	}
	failOver()
	exec(t, old, "alter system set default_transaction_read_only = on")
	exec(t, old, "select pg_reload_conf()")
	for deadline, readOnly := time.Now().Add(patience), ""; readOnly != "on"; {
		if time.Now().After(deadline) {
			t.Fatal("the server does not become read-only")
		}
		scan(t, old, "show default_transaction_read_only", nil, &readOnly)
	}
	close(release)
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == held.ID && e.Job.Payload[1] == 'h' })
	if n := jobCount(t, old); n != 0 {
		t.Errorf("%d jobs are left on the old server", n)
	}
	add(t, newClient(t, testdb.Pool(t, after.URL("postgres"))), gworker.JobSpec{Task: "x", Payload: "new"})
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return string(e.Job.Payload) == `"new"` })
	if n := count[event.HoldLost](w.Events) + count[event.JobLost](w.Events); n != 0 {
		seen, _ := w.Events.Seen()
		t.Errorf("lost: %s", testworker.Describe(seen))
	}
}

// TestStartOnAServerThatIsStillReadOnly: a worker that starts in the middle of a
// failover waits for its end.
func TestStartOnAServerThatIsStillReadOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	server := testdb.PrivateServer(t)
	pool := testdb.Pool(t, server.URL("postgres"))
	exec(t, pool, "alter system set default_transaction_read_only = on")
	exec(t, pool, "select pg_reload_conf()")
	readOnly := func(want string) {
		for deadline := time.Now().Add(patience); ; {
			var got string
			scan(t, pool, "show default_transaction_read_only", nil, &got)
			if got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("read-only is %s", got)
			}
		}
	}
	readOnly("on")
	w := start(t, gworker.Config{DatabaseURL: server.URL("postgres"), Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	first := waitFor[event.DatabaseUnreachable](t, w.Events, nil)
	if text := first.Err.Error(); !strings.Contains(text, "default_transaction_read_only is on") || !strings.Contains(text, "target_session_attrs") {
		t.Errorf("the first message says %s", text)
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, sql := range []string{"set default_transaction_read_only = off", "alter system reset default_transaction_read_only", "select pg_reload_conf()"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	waitFor[event.WorkerStarted](t, w.Events, nil)
}
