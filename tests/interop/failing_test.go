package interop_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A failed run is written alike by every side: the message (but see storedError), the attempt, and
// exp(attempts) seconds, counted up to the tenth attempt, from the failure.
func TestFailingJob(t *testing.T) {
	forEachSide(t, func(t *testing.T, s side) {
		db := gworkerDatabase(t)
		const text = "boom: line one\nline \"two\" ünï"
		// Attempts made before, of 25.
		before := []int{0, 1, 3, 9, 10, 17, 24}
		for i, attempts := range before {
			db.exec(`
				with added as (
					select * from graphile_worker.add_job('fails', json_build_object('fail', $1::text),
						queue_name => case when $2 % 2 = 0 then 'queue ' || $2 end, job_key => 'key ' || $2)
				)
				select id from added`, text, i)
			db.exec("update graphile_worker._private_jobs set attempts = $1 where key = 'key ' || $2::int", attempts, i)
		}
		s.runOnce(t, db.url, "fails")

		type failure struct {
			Runs     int       // of this test
			Started  time.Time // the last of them
			FailedAt time.Time // the moment from which run_at was counted
			Now      time.Time
		}
		failures := query[failure](db, `
			select (select count(*) from interop.runs r where r.job_id = j.id),
				(select max(r.started_at) from interop.runs r where r.job_id = j.id),
				j.run_at - exp(least(j.attempts, 10)) * interval '1 second',
				clock_timestamp()
			from graphile_worker._private_jobs j order by j.id`)
		jobs := db.jobs()
		if len(jobs) != len(before) {
			t.Fatalf("%d jobs are left of %d that fail", len(jobs), len(before))
		}
		for i, got := range jobs {
			f := failures[i]
			if f.Runs < 1 {
				t.Errorf("job %d was not run", i)
				continue
			}
			if f.FailedAt.Before(f.Started) || f.FailedAt.After(f.Now) {
				t.Errorf("after attempt %d the next run_at is %s: counted from %s, which is not between the start at %s and %s",
					got.Attempts, got.RunAt, f.FailedAt, f.Started, f.Now)
			}
			want := storedJob{
				Task: "fails", Payload: got.Payload, RunAt: got.RunAt, LastError: ptr(s.storedError(text)), MaxAttempts: 25, Key: got.Key,
				Queue: got.Queue,
				// One run, unless the machine was so slow that a retry became due.
				Attempts:  before[i] + f.Runs,
				Available: before[i]+f.Runs < 25,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("job %d after its failure (-want +got):\n%s", i, diff)
			}
		}
	})
}

// A permanently failed job stays as it is, whoever looks at it.
func TestPermanentlyFailedJobIsLeftAlone(t *testing.T) {
	forEachSide(t, func(t *testing.T, s side) {
		db := gworkerDatabase(t)
		db.exec(`select graphile_worker.add_job('fails', '{"fail":"for good"}', max_attempts => 1, queue_name => 'q')`)
		s.runOnce(t, db.url, "fails")
		failed := db.jobs()
		if len(failed) != 1 || failed[0].Available || failed[0].Locked || failed[0].QueueLocked {
			t.Fatalf("the job after its only attempt: %+v", failed)
		}
		db.exec("update graphile_worker._private_jobs set run_at = $1", longAgo)
		failed[0].RunAt = longAgo
		for _, again := range []side{gworkerSide, s} {
			again.runOnce(t, db.url, "fails")
			if diff := cmp.Diff(failed, db.jobs()); diff != "" {
				t.Errorf("%s changed it (-before +after):\n%s", again, diff)
			}
		}
		if runs := len(db.seen()); runs != 1 {
			t.Errorf("it was run %d times, want once", runs)
		}
	})
}

// A job whose task a worker does not have is no business of that worker.
func TestUnknownTaskIsNotClaimed(t *testing.T) {
	forEachSide(t, func(t *testing.T, s side) {
		db := gworkerDatabase(t)
		db.exec("select graphile_worker.add_job('elsewhere', queue_name => 'shared', run_at => $1, priority => -5)", longAgo)
		before := db.jobs()
		db.exec("select graphile_worker.add_job('here', queue_name => 'shared')")

		s.runOnce(t, db.url, "here")
		if diff := cmp.Diff(before, db.jobs()); diff != "" {
			t.Errorf("the job of another worker's task (-before +after):\n%s", diff)
		}
		if seen := db.seen(); len(seen) != 1 || seen[0].Task != "here" {
			t.Errorf("runs: %+v, want the one of the known task", seen)
		}
	})
}
