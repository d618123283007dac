package e2e_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// connected waits until the listener has connected for the nth time.
func connected(t *testing.T, e *testworker.Events, n int) {
	t.Helper()
	for patient := time.After(patience); count[event.ListenerConnected](e) < n; {
		_, change := e.Seen()
		select {
		case <-change:
		case <-patient:
			t.Fatalf("the listener has connected %d times", count[event.ListenerConnected](e))
		}
	}
}

// All connections of an idle worker die without a word, as in a firewall that forgets
// them. The next poll finds that out, and then they are all left, whatever their own
// time-outs are: 30 s for a statement, and for the listener.
func TestSilentConnectionsOfAnIdleWorkerAreLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	inOneOfThreeTries(t, idleWorkerLeavesSilence)
}

// inOneOfThreeTries fails the test unless a worker was itself again within 25 s, which is
// less than any time-out of a statement or of the listener. A busy machine only adds to
// the time: so one of three tries is enough.
func inOneOfThreeTries(t *testing.T, try func(*testing.T) time.Duration) {
	t.Helper()
	var took time.Duration
	for range 3 {
		if took = try(t); took <= 25*time.Second {
			return
		}
	}
	t.Errorf("it took %s until the worker was itself again", took)
}

// idleWorkerLeavesSilence freezes the connections of a worker that waits, and returns how
// long it takes until it has done a job on others, listens and writes heartbeats.
func idleWorkerLeavesSilence(t *testing.T) time.Duration {
	t.Helper()
	w := behindProxy(t, gworker.Config{Tasks: []gworker.Task{gworker.NewTask("x", noop)}}, false)
	defer w.Stop()
	client := newClient(t, w.direct)
	add(t, client, gworker.JobSpec{Task: "x"})
	waitFor[event.JobCompleted](t, w.Events, nil)
	beat := func() (at time.Time) {
		scan(t, w.direct, "select last_heartbeat_at from graphile_worker._private_workers where id = $1", []any{w.ID()}, &at)
		return at
	}
	w.proxy.Freeze()
	began, before := time.Now(), beat()
	second := add(t, client, gworker.JobSpec{Task: "x"})
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == second.ID })
	connected(t, w.Events, 2)
	for patient := time.After(patience); !beat().After(before); {
		select {
		case <-patient:
			t.Fatal("there is no heartbeat")
		case <-time.After(10 * time.Millisecond):
		}
	}
	return time.Since(began)
}

// The connections of a busy worker lead nowhere from one moment on, as after a
// failover from a frozen server. Once a statement has timed out, nothing else waits.
func TestSilentConnectionsOfABusyWorkerAreLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for name, hold := range map[string]*time.Duration{"held": nil, "locked": new(time.Duration)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inOneOfThreeTries(t, func(t *testing.T) time.Duration { return busyWorkerLeavesSilence(t, hold) })
		})
	}
}

// busyWorkerLeavesSilence freezes the connections of a worker while it works, and
// returns how long it takes until the worker has done its jobs on others.
func busyWorkerLeavesSilence(t *testing.T, hold *time.Duration) time.Duration {
	t.Helper()
	var done atomic.Int64
	half := make(chan struct{})
	const jobs = 2000
	w := behindProxy(t, gworker.Config{
		StatementTimeout: 2 * time.Second, HoldTime: hold, Concurrency: 4, PollInterval: 100 * time.Millisecond,
		Tasks: []gworker.Task{gworker.NewTask("x", func(context.Context, *gworker.Job[any]) error {
			if done.Add(1) == jobs/4 {
				close(half)
			}
			time.Sleep(time.Millisecond)
			return nil
		})},
	}, false)
	specs := make([]gworker.JobSpec, jobs)
	for i := range specs {
		specs[i].Task = "x"
	}
	if _, err := newClient(t, w.direct).AddJobs(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	<-half
	w.proxy.Freeze()
	began := time.Now()
	connected(t, w.Events, 2)
	for patient := time.Now().Add(patience); jobCount(t, w.direct) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(patient) {
			t.Fatalf("%d jobs are left", jobCount(t, w.direct))
		}
	}
	return time.Since(began)
}

