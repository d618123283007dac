//go:build unix

package poolers_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testbouncer"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

func noop(context.Context, *gworker.Job[any]) error { return nil }

// named gives the connections of a URL a name that pg_stat_activity shows.
func named(t *testing.T, database, name string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("application_name", name)
	u.RawQuery = q.Encode()
	return u.String()
}

// unreachable is the database at an address where nobody listens.
func unreachable(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.Host = l.Addr().String()
	_ = l.Close()
	return u.String()
}

// Jobs start by notification alone, and the heartbeat does not wait for the pooler, all of
// whose connections are taken by others.
func TestListenerAndHeartbeatGoPastThePooler(t *testing.T) {
	t.Parallel()
	s := behind(t, testdb.Migrated(t))
	ran := make(chan struct{}, 1)
	config := s.config(gworker.NewTask("t", func(context.Context, *gworker.Job[any]) error {
		ran <- struct{}{}
		return nil
	}))
	config.ListenDatabaseURL = named(t, s.direct, "past-the-pooler")
	config.PollInterval = never
	config.Recovery.HeartbeatInterval = 100 * time.Millisecond
	w := testworker.Start(t, config)
	testworker.WaitForN[event.ListenerConnected](t, w.Events, 1, nil)
	testworker.Add(t, s.client(t), gworker.JobSpec{Task: "t"})
	select {
	case <-ran:
	case <-time.After(patience):
		t.Fatal("the notification did not arrive")
	}
	testworker.WaitForN[event.JobCompleted](t, w.Events, 1, nil)
	if n := one[int](t, s.pool, "select count(*) from pg_stat_activity where application_name = 'past-the-pooler'"); n != 2 {
		t.Errorf("%d connections lead past the pooler, want those of the listener and the heartbeat", n)
	}

	occupier := s.through(t)
	for range 4 {
		tx, err := occupier.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		if _, err := tx.Exec(t.Context(), "select 1"); err != nil {
			t.Fatal(err)
		}
	}
	beat := `select last_heartbeat_at from graphile_worker._private_workers where id = $1`
	before := one[time.Time](t, s.pool, beat, w.ID())
	until(t, "a heartbeat while the pooler is busy", func() (bool, error) {
		return one[time.Time](t, s.pool, beat, w.ID()).After(before.Add(200 * time.Millisecond)), nil
	})
	if n := len(testworker.Seen[event.ListenerPooled](w.Events)); n != 0 {
		t.Errorf("%d warnings of a pooler", n)
	}
}

// A worker whose way past the pooler is blocked still works, and is heard of.
func TestWithoutAWayPastThePooler(t *testing.T) {
	t.Parallel()
	s := behind(t, testdb.Migrated(t))
	config := s.config(gworker.NewTask("t", noop))
	config.ListenDatabaseURL = unreachable(t, s.direct)
	config.PollInterval = 50 * time.Millisecond
	config.Recovery.HeartbeatInterval = 100 * time.Millisecond
	w := testworker.Start(t, config)
	testworker.Add(t, s.client(t), gworker.JobSpec{Task: "t"})
	testworker.WaitForN[event.JobCompleted](t, w.Events, 1, nil)
	testworker.WaitForN[event.ListenerLost](t, w.Events, 1, nil)
	beat := `select last_heartbeat_at from graphile_worker._private_workers where id = $1`
	before := one[time.Time](t, s.pool, beat, w.ID())
	until(t, "a heartbeat", func() (bool, error) {
		return one[time.Time](t, s.pool, beat, w.ID()).After(before), nil
	})
}

// A listener and heartbeats in another database would be of no use to anybody,
// and nobody would notice.
func TestListenDatabaseURLOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	s := behind(t, testdb.Migrated(t))
	config := s.config(gworker.NewTask("t", noop))
	config.ListenDatabaseURL = testdb.Migrated(t)
	worker, err := gworker.NewWorker(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = worker.Run(ctx)
	var field *gworker.FieldError
	if !errors.As(err, &field) || field.Field != "Config.ListenDatabaseURL" {
		t.Errorf("Run returned %v", err)
	}
}

// Without a way past the pooler being named, the worker says what that means.
func TestListenerBehindAPoolerIsReported(t *testing.T) {
	t.Parallel()
	s := behind(t, testdb.Migrated(t))
	config := s.config(gworker.NewTask("t", noop))
	config.PollInterval = 50 * time.Millisecond
	w := testworker.Start(t, config)
	testworker.WaitForN[event.ListenerPooled](t, w.Events, 1, nil)
	testworker.Add(t, s.client(t), gworker.JobSpec{Task: "t"})
	testworker.WaitForN[event.JobCompleted](t, w.Events, 1, nil)
}

