package interop_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/tests/interop/rust"
)

// marks are the jobs that Rust's revision 22 knows as retired.
func (db *database) marks() []int64 {
	db.t.Helper()
	return values[int64](db, "select id from graphile_worker._private_job_retirements order by id")
}

// takenForDead makes every registered worker look silent for hours.
func (db *database) takenForDead() {
	db.t.Helper()
	db.exec("update graphile_worker._private_workers set last_heartbeat_at = now() - interval '2 hours', started_at = now() - interval '3 hours'")
}

// sweepAs has the side sweep until no dead worker is registered: the first sweep
// of a worker that was killed may still have its lock for a moment.
func (db *database) sweepAs(s side) {
	db.t.Helper()
	client := db.client()
	db.await("a sweep by "+s.String(), func() bool {
		if s.isRust() {
			s.utilities(db.t, db.url, []adminCall{{Method: "sweepStaleWorkers", Options: &adminOptions{DelayMs: ptr(0)}}})
		} else if result, err := client.Sweep(db.t.Context(), gworker.SweepOptions{}); err != nil {
			db.t.Fatalf("our sweep: %+v, %v", result, err)
		}
		return value[int](db, "select count(*)::int from graphile_worker._private_workers") == 0
	})
}

// On Rust's revision 22, a job that is replaced or removed by its key while it runs
// stays retired when its worker dies: whoever runs it, retires it and sweeps.
func TestRetiredJobsStayRetired(t *testing.T) {
	ours, theirs := gworkerSide, rustSide(rust.V14)
	for _, runner := range []side{ours, theirs} {
		for _, retirer := range []side{ours, theirs} {
			for _, sweeper := range []side{ours, theirs} {
				t.Run(fmt.Sprintf("%s runs, %s retires, %s sweeps", runner, retirer, sweeper), func(t *testing.T) {
					t.Parallel()
					testRetiredJobs(t, runner, retirer, sweeper)
				})
			}
		}
	}
}

func testRetiredJobs(t *testing.T, runner, retirer, sweeper side) {
	rust.Require(t, rust.V14)
	db := rustDatabase(t, rust.V14)
	open := db.closeGate()
	for _, key := range []string{"replaced", "removed", "kept"} {
		db.exec(`select graphile_worker.add_job('keyed', '{"version": 1}'::json, job_key => $1, queue_name => $1, max_attempts => 3)`, key)
	}
	j := newJournal()
	o := order{ConnectionString: db.url, Tasks: []string{"keyed"}, Concurrency: 3}
	if runner.isRust() {
		o.Recovery = &orderRecovery{ThresholdMs: 24 * 60 * 60 * 1000} // it is on, and leaves the sweeping to the test
	}
	p := runner.startWorker(t, o, j)
	j.await(t, "started", 3)
	db.await("the three jobs to be locked", func() bool {
		return value[int](db, "select count(*)::int from graphile_worker._private_jobs where locked_by is not null") == 3
	})

	retirer.add(t, db.url, call{AddJob: &spec{Task: "keyed", Key: "replaced", Payload: json.RawMessage(`{"version": 2}`), RunAt: longAgo}})
	if retirer.isRust() {
		retirer.utilities(t, db.url, []adminCall{{Method: "removeJob", Options: &adminOptions{JobKey: "removed"}}})
	} else if _, err := db.client().RemoveJob(t.Context(), "removed"); err != nil {
		t.Fatal(err)
	}
	if marks := db.marks(); len(marks) != 2 {
		t.Errorf("%s marked %v as retired, want the two jobs", retirer, marks)
	}

	p.kill(t)
	open()
	db.takenForDead()
	db.sweepAs(sweeper)
	gworkerSide.runOnce(t, db.url, "keyed")
	rustSide(rust.V14).runOnce(t, db.url, "keyed")
	type run struct {
		Key     string
		Version int
		Runs    int
	}
	got := map[run]bool{}
	for _, r := range query[run](db, `
		select job ->> 'key', (job -> 'payload' ->> 'version')::int, count(*)::int from interop.runs group by 1, 2`) {
		got[r] = true
	}
	for _, want := range []run{{"replaced", 1, 1}, {"replaced", 2, 1}, {"removed", 1, 1}, {"kept", 1, 2}} {
		if !got[want] {
			t.Errorf("no %+v among the runs %v", want, got)
		}
	}
	for _, job := range db.jobs() {
		if job.Locked || job.QueueLocked || job.Available || job.Attempts != job.MaxAttempts || job.Key != nil {
			t.Errorf("left: %+v, want only retired jobs, unlocked", job)
		}
	}
	if left := len(db.jobs()); left != 2 {
		t.Errorf("%d jobs are left, want the two retired ones", left)
	}
	// Deleting without the foreign key.
	result, err := db.client().Cleanup(t.Context(), gworker.CleanupOptions{Tasks: []gworker.CleanupTask{gworker.DeletePermafailedJobs}})
	if err != nil || len(db.jobs()) != 0 || len(db.marks()) != 0 {
		t.Errorf("after a cleanup (%+v, %v): jobs %+v, marks %v", result, err, db.jobs(), db.marks())
	}
}