// Extra connections of a given pool are made as its own are.
func TestExtraConnectionsAreMadeAsThoseOfAGivenPool(t *testing.T) {
	t.Parallel()
	database := testdb.Migrated(t)
	admin := testdb.Pool(t, database)
	// Of the login role's own rights none lets it see the schema.
	role := "beside_" + time.Now().Format("150405.000000000")
	login := pgx.Identifier{role + "_login"}.Sanitize()
	role = pgx.Identifier{role}.Sanitize()
	exec(t, admin, "create role "+role)
	exec(t, admin, "create role "+login+" login noinherit in role "+role)
	t.Cleanup(func() {
		for _, r := range []string{login, role} {
			if _, err := admin.Exec(context.Background(), "drop owned by "+r+"; drop role "+r); err != nil {
				t.Error(err)
			}
		}
	})
	exec(t, admin, "grant usage on schema graphile_worker to "+role)
	exec(t, admin, "grant all on all tables in schema graphile_worker to "+role)
	exec(t, admin, "grant all on all sequences in schema graphile_worker to "+role)
	exec(t, admin, "grant execute on all functions in schema graphile_worker to "+role)
	for _, rls := range []string{"jobs", "job_queues", "tasks", "known_crontabs", "workers"} {
		exec(t, admin, "alter table graphile_worker._private_"+rls+" disable row level security")
	}
	setRole := func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "set role "+role)
		return err
	}
	for name, change := range map[string]func(*pgxpool.Config){
		"AfterConnect": func(c *pgxpool.Config) { c.AfterConnect = setRole },
		"PrepareConn": func(c *pgxpool.Config) {
			c.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) { return true, setRole(ctx, conn) }
		},
		"BeforeAcquire": func(c *pgxpool.Config) {
			//lint:ignore SA1019 pools of callers may still have it
			c.BeforeAcquire = func(ctx context.Context, conn *pgx.Conn) bool { return setRole(ctx, conn) == nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := pgxpool.ParseConfig(database)
			if err != nil {
				t.Fatal(err)
			}
			config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
				c.User, c.Password = login[1:len(login)-1], ""
				return nil
			}
			change(config)
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			w := start(t, gworker.Config{
				Pool: pool, Tasks: []gworker.Task{gworker.NewTask("x", noop)}, NoMigrations: true,
				Recovery: gworker.RecoveryConfig{HeartbeatInterval: 50 * time.Millisecond},
			})
			waitFor[event.ListenerConnected](t, w.Events, nil)
			job := add(t, newClient(t, admin), gworker.JobSpec{Task: "x"})
			waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
			if err := w.Stop(); err != nil {
				t.Errorf("Run: %v", err)
			}
			if n := count[event.HeartbeatFailed](w.Events) + count[event.ClaimFailed](w.Events) + count[event.ListenerLost](w.Events); n > 0 {
				seen, _ := w.Events.Seen()
				t.Errorf("%d failures: %s", n, testworker.Describe(seen))
			}
		})
	}
}

// A listener of its own, too.
func TestListenerIsMadeAsTheConnectionsOfItsPool(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(testdb.Migrated(t))
	if err != nil {
		t.Fatal(err)
	}
	prepared := make(chan struct{}, 10)
	config.AfterConnect = func(context.Context, *pgx.Conn) error {
		prepared <- struct{}{}
		return nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	l, err := gworker.NewListener(gworker.ListenerConfig{Pool: pool, Channels: []string{"c"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_ = l.Run(ctx, func(context.Context, gworker.ListenerBatch) { cancel() })
	select {
	case <-prepared:
	default:
		t.Error("AfterConnect was not called")
	}
}
