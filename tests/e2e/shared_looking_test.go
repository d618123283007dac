package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/fleet"
	"github.com/gworker/gworker/internal/testworker"
)

// among is the configuration of a worker that is to be found by no poll.
func among(pool *pgxpool.Pool, config gworker.Config) gworker.Config {
	config.Pool, config.PollInterval = pool, time.Hour
	config.Recovery = gworker.RecoveryConfig{HeartbeatInterval: time.Second, SweepInterval: time.Hour}
	return config
}

// startAmong starts a worker, and has it know of so many others that look for the same jobs.
// They never look: as workers do that are dead, stopped or busy.
func startAmong(t *testing.T, pool *pgxpool.Pool, others int, config gworker.Config) (w *testworker.Worker, ids []string) {
	t.Helper()
	w = start(t, among(pool, config))
	waitFor[event.ListenerConnected](t, w.Events, nil)
	return w, registerOthers(t, pool, w.ID(), others)
}

// registerOthers registers others that never look, and returns when the worker knows of them.
func registerOthers(t *testing.T, pool *pgxpool.Pool, id string, others int) (ids []string) {
	t.Helper()
	exec(t, pool, `insert into graphile_worker._private_workers (id, last_heartbeat_at, metadata)
		select 'gworker_silent_' || n, now() + interval '1 hour', (select metadata from graphile_worker._private_workers)
		from generate_series(1, $1) n`, others)
	ids = append(ids, id)
	for n := range others {
		ids = append(ids, fmt.Sprintf("gworker_silent_%d", n+1))
	}
	var heartbeat time.Time
	for range 2 { // it has read the answer to the first of them, at least
		before := heartbeat
		for !heartbeat.After(before) {
			time.Sleep(5 * time.Millisecond)
			scan(t, pool, `select last_heartbeat_at from graphile_worker._private_workers where id = $1`, []any{id}, &heartbeat)
		}
	}
	return ids
}

// TestNoJobWaitsForAPoll: where those whose turn it is do not look, the others do.
func TestNoJobWaitsForAPoll(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*gworker.Config)
	}{
		{"held", func(*gworker.Config) {}},
		{"locked", func(c *gworker.Config) { c.HoldTime = new(time.Duration) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			config := gworker.Config{Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}}
			c.change(&config)
			w, _ := startAmong(t, pool, 40, config)
			client := newClient(t, pool)
			for range 20 {
				id := add(t, client, gworker.JobSpec{Task: "x"}).ID
				waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == id })
			}
		})
	}
}

// TestUnobservedWorkersLookToo: without observers notifications that are left to others take
// a shorter way.
func TestUnobservedWorkersLookToo(t *testing.T) {
	pool := migrated(t)
	w, err := gworker.NewWorker(among(pool, gworker.Config{
		Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}, Logger: slog.New(slog.DiscardHandler),
	}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	const registered = "select count(*) from graphile_worker._private_workers"
	if !eventually(t, pool, registered, func(n int) bool { return n == 1 }) {
		t.Fatal("the worker does not register")
	}
	registerOthers(t, pool, w.ID(), 40)
	client := newClient(t, pool)
	for range 20 {
		add(t, client, gworker.JobSpec{Task: "x"})
		if !eventually(t, pool, "select count(*) from graphile_worker._private_jobs", func(n int) bool { return n == 0 }) {
			t.Fatal("a job is not found")
		}
	}
}

// TestOthersLookFirst: a worker whose turn it is not leaves a notification to the others for
// as long as its place among them says.
func TestOthersLookFirst(t *testing.T) {
	pool := migrated(t)
	w, ids := startAmong(t, pool, 40, gworker.Config{Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	f := &fleet.Fleet{Self: w.ID()}
	f.Alike(ids, time.Hour)
	text, turn := "", time.Duration(0)
	for n := 0; turn < 200*time.Millisecond; n++ {
		text = fmt.Sprintf(`{"r":%d,"count":1}`, n)
		turn = f.Turn(text, 1)
	}
	var took []time.Duration
	for range 5 { // a claim may come for another reason
		before := count[event.ClaimStarted](w.Events)
		sent := time.Now()
		exec(t, pool, "select pg_notify('jobs:insert', $1)", text)
		testworker.WaitForN(t, w.Events, before+1, func(event.ClaimStarted) bool { return true })
		if took = append(took, time.Since(sent)); took[len(took)-1] >= turn {
			return
		}
	}
	t.Errorf("it looked after %s, and its turn comes after %s", took, turn)
}

// TestBusyWorkersLeaveJobsToOthers: of three workers two have no free slot.
func TestBusyWorkersLeaveJobsToOthers(t *testing.T) {
	pool := migrated(t)
	free := make(chan struct{})
	config := gworker.Config{
		Pool: pool, PollInterval: time.Hour, Concurrency: 1,
		Recovery: gworker.RecoveryConfig{HeartbeatInterval: 50 * time.Millisecond},
		Tasks: []gworker.Task{gworker.NewRawTask("x", func(ctx context.Context, job *gworker.RawJob) error {
			if string(job.Payload) == "1" {
				<-free
			}
			return nil
		})},
	}
	client := newClient(t, pool)
	var events *testworker.Events
	for i := range 3 {
		w := start(t, config)
		waitFor[event.ListenerConnected](t, w.Events, nil)
		if i < 2 {
			add(t, client, gworker.JobSpec{Task: "x", Payload: 1})
			waitFor[event.JobStarted](t, w.Events, nil)
		}
		events = w.Events
	}
	t.Cleanup(func() { close(free) }) // before they stop
	for range 20 {
		id := add(t, client, gworker.JobSpec{Task: "x", Payload: 0}).ID
		waitFor(t, events, func(e event.JobCompleted) bool { return e.Job.ID == id })
	}
}