// A worker that does not listen finds out about a breaking migration anyway.
func TestBreakingMigrationWithoutAListener(t *testing.T) {
	t.Parallel()
	s := behind(t, testdb.Migrated(t))
	config := s.config(gworker.NewTask("t", noop))
	config.NoListen = true
	config.Recovery.HeartbeatInterval = 50 * time.Millisecond
	w := testworker.Start(t, config)
	testworker.WaitForN[event.WorkerStarted](t, w.Events, 1, nil)
	testdb.Exec(t, s.pool, "insert into graphile_worker.migrations (id, breaking) values (1000, true)")
	testworker.WaitForN[event.WorkerStopped](t, w.Events, 1, nil)
	if err := w.Stop(); !errors.Is(err, gworker.ErrBreakingMigration) {
		t.Errorf("Run returned %v", err)
	}
}

// A worker that died is swept through the pooler, by another worker and by hand.
func TestSweepThrough(t *testing.T) {
	t.Parallel()
	s := behind(t, testdb.Migrated(t))
	client := s.client(t)
	kill := func() {
		testworker.Add(t, client, gworker.JobSpec{Task: "t"})
		testdb.Exec(t, s.pool, `update graphile_worker._private_jobs set attempts = 1, locked_by = 'gworker_dead', locked_at = now() - interval '1 hour'`)
		testdb.Exec(t, s.pool, `insert into graphile_worker._private_workers (id, last_heartbeat_at) values ('gworker_dead', now() - interval '1 hour')`)
	}
	kill()
	result, err := client.Sweep(t.Context(), gworker.SweepOptions{})
	if err != nil || len(result.Workers) != 1 || len(result.Workers[0].Jobs) != 1 {
		t.Fatalf("swept %+v, %v", result, err)
	}
	testdb.Exec(t, s.pool, "delete from graphile_worker._private_jobs")
	kill()
	config := s.config(gworker.NewTask("t", noop))
	config.NoListen, config.PollInterval = true, 50*time.Millisecond
	config.Recovery = gworker.RecoveryConfig{
		HeartbeatInterval: 50 * time.Millisecond, StaleAfter: 500 * time.Millisecond, SweepInterval: 50 * time.Millisecond,
	}
	w := testworker.Start(t, config)
	testworker.WaitForN[event.WorkerRecovered](t, w.Events, 1, nil)
	testworker.WaitForN[event.JobCompleted](t, w.Events, 1, nil)
	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	s.wantNothingLeft(t)
}

// The doctor sees the pooler and says what helps.
func TestDoctorThrough(t *testing.T) {
	t.Parallel()
	s := behind(t, testdb.Migrated(t))
	report, err := s.client(t).Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, f := range report.Findings {
		switch {
		case f.ID == "pooler":
			found = true
			if f.Severity != gworker.SeverityWarning {
				t.Errorf("the pooler is a %s: %s", f.Severity, f.What)
			}
		case f.Severity == gworker.SeverityProblem:
			t.Errorf("%s: %s", f.ID, f.What)
		}
	}
	if !found {
		t.Error("the pooler was not looked for")
	}
	// Behind one that keeps sessions, everything works as without one.
	kept := testbouncer.Start(t, s.direct, testbouncer.Options{Sessions: true, Size: 10})
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: kept.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	config := gworker.Config{DatabaseURL: kept.URL(), Tasks: []gworker.Task{gworker.NewTask("t", noop)}, PollInterval: never, Concurrency: 2}
	w := testworker.Start(t, config)
	testworker.WaitForN[event.ListenerConnected](t, w.Events, 1, nil)
	testworker.Add(t, client, gworker.JobSpec{Task: "t"})
	testworker.WaitForN[event.JobCompleted](t, w.Events, 1, nil)
}

// The pooler is restarted: every connection breaks at once.
func TestThePoolerIsRestarted(t *testing.T) {
	t.Parallel()
	s := behind(t, testdb.Migrated(t))
	config := s.config(gworker.NewTask("t", noop))
	config.NoListen, config.PollInterval = true, 50*time.Millisecond
	config.Recovery.HeartbeatInterval = 100 * time.Millisecond
	w := testworker.Start(t, config)
	client := s.client(t)
	testworker.Add(t, client, gworker.JobSpec{Task: "t"})
	testworker.WaitForN[event.JobCompleted](t, w.Events, 1, nil)
	s.Stop()
	testworker.WaitForN[event.HeartbeatFailed](t, w.Events, 1, nil)
	s.Run()
	until(t, "a job to be added", func() (bool, error) {
		_, err := client.AddJob(t.Context(), gworker.JobSpec{Task: "t", Key: "once"})
		return err == nil, err
	})
	testworker.WaitForN[event.JobCompleted](t, w.Events, 2, nil)
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}
