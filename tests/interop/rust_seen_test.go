package interop_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// What Rust's worker does unlike ours and Node's, as seen. docs/from-rust.md tells
// what to do about each; a test that fails here says that a release has changed.

// A line of a crontab without a payload makes jobs whose payload is null: without
// the _cron member that Node and gworker give them. Node's options of job keys are
// ignored.
func TestRustCronWithoutPayload(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	db := gworkerDatabase(t)
	now := time.Now()
	for _, identifier := range []string{"bare", "full", "keyed"} {
		db.know(identifier, now.Add(-24*time.Hour), time.Time{})
	}
	j := newJournal()
	p := startRust(t, db.url, j, withTasks("other"), func(o *order) {
		o.Crontab = "* * * * * bare ?fill=5m\n* * * * * full ?fill=5m {}\n* * * * * keyed ?fill=5m&jobKey=k {}"
	})
	payloads := func(task string) []string {
		return values[string](db, `select distinct regexp_replace(j.payload::text, '\d{4}-\d\d-\d\dT\d\d:\d\d', 'T') from graphile_worker._private_jobs j
			join graphile_worker._private_tasks t on t.id = j.task_id where t.identifier = $1 and j.run_at < now() - interval '1 minute'`, task)
	}
	db.await("cron's jobs", func() bool { return len(payloads("bare")) > 0 && len(payloads("full")) > 0 })
	p.stop(t)
	if got := payloads("bare"); len(got) != 1 || got[0] != "null" {
		t.Errorf("without a payload the jobs have %q, want null", got)
	}
	if got := payloads("full"); len(got) != 1 || !strings.Contains(got[0], `"T:00+00:00"`) {
		t.Errorf("with a payload the jobs have %q, want a time that ends in +00:00", got)
	}
	if keys := value[int](db, "select count(*)::int from graphile_worker._private_jobs where key is not null"); keys != 0 {
		t.Errorf("%d jobs have a key", keys)
	}
}

// A Rust worker with recovery takes a long job that runs on Node, and runs it
// at the same time.
func TestRustSweepTakesLongJobsOfNode(t *testing.T) {
	rust.Require(t, rust.V14)
	node.Require(t)
	t.Parallel()
	db := gworkerDatabase(t)
	open := db.closeGate()
	h := &lockHolder{name: "node", side: nodeSide(node.V18)}
	h.start(db, "slow")
	db.await("Node to start the job", func() bool { return len(db.seen()) == 1 })
	db.ageLocks()
	j := newJournal()
	p := startRust(t, db.url, j, withTasks("slow"), withRecovery)
	j.await(t, "started", 1)
	if runs := values[string](db, "select worker from interop.runs where ended_at is null order by id"); len(runs) != 2 {
		t.Errorf("at work on the job: %v, want both", runs)
	}
	open()
	j.await(t, "finished", 1)
	p.stop(t)
	h.process.stop(t)
}

// One heartbeat that fails is the last one of 0.13.5, which works on, and then loses a
// running job to a sweep. 0.14.1 writes the next.
func TestRustHeartbeatsAfterAnError(t *testing.T) {
	forEachRust(t, func(t *testing.T, v rust.Version) {
		db := gworkerDatabase(t)
		open := db.closeGate()
		j := newJournal()
		p := startRustOf(t, v, db.url, j, withTasks("slow"), func(o *order) {
			o.Recovery = &orderRecovery{HeartbeatMs: 100, SweepMs: 24 * 60 * 60 * 1000, ThresholdMs: 24 * 60 * 60 * 1000}
		})
		db.await("its registration", func() bool { return len(values[string](db, "select id from graphile_worker._private_workers")) == 1 })
		db.exec("alter table graphile_worker._private_workers rename to away")
		goesOn := v != rust.V13
		words := "Worker heartbeat loop failed"
		if goesOn {
			words = "Worker heartbeat failed; will retry"
		}
		db.await("a failed heartbeat", func() bool { return strings.Contains(p.stderr.String(), words) })
		db.exec("alter table graphile_worker.away rename to _private_workers")

		// The worker still works. Its registration is as old as it soon would be.
		db.exec("select graphile_worker.add_job('slow')")
		j.await(t, "started", 1)
		db.exec("update graphile_worker._private_workers set last_heartbeat_at = now() - interval '10 minutes', started_at = now() - interval '1 hour'")
		old := "select last_heartbeat_at < now() - interval '9 minutes' from graphile_worker._private_workers"
		if goesOn {
			db.await("the next heartbeat", func() bool { return !value[bool](db, old) })
		}
		result, err := db.client().Sweep(t.Context(), gworker.SweepOptions{})
		if err != nil || (len(result.Workers) == 1) == goesOn || (db.lockedBy("slow") == "") == goesOn {
			t.Errorf("%s: our sweep took %+v, %v; its running job is locked by %q", v, result, err, db.lockedBy("slow"))
		}
		open()
		j.await(t, "finished", 1)
		p.stop(t)
	})
}

