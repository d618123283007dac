package e2e_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testworker"
)

func TestWorkerRegistersBeforeItsFirstClaim(t *testing.T) {
	pool := migrated(t)
	add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
	w := start(t, gworker.Config{Pool: pool, Concurrency: 3, Tasks: []gworker.Task{
		gworker.NewRawTask("x", func(ctx context.Context, job *gworker.RawJob) error {
			var metadata string
			err := pool.QueryRow(ctx, `select concat_ws('|', metadata ->> 'runtime', metadata ->> 'concurrency',
				metadata ->> 'tasks', metadata ->> 'stale_after_seconds', metadata ? 'host', metadata ? 'pid')
				from graphile_worker._private_workers where id = $1`, job.LockedBy).Scan(&metadata)
			if err == nil && metadata != `gworker|3|["x"]|60|t|t` {
				err = errors.New(metadata)
			}
			return err
		}),
	}})
	waitFor[event.JobCompleted](t, w.Events, nil)
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
	var n int
	scan(t, pool, "select count(*) from graphile_worker._private_workers", nil, &n)
	if n != 0 {
		t.Errorf("%d registrations are left", n)
	}
}

func TestJobOfADeadWorkerRuns(t *testing.T) {
	pool := migrated(t)
	job := add(t, newClient(t, pool), gworker.JobSpec{Task: "x", Queue: "q"})
	exec(t, pool, "update graphile_worker._private_jobs set locked_by = 'gworker_dead', locked_at = now(), attempts = 1")
	exec(t, pool, "update graphile_worker._private_job_queues set locked_by = 'gworker_dead', locked_at = now()")
	exec(t, pool, "insert into graphile_worker._private_workers (id, last_heartbeat_at) values ('gworker_dead', now() - interval '1 hour')")
	hasty := testworker.FastRecovery
	hasty.StaleAfter = 100 * time.Millisecond // for as long it holds back at first
	w := start(t, gworker.Config{
		Pool: pool, PollInterval: time.Hour, Recovery: hasty, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)},
	})
	done := waitFor[event.JobCompleted](t, w.Events, nil)
	if done.Job.ID != job.ID || done.Job.Attempts != 1 {
		t.Errorf("completed %+v", done.Job)
	}
	waitFor(t, w.Events, func(e event.WorkerRecovered) bool { return e.Dead == "gworker_dead" })
}

// TestWorkerThatWasDeclaredDead: its job runs elsewhere, its handler is told,
// and nothing that it returns is stored.
func TestWorkerThatWasDeclaredDead(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	job := add(t, client, gworker.JobSpec{Task: "x"})
	cause := make(chan error, 1)
	slow := start(t, gworker.Config{Pool: pool, Concurrency: 1, Recovery: testworker.FastRecovery, Tasks: []gworker.Task{
		gworker.NewRawTask("x", func(ctx context.Context, _ *gworker.RawJob) error {
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return errors.New("not stored")
		}),
	}})
	waitFor[event.JobStarted](t, slow.Events, nil)

	// As seen by others after a pause of its process.
	exec(t, pool, "alter table graphile_worker._private_workers rename to away") // no heartbeat meanwhile
	exec(t, pool, "update graphile_worker.away set last_heartbeat_at = now() - interval '1 hour'")
	exec(t, pool, "alter table graphile_worker.away rename to _private_workers")
	var result gworker.SweepResult
	for range 1000 { // a heartbeat may come in between
		exec(t, pool, "update graphile_worker._private_workers set last_heartbeat_at = now() - interval '1 hour'")
		var err error
		if result, err = client.Sweep(t.Context(), gworker.SweepOptions{}); err != nil {
			t.Fatal(err)
		}
		if len(result.Workers) > 0 {
			break
		}
	}
	if len(result.Workers) != 1 || len(result.Workers[0].Jobs) != 1 || result.Workers[0].ID != slow.ID() {
		t.Fatalf("swept %+v", result)
	}
	waitFor[event.WorkerDeclaredDead](t, slow.Events, nil)
	if err := <-cause; !errors.Is(err, gworker.ErrJobLost) {
		t.Errorf("the handler's context ended with %v", err)
	}
	lost := waitFor(t, slow.Events, func(e event.JobLost) bool { return e.Job.ID == job.ID })
	if lost.Unsure {
		t.Errorf("%+v", lost)
	}
	if err := slow.Stop(); err != nil {
		t.Error(err)
	}
	if row := testworker.ReadFailure(t, pool, job.ID); strings.Contains(row.LastError, "not stored") {
		t.Errorf("row %+v", row)
	}
}

func TestWorkerWithoutRecovery(t *testing.T) {
	pool := migrated(t)
	add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
	w := start(t, gworker.Config{
		Pool: pool, Recovery: gworker.RecoveryConfig{Disabled: true}, Tasks: []gworker.Task{
			gworker.NewRawTask("x", func(ctx context.Context, _ *gworker.RawJob) error {
				var n int
				err := pool.QueryRow(ctx, "select count(*) from graphile_worker._private_workers").Scan(&n)
				if n != 0 {
					t.Errorf("%d registrations", n)
				}
				return err
			}),
		},
	})
	waitFor[event.JobCompleted](t, w.Events, nil)
	if !strings.HasPrefix(w.ID(), "gworker_unregistered_") {
		t.Errorf("its id is %s", w.ID())
	}
}

