package recovery_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/recovery"
)

// kept is a heartbeat, and what it was told about running jobs.
type kept struct {
	*recovery.Heartbeat
	f     *fixture
	locks *recovery.LockWatch

	mu      sync.Mutex
	running []*job.Claimed
	lost    []int64
	cause   error
}

func newKept(f *fixture, id string) *kept {
	k := &kept{f: f}
	k.Heartbeat = &recovery.Heartbeat{
		WorkerID: id, Metadata: recovery.Metadata{Runtime: "gworker", Tasks: []string{"x"}, StaleAfterSeconds: 60},
		Interval:   10 * time.Millisecond,
		Connect:    func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, f.url) },
		Statements: f.statements, Events: f.stream,
	}
	k.locks = recovery.NewLockWatch(&recovery.LockWatch{
		WorkerID: id, Interval: 10 * time.Millisecond, Queries: f.statements.On(f.Pool), Events: f.stream,
		Running: func() []*job.Claimed {
			k.mu.Lock()
			defer k.mu.Unlock()
			return append([]*job.Claimed(nil), k.running...)
		},
		Lose: func(jobs []*job.Claimed, cause error) {
			k.mu.Lock()
			defer k.mu.Unlock()
			for _, j := range jobs {
				k.lost = append(k.lost, j.ID)
			}
			k.cause = cause
		},
	})
	k.Dead = k.locks.Look
	return k
}

// start registers, and keeps the heartbeat until the test, or stop, ends it.
func (k *kept) start() (stop func()) {
	k.f.t.Helper()
	if err := k.Register(k.f.t.Context()); err != nil {
		k.f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { k.Run(ctx) })
	loops.Go(func() { k.locks.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		loops.Wait()
		if err := k.Deregister(context.Background()); err != nil {
			k.f.t.Error(err)
		}
	})
	k.f.t.Cleanup(stop)
	return stop
}

// claimed is a running job as the database has it.
func (k *kept) claimed(ids ...int64) {
	k.f.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range ids {
		var at time.Time
		err := k.f.QueryRow(k.f.t.Context(), "select locked_at from graphile_worker._private_jobs where id = $1", id).Scan(&at)
		if err != nil {
			k.f.t.Fatal(err)
		}
		k.running = append(k.running, &job.Claimed{Row: job.Row{ID: id}, Lock: job.Lock{By: k.WorkerID, At: at, Attempt: 1}})
	}
}

func TestWorkerIsRegisteredWhileItLives(t *testing.T) {
	f := newFixture(t)
	stop := newKept(f, "gworker_a").start()
	if got := f.one("select id || (metadata ->> 'runtime') || (metadata -> 'tasks') from graphile_worker._private_workers"); got != `gworker_agworker["x"]` {
		t.Errorf("registered as %s", got)
	}
	first := f.one("select last_heartbeat_at::text from graphile_worker._private_workers")
	for deadline := time.Now().Add(time.Minute); f.one("select last_heartbeat_at::text from graphile_worker._private_workers") == first; {
		if time.Now().After(deadline) {
			t.Fatal("there is no heartbeat")
		}
	}
	if got := f.one("select metadata ->> 'runtime' from graphile_worker._private_workers"); got != "gworker" {
		t.Errorf("a heartbeat changed the metadata to %s", got)
	}
	stop()
	if got := f.one("select count(*)::text from graphile_worker._private_workers"); got != "0" {
		t.Errorf("%s registrations after the end", got)
	}
}

func TestWorkerThatWasDeclaredDeadRegistersAgain(t *testing.T) {
	f := newFixture(t)
	k := newKept(f, "gworker_a")
	k.start()
	taken, kept := f.locked("gworker_a", time.Second, ""), f.locked("gworker_a", time.Second, "")
	k.claimed(taken, kept)
	f.exec("delete from graphile_worker._private_workers")
	f.exec("update graphile_worker._private_jobs set locked_by = 'gworker_b' where id = $1", taken)
	waitFor[event.WorkerDeclaredDead](f, nil)
	e := waitFor[event.LocksLost](f, nil)
	if fmt.Sprint(e.JobIDs) != fmt.Sprint([]int64{taken}) {
		t.Errorf("lost %v, want %d alone", e.JobIDs, taken)
	}
	k.mu.Lock()
	if fmt.Sprint(k.lost) != fmt.Sprint([]int64{taken}) || !errors.Is(k.cause, recovery.ErrJobLost) {
		t.Errorf("ended %v because of %v", k.lost, k.cause)
	}
	k.mu.Unlock()
	const registered = "select coalesce((select id || (metadata ->> 'runtime') from graphile_worker._private_workers), '')"
	got := f.one(registered)
	for deadline := time.Now().Add(time.Minute); got == "" && time.Now().Before(deadline); got = f.one(registered) {
		time.Sleep(time.Millisecond) // it is told of before
	}
	if got != "gworker_agworker" {
		t.Errorf("registered again as %q", got)
	}
}

