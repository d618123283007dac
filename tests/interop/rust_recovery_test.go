package interop_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// client is one of ours, closed with the test.
func (db *database) client() *gworker.Client {
	db.t.Helper()
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: db.url})
	if err != nil {
		db.t.Fatalf("making a client: %v", err)
	}
	db.t.Cleanup(client.Close)
	return client
}

// A lockHolder is a worker that holds the lock of a job.
type lockHolder struct {
	name     string
	side     side
	recovery bool // whether the worker registers and sweeps
	process  *process
}

// start has the holder run one job of the task, until the gate opens, and returns
// once the job is locked.
func (h *lockHolder) start(db *database, task string) {
	db.t.Helper()
	h.side.require(db.t)
	o := order{ConnectionString: db.url, Tasks: []string{task}, Concurrency: 1, Worker: h.name, PollMs: 200}
	switch {
	case h.side.isRust() && h.recovery:
		o.Recovery = &orderRecovery{ThresholdMs: 24 * 60 * 60 * 1000} // the test sweeps itself
	case h.side == gworkerSide:
		o.RecoveryOff = !h.recovery
	}
	db.exec("select graphile_worker.add_job($1, queue_name => $1)", task)
	h.process = h.side.startWorker(db.t, o, newJournal())
	db.await(h.name+" to lock its job", func() bool { return db.lockedBy(task) != "" })
}

// lockedBy is the worker that holds the lock of the task's one job.
func (db *database) lockedBy(task string) string {
	db.t.Helper()
	return value[string](db, `select coalesce(max(j.locked_by), '') from graphile_worker._private_jobs j
		join graphile_worker._private_tasks t on t.id = j.task_id where t.identifier = $1`, task)
}

// ageLocks makes every lock look as old as that of a job that takes three hours,
// but for those of registered gworkers: these notice, and their age decides nothing.
func (db *database) ageLocks() {
	db.t.Helper()
	for _, table := range []string{"_private_jobs", "_private_job_queues"} {
		db.exec(`update graphile_worker.` + table + ` set locked_at = now() - interval '3 hours' where locked_at is not null
			and locked_by not in (select id from graphile_worker._private_workers where id like 'gworker%')`)
	}
}

// Which worker is dead to which sweep, while all live and have been at one job
// for three hours, and when all are dead. The sweeps are those of our client and of
// Rust's utilities, with the defaults of each.
func TestSweepersAndHolders(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	holders := []*lockHolder{
		{name: "gworker", side: gworkerSide, recovery: true},
		{name: "gworker without recovery", side: gworkerSide},
		{name: "node", side: nodeSide(node.V18)},
		{name: "rust", side: rustSide(rust.V14), recovery: true},
		{name: "rust without recovery", side: rustSide(rust.V14)},
	}
	db := gworkerDatabase(t)
	defer db.closeGate()()
	client := db.client()

	// A worker's own sweep may be at it at the same moment: then there is no answer.
	ours := func() (ids []string) {
		db.await("our sweep", func() bool {
			result, err := client.Sweep(t.Context(), gworker.SweepOptions{DryRun: true})
			if err != nil {
				t.Fatalf("our sweep: %v", err)
			}
			ids = nil
			for _, w := range result.Workers {
				ids = append(ids, w.ID)
			}
			return !result.Busy
		})
		return ids
	}
	theirs := func() (ids []string) {
		db.await("Rust's sweep", func() bool {
			answers := rustSide(rust.V14).utilities(t, db.url, []adminCall{{Method: "sweepStaleWorkers", Options: &adminOptions{DryRun: true}}})
			ids = answers[0].Workers
			return len(ids) > 0
		})
		return ids
	}
	ids := map[string]string{} // of a lock, the holder's name
	check := func(when string, sweep func() []string, want ...string) {
		t.Helper()
		var got []string
		for _, id := range sweep() {
			got = append(got, ids[id])
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s, dead to the sweeps (-want +got):\n%s", when, diff)
		}
	}

	tasks := []string{"task0", "task1", "task2", "task3", "task4"}
	start := func(i int) {
		t.Helper()
		holders[i].start(db, tasks[i])
		ids[db.lockedBy(tasks[i])] = holders[i].name
		db.ageLocks()
	}
	// As long as no Rust worker with recovery is there, one without is alone with
	// its kind.
	for _, i := range []int{0, 1, 2, 4} {
		start(i)
	}
	check("our sweep of the living", ours)
	start(3)
	check("our sweep of the living, among them a Rust worker with recovery", ours, "rust without recovery")
	// Rust's sweep takes everybody who does not write heartbeats.
	check("Rust's sweep of the living", theirs, "gworker without recovery", "node", "rust without recovery")

	for _, h := range holders {
		h.process.kill(t)
	}
	db.exec("update graphile_worker._private_workers set last_heartbeat_at = now() - interval '2 hours', started_at = now() - interval '3 hours'")
	check("Rust's sweep of the dead", theirs, "gworker", "gworker without recovery", "node", "rust", "rust without recovery")
	check("our sweep of the dead", ours, "gworker", "rust") // no Rust worker with recovery lives

	result, err := client.Sweep(t.Context(), gworker.SweepOptions{})
	if err != nil || len(result.Workers) != 2 {
		t.Errorf("our sweep: %+v, %v", result, err)
	}
	answers := rustSide(rust.V14).utilities(t, db.url, []adminCall{{Method: "sweepStaleWorkers"}})
	if got := len(answers[0].Workers); got != 3 || answers[0].Recovered != 3 {
		t.Errorf("Rust's sweep after ours: %+v, want the three that we leave alone", answers[0])
	}
	for _, job := range db.jobs() {
		if job.Locked || job.QueueLocked || job.Attempts != 0 || !job.Available {
			t.Errorf("after the sweeps: %+v", job)
		}
	}
	if left := value[int](db, "select count(*)::int from graphile_worker._private_workers"); left != 0 {
		t.Errorf("%d dead workers are still registered", left)
	}
}

