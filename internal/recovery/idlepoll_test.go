package recovery_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/recovery"
	"github.com/gworker/gworker/internal/testdb"
)

// polled is a worker that is kept alive by polls alone: what recovery does by itself
// comes only after hours.
type polled struct {
	*recovery.IdlePoll
	f    *fixture
	kept *kept
}

func newPolled(f *fixture) *polled {
	k := newKept(f, "gworker_a")
	k.Interval = time.Hour
	k.Paused = func() {}
	p := &polled{f: f, kept: k, IdlePoll: &recovery.IdlePoll{
		WorkerID: "gworker_a", Tasks: []string{"x"}, Interval: 10 * time.Hour,
		Queries: f.statements.On(f.Pool), Heartbeat: k.Heartbeat,
		Sweeper: &recovery.Sweeper{WorkerID: "gworker_a", Pool: f.Pool, Statements: f.statements, Events: f.stream, Options: f.options},
	}}
	return p
}

// start has the heartbeat and the sweeper run, and all that they do due before the next poll.
func (p *polled) start() {
	t := p.f.t
	t.Helper()
	p.kept.start()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	p.Sweeper.Options.StaleAfter = time.Nanosecond // it does not wait for an outage to be over
	p.Sweeper.Interval = 5 * time.Hour
	go func() { defer close(ended); p.Sweeper.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	// Until both have their timers.
	for !recovery.Due(p.IdlePoll) {
		if t.Context().Err() != nil {
			t.Fatal("nothing is due")
		}
	}
}

func (p *polled) poll() bool {
	p.f.t.Helper()
	runnable, err := p.Poll(p.f.t.Context())
	if err != nil {
		p.f.t.Fatal(err)
	}
	return runnable
}

// TestPollSaysWhatAClaimWouldFind: jobs that are due, free, of this worker's tasks
// and of no locked queue.
func TestPollSaysWhatAClaimWouldFind(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, test := range map[string]struct {
		sql  string
		want bool
	}{
		"none":             {"select 1", false},
		"one":              {"select graphile_worker.add_job('x')", true},
		"of another task":  {"select graphile_worker.add_job('y')", false},
		"later":            {"select graphile_worker.add_job('x', run_at => now() + interval '1 hour')", false},
		"of a queue":       {"select graphile_worker.add_job('x', queue_name => 'q')", true},
		"failed for good":  {"with j as (select * from graphile_worker.add_job('x')) select graphile_worker.permanently_fail_jobs(array[j.id]) from j", false},
		"behind another's": {"select graphile_worker.add_job('y'), graphile_worker.add_job('x')", true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			p := newPolled(f)
			f.exec(test.sql)
			if got := p.poll(); got != test.want {
				t.Errorf("runnable is %v, want %v", got, test.want)
			}
			f.exec("update graphile_worker._private_jobs set locked_by = 'x', locked_at = now()")
			if p.poll() {
				t.Error("a locked job is runnable")
			}
			f.exec("update graphile_worker._private_jobs set locked_by = null, locked_at = null")
			f.exec("update graphile_worker._private_job_queues set locked_by = 'x', locked_at = now()")
			if got := p.poll(); got != (test.want && name != "of a queue") {
				t.Errorf("with locked queues runnable is %v", got)
			}
		})
	}
}

func TestPollCarriesTheHeartbeat(t *testing.T) {
	f := newFixture(t)
	p := newPolled(f)
	p.start()
	last := func() string {
		return f.one("select last_heartbeat_at::text from graphile_worker._private_workers where id = 'gworker_a'")
	}
	before := last()
	p.poll()
	after := last()
	if before == after {
		t.Error("the poll wrote no heartbeat")
	}
	p.Interval = time.Minute // so the next is due long after the next poll
	p.poll()
	if last() != after {
		t.Error("a poll wrote a heartbeat that was not due")
	}
}

// TestPollFindsThatTheWorkerWasDeclaredDead: the heartbeat finds out then, and not only
// an hour later.
func TestPollFindsThatTheWorkerWasDeclaredDead(t *testing.T) {
	f := newFixture(t)
	p := newPolled(f)
	p.start()
	f.exec("delete from graphile_worker._private_workers")
	p.poll()
	waitFor[event.WorkerDeclaredDead](f, nil)
	for deadline := time.Now().Add(time.Minute); f.one("select count(*)::text from graphile_worker._private_workers") != "1"; {
		if time.Now().After(deadline) {
			t.Fatal("it has not registered again")
		}
	}
}

// TestPollDoesNotWaitForItsRegistration, which a sweep may have in its hands.
func TestPollDoesNotWaitForItsRegistration(t *testing.T) {
	f := newFixture(t)
	p := newPolled(f)
	p.start()
	tx, err := f.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "select from graphile_worker._private_workers for update"); err != nil {
		t.Fatal(err)
	}
	p.poll()
	// The heartbeat is left to its own goroutine again, which may wait.
	for f.one(`select count(*)::text from pg_stat_activity
		where datname = current_database() and wait_event_type = 'Lock' and query like '-- name: Heartbeat%'`) == "0" {
	}
}