// A claim of the same job by the same worker, later, is another lock.
func TestLockOfAnotherClaimIsLost(t *testing.T) {
	f := newFixture(t)
	k := newKept(f, "gworker_a")
	id := f.locked("gworker_a", time.Hour, "")
	k.claimed(id)
	f.exec("update graphile_worker._private_jobs set locked_at = now()")
	k.start()
	waitFor[event.LocksLost](f, nil)
}

func TestHeartbeatSurvivesTheDatabasesErrors(t *testing.T) {
	f := newFixture(t)
	k := newKept(f, "gworker_a")
	k.start()
	f.exec("alter table graphile_worker._private_workers rename to away")
	waitFor[event.HeartbeatFailed](f, nil)
	f.exec("alter table graphile_worker.away rename to _private_workers")
	f.exec(`select pg_terminate_backend(pid) from pg_stat_activity
		where pid <> pg_backend_pid() and query like '-- name: Heartbeat%'`)
	f.exec("update graphile_worker._private_workers set last_heartbeat_at = '2020-01-01'")
	for deadline := time.Now().Add(time.Minute); f.one("select (last_heartbeat_at > '2021-01-01')::text from graphile_worker._private_workers") != "true"; {
		if time.Now().After(deadline) {
			t.Fatal("the heartbeat did not come back")
		}
	}
}

func TestRegisteringSaysWhatFailed(t *testing.T) {
	f := newFixture(t)
	f.exec("drop function graphile_worker.worker_heartbeat(text, json)")
	err := newKept(f, "gworker_a").Register(t.Context())
	if err == nil || fmt.Sprint(err)[:len("registering worker gworker_a")] != "registering worker gworker_a" {
		t.Errorf("error %v", err)
	}
}

// The jobs table is locked for a long time: no worker is declared dead because of that.
func TestHeartbeatDoesNotWaitForTheJobs(t *testing.T) {
	f := newFixture(t)
	k := newKept(f, "gworker_a")
	k.claimed(f.locked("gworker_a", time.Second, ""))
	tx, err := f.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "lock table graphile_worker._private_jobs in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	defer k.start()()
	first := f.one("select last_heartbeat_at::text from graphile_worker._private_workers")
	for n := 0; n < 3; {
		if now := f.one("select last_heartbeat_at::text from graphile_worker._private_workers"); now != first {
			first = now
			n++
		}
	}
}

// The sweep waits for the jobs table, and meanwhile the worker writes a heartbeat.
func TestWorkerThatIsHeardOfMeanwhileIsNotDead(t *testing.T) {
	f := newFixture(t)
	f.register("gworker_a", time.Hour, "{}")
	id := f.locked("gworker_a", time.Hour, "")
	tx, err := f.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "lock table graphile_worker._private_jobs in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	result := make(chan recovery.SweepResult, 1)
	go func() {
		r, err := recovery.Sweep(t.Context(), f.Pool, f.statements, f.stream, f.options)
		if err != nil {
			t.Error(err)
		}
		result <- r
	}()
	for f.one(`select count(*)::text from pg_stat_activity
		where datname = current_database() and wait_event_type = 'Lock' and query like '-- name: %'`) == "0" {
	}
	f.exec("update graphile_worker._private_workers set last_heartbeat_at = now()")
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := <-result; len(r.Workers) != 0 {
		t.Errorf("swept %+v", r)
	}
	f.wantRow(id, "1|gworker_a|-|now")
}

// TestHeartbeatThatIsMissingHoldsSweepsBack: while it is missing by Late, from the
// moment on when it is there again by Paused; never by neither.
func TestHeartbeatThatIsMissingHoldsSweepsBack(t *testing.T) {
	f := newFixture(t)
	k := newKept(f, "gworker_a")
	k.Interval = time.Nanosecond // so any heartbeat is late
	if !k.Late() {
		t.Error("a worker without a heartbeat is not late")
	}
	loop := &recovery.Sweeper{WorkerID: "gworker_a", Options: f.options, Late: k.Late}
	if err := k.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.Paused = func() {
		if !k.Late() {
			t.Error("it is no longer late, and Paused was not called before")
		}
		loop.Pause()
	}
	f.exec("update graphile_worker._private_workers set last_heartbeat_at = now() - interval '1 hour'")
	if err := recovery.Beat(t.Context(), k.Heartbeat); err != nil {
		t.Fatal(err)
	}
	k.Interval = time.Hour
	if k.Late() {
		t.Error("it is late although it was written just now")
	}
	if !recovery.Holding(loop) {
		t.Error("nothing holds the sweeps back")
	}
	if err := k.Deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
}