// The workers' own sweeps, each with the other runtime's dead worker and its living
// one: the dead one's job runs again, and the long job of the living goes on.
func TestWorkersSweepAcrossRuntimes(t *testing.T) {
	ours, theirs := gworkerSide, rustSide(rust.V14)
	for _, c := range []struct{ sweeper, holders side }{{ours, theirs}, {theirs, ours}, {theirs, theirs}} {
		t.Run(c.sweeper.String()+" sweeps "+c.holders.String(), func(t *testing.T) {
			t.Parallel()
			rust.Require(t, rust.V14)
			db := gworkerDatabase(t)
			open := db.closeGate()
			// Heartbeats often, and silence that a busy machine does not make.
			recovery := &orderRecovery{HeartbeatMs: 200, SweepMs: 300, ThresholdMs: 20000, DelayMs: 1}
			o := order{ConnectionString: db.url, Concurrency: 1, Recovery: recovery, PollMs: 200}
			hold := func(name, task string) *process {
				o := o
				o.Tasks, o.Worker = []string{task}, name
				db.exec("select graphile_worker.add_job($1, queue_name => $1)", task)
				j := newJournal()
				p := c.holders.startWorker(t, o, j)
				j.await(t, "started", 1)
				db.await(name+" to lock its job", func() bool { return db.lockedBy(task) != "" })
				return p
			}
			living := hold("living", "task0")
			dead := hold("dead", "task1")
			id := db.lockedBy("task0")
			dead.kill(t)
			// It has been dead for long, and the other one at work for long.
			db.ageLocks()
			db.exec("update graphile_worker._private_workers set last_heartbeat_at = now() - interval '1 hour', started_at = now() - interval '2 hours' where id = $1",
				db.lockedBy("task1"))

			o.Tasks, o.Worker = []string{"task1"}, "sweeper"
			sweeper := c.sweeper.startWorker(t, o, newJournal())
			db.await("the dead worker's job to start again", func() bool {
				return value[bool](db, "select exists (select from interop.runs where worker = 'sweeper' and job ->> 'task' = 'task1')")
			})
			if now := db.lockedBy("task0"); now != id {
				t.Errorf("the lock of the living worker's job was %s and is %q", id, now)
			}
			open()
			db.await("both jobs to end", func() bool { return len(db.jobs()) == 0 })
			living.stop(t)
			sweeper.stop(t)
			runs := map[string]int{}
			for _, job := range db.seen() {
				runs[job.Task]++
			}
			if want := map[string]int{"task0": 1, "task1": 2}; !maps.Equal(runs, want) {
				t.Errorf("runs: %v, want %v", runs, want)
			}
		})
	}
}