// TestHeartbeatThatAPollFoundLateHoldsSweepsBack, as one of its own does.
func TestHeartbeatThatAPollFoundLateHoldsSweepsBack(t *testing.T) {
	f := newFixture(t)
	p := newPolled(f)
	paused := make(chan struct{}, 1)
	p.kept.Paused = func() { paused <- struct{}{} }
	p.start()
	p.poll()
	if len(paused) > 0 {
		t.Error("a heartbeat in time is late")
	}
	f.exec("update graphile_worker._private_workers set last_heartbeat_at = now() - interval '3 hours'")
	p.poll()
	select {
	case <-paused:
	case <-time.After(time.Minute):
		t.Error("Paused was not called for a late heartbeat")
	}
}

// TestPollLooksForDeadWorkers: where there may be one a sweep comes at once.
func TestPollLooksForDeadWorkers(t *testing.T) {
	var sample testdb.Sample
	for name, silent := range map[string]func(*fixture){
		"registered":     func(f *fixture) { f.register("gworker_b", time.Hour, "{}") },
		"not registered": func(f *fixture) { f.locked("gworker_b", time.Hour, "") },
		"with a queue only": func(f *fixture) {
			f.exec(`insert into graphile_worker._private_job_queues (queue_name, locked_by, locked_at)
				values ('q', 'gworker_b', now() - interval '1 hour')`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			f := newFixture(t)
			p := newPolled(f)
			p.start()
			silent(f)
			left := func() string {
				return f.one(`select ((select count(*) from graphile_worker._private_workers where id = 'gworker_b')
					+ (select count(*) from graphile_worker._private_jobs where locked_by = 'gworker_b')
					+ (select count(*) from graphile_worker._private_job_queues where locked_by = 'gworker_b'))::text`)
			}
			if left() != "1" {
				t.Fatal("no worker was declared dead")
			}
			p.Sweeper.Options.StaleAfter = 2 * time.Millisecond
			// The poll writes this worker's heartbeat, without which it declares no worker dead.
			for deadline := time.Now().Add(time.Minute); left() != "0"; p.poll() {
				if time.Now().After(deadline) {
					t.Fatal("no sweep came")
				}
			}
		})
	}
}

// TestPollLooksForOldLocks, those of Node's workers, too.
func TestPollLooksForOldLocks(t *testing.T) {
	f := newFixture(t)
	p := newPolled(f)
	p.start()
	young := f.locked("worker-b", 3*time.Hour, "")
	p.poll()
	if recovery.ResetWithin(p.IdlePoll, time.Minute) {
		t.Error("a lock of 3 hours is old")
	}
	old := f.locked("worker-b", 5*time.Hour, "")
	recovery.ResetDue(p.IdlePoll)
	p.poll()
	e := waitFor(f, func(e event.OldLocksReset) bool { return len(e.JobIDs) > 0 })
	if len(e.JobIDs) != 1 || e.JobIDs[0] != old {
		t.Errorf("freed %v, want %d and not %d", e.JobIDs, old, young)
	}
}

// TestPollSaysWhatFailed, and nothing of it counts as done.
func TestPollSaysWhatFailed(t *testing.T) {
	f := newFixture(t)
	p := newPolled(f)
	p.start()
	f.exec("alter table graphile_worker._private_workers rename to away")
	if _, err := p.Poll(t.Context()); err == nil || !recovery.Due(p.IdlePoll) {
		t.Errorf("error %v; due %v", err, recovery.Due(p.IdlePoll))
	}
	f.exec("alter table graphile_worker.away rename to _private_workers")
}

// TestHeartbeatAsksAConnectionThatItHasNotUsed: polls may have done its work for hours,
// and what is between here and the server may have forgotten the connection.
func TestHeartbeatAsksAConnectionThatItHasNotUsed(t *testing.T) {
	f := newFixture(t)
	k := newKept(f, "gworker_a")
	connects := 0
	connect := k.Connect
	k.Connect = func(ctx context.Context) (*pgx.Conn, error) {
		connects++
		return connect(ctx)
	}
	if err := k.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	recovery.UnusedFor(k.Heartbeat, time.Hour)
	f.exec(`select pg_terminate_backend(pid) from pg_stat_activity
		where pid <> pg_backend_pid() and query like '-- name: IsRegistered%' and datname = current_database()`)
	if err := recovery.Beat(t.Context(), k.Heartbeat); err != nil || connects != 2 {
		t.Errorf("%d connections, error %v", connects, err)
	}
	if err := k.Deregister(t.Context()); err != nil {
		t.Error(err)
	}
}