// TestSchemaWithoutRecovery: revision 18 has none of its tables.
func TestSchemaWithoutRecovery(t *testing.T) {
	pool := migrated(t)
	exec(t, pool, "drop table graphile_worker._private_workers")
	exec(t, pool, "drop function graphile_worker.worker_heartbeat(text, json)")
	add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
	w := start(t, gworker.Config{Pool: pool, NoMigrations: true, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	waitFor(t, w.Events, func(e event.SchemaWarning) bool { return strings.Contains(e.Message, "recovery") })
	waitFor[event.JobCompleted](t, w.Events, nil)
}

// carriers counts the polls that carry a heartbeat.
type carriers struct{ seen chan struct{} }

func (c carriers) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.HasPrefix(data.SQL, "-- name: Poll ") && slices.Contains(data.Args, any(true)) {
		select {
		case c.seen <- struct{}{}:
		default:
		}
	}
	return ctx
}

func (carriers) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestPollsOfAnIdleWorkerCarryItsHeartbeat: it sends one statement in each poll
// interval. Without recovery there is nothing to carry.
func TestPollsOfAnIdleWorkerCarryItsHeartbeat(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, disabled := range map[string]bool{"with recovery": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			config := migrated(t).Config()
			polls := carriers{seen: make(chan struct{}, 1)}
			config.ConnConfig.Tracer = polls
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			recovery := testworker.FastRecovery
			recovery.Disabled = disabled
			w := start(t, gworker.Config{
				Pool: pool, NoListen: true, PollInterval: 10 * time.Millisecond, Recovery: recovery,
				Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)},
			})
			if !disabled {
				select {
				case <-polls.seen:
				case <-time.After(patience):
					t.Error("no poll carried a heartbeat")
				}
			}
			for range 3 { // found by polls
				job := add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
				waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
			}
			if disabled && len(polls.seen) > 0 {
				t.Error("a worker that is not registered wrote a heartbeat")
			}
			if err := w.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWorkersThatLiveShortly: none of them lives for as long as a healthy worker may
// be silent. The first notes who is silent, and a later one recovers the jobs and
// runs them.
func TestWorkersThatLiveShortly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	pool := migrated(t)
	job := add(t, newClient(t, pool), gworker.JobSpec{Task: "x", Queue: "q"})
	exec(t, pool, "update graphile_worker._private_jobs set locked_by = 'gworker_dead', locked_at = now() - interval '1 hour', attempts = 1")
	exec(t, pool, "update graphile_worker._private_job_queues set locked_by = 'gworker_dead', locked_at = now() - interval '1 hour'")
	exec(t, pool, "insert into graphile_worker._private_workers (id, last_heartbeat_at) values ('gworker_dead', now() - interval '1 hour')")
	short := gworker.RecoveryConfig{HeartbeatInterval: time.Second, StaleAfter: 2100 * time.Millisecond}
	for deadline, lives := time.Now().Add(patience), 1; ; lives++ {
		seen := runOnce(t, gworker.Config{Pool: pool, Recovery: short, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
		if count[event.JobCompleted](seen) > 0 {
			done := waitFor[event.JobCompleted](t, seen, nil)
			recovered := waitFor[event.WorkerRecovered](t, seen, nil)
			if done.Job.ID != job.ID || done.Job.Attempts != 1 || recovered.Dead != "gworker_dead" || lives < 2 {
				t.Errorf("in life %d: %+v, %+v", lives, done.Job, recovered)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no worker of %d has recovered the job", lives)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestWorkersThatStartAfterAnOutage: every heartbeat is old then, and no worker is
// declared dead by a worker that has just started.
func TestWorkersThatStartAfterAnOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	pool := migrated(t)
	add(t, newClient(t, pool), gworker.JobSpec{Task: "slow"})
	end := make(chan struct{})
	healthy := start(t, gworker.Config{Pool: pool, Recovery: gworker.RecoveryConfig{HeartbeatInterval: 2 * time.Second}, Tasks: []gworker.Task{
		gworker.NewRawTask("slow", func(context.Context, *gworker.RawJob) error { <-end; return nil }),
	}})
	waitFor[event.JobStarted](t, healthy.Events, nil)
	for range 5 {
		// What an outage leaves: the server was away for an hour, and is back.
		exec(t, pool, "update graphile_worker._private_workers set last_heartbeat_at = now() - interval '1 hour' where id = $1", healthy.ID())
		seen := runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
		if n := count[event.WorkerRecovered](seen); n > 0 {
			t.Errorf("it has declared %d workers dead", n)
		}
	}
	close(end)
	waitFor[event.JobCompleted](t, healthy.Events, nil)
	if n := count[event.WorkerDeclaredDead](healthy.Events) + count[event.JobLost](healthy.Events); n > 0 {
		t.Error("the healthy worker was declared dead")
	}
}