// The local queue of 0.13.5 takes several jobs of one named queue at once, and they
// run at the same time. 0.14.1 takes one.
func TestRustBatchOfOneQueue(t *testing.T) {
	for v, want := range map[rust.Version]int{rust.V13: 3, rust.V14: 1} {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			rust.Require(t, v)
			db := gworkerDatabase(t)
			open := db.closeGate()
			for range 3 {
				db.exec("select graphile_worker.add_job('slow', queue_name => 'one')")
			}
			db.exec("select graphile_worker.add_job('slow')") // claimed with them: it says when
			j := newJournal()
			p := startRustOf(t, v, db.url, j, withTasks("slow"), withConcurrency(4), withLocalQueue(10))
			j.await(t, "started", want+1)
			if locked := value[int](db, "select count(*)::int from graphile_worker._private_jobs where locked_by is not null and job_queue_id is not null"); locked != want {
				t.Errorf("%d jobs of the queue are locked at once, want %d", locked, want)
			}
			open()
			j.await(t, "finished", 4)
			p.stop(t)
		})
	}
}

// Without a local queue each slot takes one job for each poll and each notification,
// and then waits for the next, however many are runnable.
func TestRustTakesOneJobPerSlotAndSignal(t *testing.T) {
	forEachRust(t, func(t *testing.T, v rust.Version) {
		db := gworkerDatabase(t)
		const slots, jobs = 2, 9
		for range jobs {
			db.exec("select graphile_worker.add_job('work')")
		}
		j := newJournal()
		p := startRustOf(t, v, db.url, j, withTasks("work"), withConcurrency(slots), func(o *order) {
			o.PollMs = 24 * 60 * 60 * 1000 // the first poll is at once, the next one never
		})
		for signals := 1; signals <= 3; signals++ {
			db.await("the jobs of a signal", func() bool { return len(db.jobs()) <= jobs-slots*signals })
			if left := len(db.jobs()); left != jobs-slots*signals {
				t.Errorf("%d jobs are left after %d signals, want %d of %d done for each", left, signals, slots, jobs)
			}
			if signals < 3 {
				db.exec(`notify "jobs:insert", '{"count": 1}'`)
			}
		}
		p.stop(t)
		if left := len(db.jobs()); left != jobs-3*slots {
			t.Errorf("%d jobs are left in the end, want those that had no signal", left)
		}
		gworkerSide.runOnce(t, db.url, "work")
		if left := db.jobs(); len(left) != 0 {
			t.Errorf("a worker of ours left %+v", left)
		}
	})
}

