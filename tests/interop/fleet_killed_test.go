package interop_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// quickRecovery are settings under which a dead gworker is found within seconds.
var quickRecovery = orderRecovery{HeartbeatMs: 200, SweepMs: 200, ThresholdMs: 2000, DelayMs: 0}

// A worker of each runtime is killed while it runs a job of a queue of its own. What
// comes back, and when, is what the table in docs/recovery.md says. Heartbeats and
// locks are made older by hand, in place of waiting for minutes.
func TestKilledFleet(t *testing.T) {
	node.Require(t)
	rust.Require(t, rust.V14)
	db := rustDatabase(t, rust.V14)
	const registered, unregistered = "fast", "slow" // the tasks of the two in Rust
	doomed := []struct {
		task  string
		side  side
		order func(*order)
	}{
		{"work", gworkerSide, func(o *order) { o.HoldMs, o.Recovery = ptr(0), &quickRecovery }},
		{registered, rustSide(rust.V14), func(o *order) { o.Recovery = &orderRecovery{SweepMs: 3_600_000} }},
		{unregistered, rustSide(rust.V14), func(*order) {}},
		{"plain", nodeSide(node.V18), func(*order) {}},
	}
	j := newJournal()
	startDoomed := func(task string, s side, change func(*order)) *process {
		o := order{ConnectionString: db.url, Worker: "doomed", Tasks: []string{task}, Concurrency: 1}
		change(&o)
		return s.startWorker(t, o, j)
	}
	// The first job of a task is not held, and so runs before the others.
	db.exec("select graphile_worker.add_job('held')")
	processes := []*process{startDoomed("held", gworkerSide, func(o *order) { o.HoldMs, o.Recovery = ptr(10_000), &quickRecovery })}
	db.awaitRuns(t, processes[0], "doomed", 1)
	open := db.closeGate()
	tasks := []string{"held"}
	for _, d := range doomed {
		db.exec("select graphile_worker.add_job($1, queue_name => $1)", d.task)
		tasks = append(tasks, d.task)
		p := startDoomed(d.task, d.side, d.order)
		j.awaitFrom(t, p, "started")
		processes = append(processes, p)
	}
	db.exec("select graphile_worker.add_job('held', queue_name => 'held')")
	j.await(t, "started", len(tasks)+1)
	// Nothing is written of a held job, unless the machine took longer than the hold.
	if !value[bool](db, "select locked_by is null from graphile_worker.jobs where task_identifier = 'held'") {
		t.Log("the held job was locked before its worker could be killed")
	}
	for _, p := range processes {
		p.kill(t)
	}
	open()

	survivor := gworkerSide.startWorker(t, order{ConnectionString: db.url, Worker: "survivor", Tasks: tasks, Concurrency: 2, Recovery: &quickRecovery}, j)
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: db.url})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// wantRecovered waits for the jobs that the survivor has run, and makes sure that no
	// sweep would find any other.
	wantRecovered := func(when string, tasks ...string) {
		t.Helper()
		db.awaitRuns(t, survivor, "survivor", len(tasks))
		swept, err := client.Sweep(t.Context(), gworker.SweepOptions{
			DryRun: true, Recovery: gworker.RecoveryConfig{StaleAfter: 2 * time.Second, HeartbeatInterval: 200 * time.Millisecond},
		})
		if err != nil || len(swept.Workers) > 0 {
			t.Errorf("%s, a sweep would take %+v, %v, want none", when, swept.Workers, err)
		}
		type run struct {
			Task, Queue string
			Attempts    int
		}
		runs := query[run](db, `
			select job ->> 'task', queue, (job ->> 'attempts')::int from interop.runs where worker = 'survivor' order by job ->> 'task'`)
		var ran []string
		for _, r := range runs {
			ran = append(ran, r.Task)
			if r.Attempts != 1 || r.Queue != r.Task {
				t.Errorf("%s, the job of %s came back as %+v, want its attempt restored", when, r.Task, r)
			}
		}
		slices.Sort(tasks)
		if !slices.Equal(ran, tasks) {
			t.Errorf("%s, the survivor has run %v, want %v", when, ran, tasks)
		}
	}
	back := []string{"held", "work"}
	wantRecovered("with all of them silent for seconds", back...)

	aged := func(sql, age string) { t.Helper(); db.exec(sql, age) }
	const (
		heartbeat = "update graphile_worker._private_workers set last_heartbeat_at = now() - $1::text::interval where id like 'graphile_worker%'"
		lock      = "with q as (update graphile_worker._private_job_queues set locked_at = now() - $1::text::interval where locked_by is not null) " +
			"update graphile_worker._private_jobs set locked_at = now() - $1::text::interval where locked_by is not null"
	)
	aged(heartbeat, "4 minutes")
	wantRecovered("with Rust's heartbeat 4 minutes ago", back...)
	aged(heartbeat, "5 minutes 1 second")
	back = append(back, registered)
	wantRecovered("with Rust's heartbeat 5 minutes ago", back...)
	if n := value[int](db, "select count(*) from graphile_worker._private_workers where id like 'graphile_worker%'"); n != 0 {
		t.Errorf("%d dead Rust workers are still registered", n)
	}

	aged(lock, "3 hours 50 minutes")
	wantRecovered("with locks of Rust and Node hours old, and no Rust worker registered", back...)
	// What a Rust worker does when it starts; a real one would sweep at once, and take
	// Node's job as well.
	db.exec("select graphile_worker.worker_heartbeat('graphile_worker_0123456789abcdef01', null)")
	back = append(back, unregistered)
	wantRecovered("with a Rust worker registered", back...)

	left := db.jobs()
	if len(left) != 1 || left[0].Task != "plain" || !left[0].Locked || !left[0].QueueLocked || left[0].Attempts != 1 {
		t.Errorf("left are %+v, want Node's job alone, and locked", left)
	}
	if _, err := client.Sweep(t.Context(), gworker.SweepOptions{NodeLocksOlderThan: 30 * time.Minute}); err != nil {
		t.Errorf("sweeping Node's locks: %v", err)
	}
	wantRecovered("when told to take Node's locks", append(back, "plain")...)
	survivor.stop(t)
	if left := db.jobs(); len(left) > 0 {
		t.Errorf("jobs are left: %+v", left)
	}
}

// awaitRuns waits until so many jobs were run and completed under a worker's name.
func (db *database) awaitRuns(t *testing.T, p *process, worker string, count int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for value[int](db, `
		select count(*) from interop.runs r where worker = $1 and ended_at is not null
			and not exists (select from graphile_worker._private_jobs j where j.id = r.job_id)`, worker) < count {
		select {
		case <-look.C:
		case <-p.exited:
			t.Fatalf("%s ended: %v\n%s", p.name, p.err, p.stderr)
		case <-ctx.Done():
			t.Fatalf("waiting for %d runs of the %s: the jobs are %+v", count, worker, db.jobs())
		}
	}
}