// What we finish, return and bring back on revision 22 leaves no mark behind that
// would keep a job from its attempts.
func TestOurWorkOnRevision22(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	db := rustDatabase(t, rust.V14)
	client := db.client()

	// A retired job that ends well is deleted with its mark.
	open := db.closeGate()
	db.exec("select graphile_worker.add_job('keyed', job_key => 'k')")
	j := newJournal()
	p := gworkerSide.startWorker(t, order{ConnectionString: db.url, Tasks: []string{"keyed"}, Concurrency: 1}, j)
	j.await(t, "started", 1)
	db.await("the job to be locked", func() bool { return db.lockedBy("keyed") != "" })
	db.exec("select graphile_worker.remove_job('k')")
	if len(db.marks()) != 1 {
		t.Fatalf("marks: %v", db.marks())
	}
	open()
	db.await("the job to end", func() bool { return len(db.jobs()) == 0 })
	p.stop(t)
	if marks := db.marks(); len(marks) != 0 {
		t.Errorf("marks of deleted jobs: %v", marks)
	}

	// A job that was failed by hand and brought back is an ordinary one: a dead
	// worker costs it no attempt, whoever sweeps.
	var ids []int64
	for _, bring := range []string{"retry", "reschedule"} {
		job, err := client.AddJob(t.Context(), gworker.JobSpec{Task: "slow", MaxAttempts: 3, Queue: bring})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, job.ID)
	}
	if _, err := client.PermanentlyFailJobs(t.Context(), ids, "by hand"); err != nil {
		t.Fatal(err)
	}
	if got := db.marks(); len(got) != 2 {
		t.Errorf("marks after failing by hand: %v, want %v", got, ids)
	}
	if _, err := client.RetryJobs(t.Context(), ids[:1]); err != nil {
		t.Fatal(err)
	}
	if _, err := client.RescheduleJobs(t.Context(), ids[1:], gworker.RescheduleOptions{Attempts: ptr(0)}); err != nil {
		t.Fatal(err)
	}
	if marks := db.marks(); len(marks) != 0 {
		t.Errorf("marks of jobs that were brought back: %v", marks)
	}
	open = db.closeGate()
	j = newJournal()
	p = startRust(t, db.url, j, withTasks("slow"), withConcurrency(2), func(o *order) {
		o.Recovery = &orderRecovery{ThresholdMs: 24 * 60 * 60 * 1000}
	})
	j.await(t, "started", 2)
	p.kill(t)
	open()
	db.takenForDead()
	db.sweepAs(rustSide(rust.V14))
	for _, job := range db.jobs() {
		if job.Attempts != 0 || job.Locked || !job.Available {
			t.Errorf("after Rust's sweep: %+v, want all attempts", job)
		}
	}
}

// A job that kills its worker. Rust's sweeps restore the attempt each time and count
// nothing, so that it is started without end where only they sweep; ours end it after
// max_attempts starts.
func TestPoisonJob(t *testing.T) {
	const maxAttempts, deaths = 2, 4
	starts := func(t *testing.T, sweeper side, keyed bool) (starts int, left []storedJob) {
		rust.Require(t, rust.V14)
		db := rustDatabase(t, rust.V14)
		key := map[bool]string{true: "k"}[keyed]
		db.exec(`select graphile_worker.add_job('slow', '{"exit": true}'::json, max_attempts => $1, job_key => nullif($2, ''))`, maxAttempts, key)
		for range deaths {
			o := order{ConnectionString: db.url, Tasks: []string{"slow"}, Concurrency: 1, PollMs: 200, Recovery: &orderRecovery{ThresholdMs: 24 * 60 * 60 * 1000}}
			if job := db.jobs()[0]; !job.Available {
				break
			}
			p := rustSide(rust.V14).startWorker(t, o, newJournal())
			if err := p.end(t); err == nil {
				t.Fatal("the job did not end its worker")
			}
			starts++
			db.takenForDead()
			db.sweepAs(sweeper)
			db.exec("update graphile_worker._private_jobs set run_at = now()")
		}
		return starts, db.jobs()
	}
	for _, keyed := range []bool{false, true} {
		t.Run(fmt.Sprintf("keyed %v", keyed), func(t *testing.T) {
			t.Run("Rust sweeps", func(t *testing.T) {
				t.Parallel()
				n, left := starts(t, rustSide(rust.V14), keyed)
				if n != deaths || len(left) != 1 || !left[0].Available || left[0].Attempts != 0 {
					t.Errorf("started %d times, and then %+v; want no end of it", n, left)
				}
			})
			t.Run("we sweep", func(t *testing.T) {
				t.Parallel()
				n, left := starts(t, gworkerSide, keyed)
				if n != maxAttempts || len(left) != 1 || left[0].Available || left[0].Locked {
					t.Errorf("started %d times, and then %+v; want an end after %d", n, left, maxAttempts)
				}
			})
		})
	}
}