// Rust completes by the job's id alone: a worker that has lost its lock deletes what
// another is running. That one's handler is told, and stores nothing.
func TestRustCompletesWhatItHasLost(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	db := gworkerDatabase(t)
	open := db.closeGate()
	j := newJournal()
	p := startRust(t, db.url, j, withTasks("slow"))
	db.exec("select graphile_worker.add_job('slow')")
	j.await(t, "started", 1)
	db.exec("select graphile_worker.force_unlock_workers(array[$1])", db.lockedBy("slow"))

	started, finish := make(chan struct{}), make(chan struct{})
	lost := make(chan int64, 10)
	observe := func(e event.Event) {
		if e, ok := e.(event.JobLost); ok {
			lost <- e.Job.ID
		}
	}
	worker, err := gworker.NewWorker(gworker.Config{DatabaseURL: db.url, Concurrency: 1, Observers: []func(event.Event){observe}, Tasks: []gworker.Task{
		gworker.NewRawTask("slow", func(context.Context, *gworker.RawJob) error {
			close(started)
			<-finish
			return nil
		}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := worker.RunOnce(t.Context()); err != nil {
			t.Error(err)
		}
	})
	<-started
	db.await("our lock", func() bool { return strings.HasPrefix(db.lockedBy("slow"), "gworker") })
	open()
	j.await(t, "finished", 1)
	db.await("Rust to delete the job under us", func() bool { return len(db.jobs()) == 0 })
	close(finish)
	running.Wait()
	p.stop(t)
	select {
	case <-lost:
	default:
		t.Error("our worker did not tell that its job was gone")
	}
}

// An error of the database ends a Rust worker that claims job by job. With a local
// queue it asks again and again, without a pause. Ours waits and goes on.
func TestDatabaseErrorsInRust(t *testing.T) {
	for _, localQueue := range []bool{false, true} {
		t.Run(fmt.Sprintf("local queue %v", localQueue), func(t *testing.T) {
			t.Parallel()
			rust.Require(t, rust.V14)
			db := gworkerDatabase(t)
			j, ours := newJournal(), newJournal()
			options := []rustOption{withTasks("work")}
			if localQueue {
				options = append(options, withLocalQueue(10))
			}
			p := startRust(t, db.url, j, options...)
			db.exec("select graphile_worker.add_job('work')")
			j.await(t, "finished", 1)
			here := gworkerSide.startWorker(t, order{ConnectionString: db.url, Tasks: []string{"other"}, Concurrency: 1}, ours)
			db.exec("select graphile_worker.add_job('other')")
			ours.await(t, "finished", 1)

			db.await("both jobs to be completed", func() bool { return len(db.jobs()) == 0 })
			db.exec("alter table graphile_worker._private_jobs rename to away")
			db.exec(`notify "jobs:insert", '{"count": 1}'`)
			if localQueue {
				db.await("errors", func() bool { return strings.Count(p.stderr.String(), "LocalQueue failed to fetch jobs") >= 10 })
			} else if err := p.end(t); err == nil {
				t.Errorf("it ended as if nothing had happened:\n%s", p.stderr)
			}
			db.exec("alter table graphile_worker.away rename to _private_jobs")
			db.exec("select graphile_worker.add_job('other')")
			ours.await(t, "finished", 2)
			here.stop(t)
			if localQueue {
				db.exec("select graphile_worker.add_job('work')")
				j.await(t, "finished", 2)
				p.stop(t)
			}
		})
	}
}

// A running Rust worker does not hear that the schema has been migrated beyond what
// it knows, and goes on. Ours ends, with its own error.
func TestRustIgnoresBreakingMigrations(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	db := gworkerDatabase(t)
	j, ours := newJournal(), newJournal()
	p := startRust(t, db.url, j, withTasks("work"))
	j.await(t, "ready", 1)
	here := gworkerSide.startWorker(t, order{ConnectionString: db.url, Tasks: []string{"other"}, Concurrency: 1}, ours)
	db.exec("select graphile_worker.add_job('other')")
	ours.await(t, "finished", 1)
	db.exec(`with ledger as (insert into graphile_worker.migrations (id, breaking) values (30, true) returning id)
		select pg_notify('worker:migrate', '{"migrationNumber":30,"breaking":true}') from ledger`)
	if err := here.end(t); err == nil || !strings.Contains(here.stderr.String(), "30") {
		t.Errorf("our worker: %v\n%s", err, here.stderr)
	}
	db.exec("select graphile_worker.add_job('work')")
	j.await(t, "finished", 1)
	p.stop(t)
}

// What one call adds has one mode for its keys: preserve_run_at for all if one asks
// for it. unsafe_dedupe is refused there.
func TestRustAddsJobsWithOneKeyMode(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	db := gworkerDatabase(t)
	add := func(run time.Time, mode string) {
		rustSide(rust.V14).add(t, db.url, call{AddJobs: []spec{
			{Task: "keyed", Key: "a", RunAt: run, KeyMode: mode}, {Task: "keyed", Key: "b", RunAt: run},
		}})
	}
	add(longAgo, "")
	add(longAgo.Add(time.Hour), "preserve_run_at")
	for _, job := range db.jobs() {
		if !job.RunAt.Equal(longAgo) || job.Revision != 1 {
			t.Errorf("%+v, want its first run_at kept", job)
		}
	}
	j := newJournal()
	o := order{ConnectionString: db.url, Calls: []call{{AddJobs: []spec{{Task: "keyed", Key: "a", KeyMode: "unsafe_dedupe"}}}}}
	p := start(t, "rust client", rust.Command(t.Context(), t, rust.V14, "client"), o, j)
	if err := p.end(t); err == nil || !strings.Contains(p.stderr.String(), "UnsafeDedupe job_key_mode is not supported") {
		t.Errorf("unsafe_dedupe in a batch: %v\n%s", err, p.stderr)
	}
}

// A cleanup that removes the row of a task makes a running Rust worker blind for new
// jobs of it: it keeps the row's id.
func TestRustKeepsTaskIDs(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	db := gworkerDatabase(t)
	j := newJournal()
	p := startRust(t, db.url, j, withTasks("work", "other"))
	j.await(t, "ready", 1)
	if _, err := db.client().Cleanup(t.Context(), gworker.CleanupOptions{
		Tasks: []gworker.CleanupTask{gworker.GCTaskIdentifiers}, KeepTasks: []string{"other"},
	}); err != nil {
		t.Fatal(err)
	}
	db.exec("select graphile_worker.add_job('work', priority => -1)")
	db.exec("select graphile_worker.add_job('other')")
	j.await(t, "finished", 1)
	if seen := db.seen(); len(seen) != 1 || seen[0].Task != "other" {
		t.Errorf("it ran %+v, want it to pass the job of the task whose row is new", seen)
	}
	p.stop(t)
	startRust(t, db.url, newJournal(), withTasks("work"), once).wait(t)
	if left := db.jobs(); len(left) != 0 {
		t.Errorf("a new worker left %+v", left)
	}
}

// A connection that is lost while a job is completed ends a Rust worker, as every
// error of the database does; the job stays locked.
func TestLostConnectionEndsRust(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	db := gworkerDatabase(t)
	open := db.closeGate()
	j := newJournal()
	p := startRust(t, db.url, j, withTasks("slow"))
	db.exec("select graphile_worker.add_job('slow')")
	j.await(t, "started", 1)
	keeper := db.connect() // of the job's row, so that its completion waits
	if _, err := keeper.Exec(t.Context(), "begin; select from graphile_worker._private_jobs for update"); err != nil {
		t.Fatal(err)
	}
	open()
	db.await("the completion's connection to be cut", func() bool {
		return value[bool](db, `select coalesce(bool_or(pg_terminate_backend(pid)), false) from pg_stat_activity
			where datname = current_database() and wait_event_type = 'Lock' and query ~ 'delete\s+from'`)
	})
	if err := p.end(t); err == nil {
		t.Errorf("it ended as if nothing had happened:\n%s", p.stderr)
	}
	if left := db.jobs(); len(left) != 1 || !left[0].Locked {
		t.Errorf("left: %+v, want the job still locked", left)
	}
}

// A panic is a failed attempt, and the worker goes on.
func TestPanicInRust(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	db := gworkerDatabase(t)
	j := newJournal()
	p := startRust(t, db.url, j, withTasks("panicking", "fast"))
	db.exec(`select graphile_worker.add_job('panicking', '{"panic": "no way"}'::json, queue_name => 'q')`)
	db.exec(`select graphile_worker.add_job('fast', priority => 1)`)
	j.await(t, "finished", 2)
	p.stop(t)
	jobs := db.jobs()
	if len(jobs) != 1 || jobs[0].LastError == nil || *jobs[0].LastError != `TaskPanic("no way")` || jobs[0].Locked || jobs[0].QueueLocked || jobs[0].Attempts != 1 {
		t.Errorf("left: %+v, want the panic as the error of one attempt", jobs)
	}
}

// A shutdown drops a job that does not end within the grace period: it goes back
// with its attempt, later, while what the job has begun is not undone.
func TestShutdownOfRustReturnsTheJob(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	db := gworkerDatabase(t)
	open := db.closeGate()
	j := newJournal()
	p := startRust(t, db.url, j, withTasks("slow"), func(o *order) { o.GraceMs = 1 })
	db.exec("select graphile_worker.add_job('slow', queue_name => 'q')")
	j.await(t, "started", 1)
	p.stop(t)
	jobs := db.jobs()
	if len(jobs) != 1 || jobs[0].Locked || jobs[0].QueueLocked || jobs[0].Attempts != 0 || !jobs[0].Available {
		t.Errorf("left: %+v, want the job back with its attempt", jobs)
	}
	if !value[bool](db, "select run_at > created_at + interval '25 seconds' from graphile_worker._private_jobs") {
		t.Errorf("left: %+v, want it to wait for 30 s", jobs)
	}
	open()
	db.exec("update graphile_worker._private_jobs set run_at = now()")
	gworkerSide.runOnce(t, db.url, "slow")
	if seen := db.seen(); len(seen) != 2 || seen[1].Attempts != 1 || len(db.jobs()) != 0 {
		t.Errorf("runs: %+v, left: %+v", seen, db.jobs())
	}
}
