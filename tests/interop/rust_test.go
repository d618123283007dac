package interop_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/gworker/gworker/tests/interop/rust"
)

// A rustOption changes what a Rust worker is ordered to do.
type rustOption func(*order)

func withTasks(tasks ...string) rustOption { return func(o *order) { o.Tasks = tasks } }

func withConcurrency(n int) rustOption { return func(o *order) { o.Concurrency = n } }

// once has the worker end when nothing is runnable.
func once(o *order) { o.Once = true }

// withLocalQueue has the worker prefetch, and both of its batchers write outcomes
// together.
func withLocalQueue(size int) rustOption {
	return func(o *order) { o.LocalQueue, o.BatchMs = size, ptr(5) }
}

// withRecovery switches the worker's own recovery on, quick enough for a test.
func withRecovery(o *order) {
	o.Recovery = &orderRecovery{HeartbeatMs: 200, SweepMs: 200, ThresholdMs: 2000, DelayMs: 1}
}

// startRust starts a worker of the newest release of the crate, with one slot and
// without recovery unless told otherwise. See the tasks in rust/src/tasks.rs.
func startRust(t *testing.T, url string, to *journal, options ...rustOption) *process {
	t.Helper()
	return startRustOf(t, rust.V14, url, to, options...)
}

func startRustOf(t *testing.T, v rust.Version, url string, to *journal, options ...rustOption) *process {
	t.Helper()
	o := order{ConnectionString: url, Concurrency: 1, PollMs: 200}
	for _, option := range options {
		option(&o)
	}
	return rustSide(v).startWorker(t, o, to)
}

// The releases end where we think that they end.
func TestRevisionsOfRust(t *testing.T) {
	forEachRust(t, func(t *testing.T, v rust.Version) {
		db := rustDatabase(t, v)
		got := values[int](db, "select id from graphile_worker.migrations order by id")
		want := make([]int, v.Revision)
		for i := range want {
			want[i] = i + 1
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s writes the revisions %v, want 1 to %d", v, got, v.Revision)
		}
	})
}

// A job that SQL adds runs in Rust, on our schema as on its own, job by job or
// through its local queue.
func TestJobOfSQLRunsInRust(t *testing.T) {
	forEachRust(t, func(t *testing.T, v rust.Version) {
		for name, options := range map[string][]rustOption{
			"direct":      {withTasks("fast", "failing")},
			"local queue": {withTasks("fast", "failing"), withLocalQueue(10)},
		} {
			t.Run(name, func(t *testing.T) {
				db := gworkerDatabase(t)
				j := newJournal()
				p := startRustOf(t, v, db.url, j, options...)
				j.await(t, "ready", 1)
				db.exec(`select graphile_worker.add_job('fast', '{"n": 1}'::json, queue_name => 'q')`)
				db.exec(`select graphile_worker.add_job('failing', '{"fail": "as ordered"}'::json, max_attempts => 1)`)
				j.await(t, "finished", 2)
				p.stop(t)
				left := db.jobs()
				if len(left) != 1 || left[0].LastError == nil || *left[0].LastError != rustSide(v).storedError("as ordered") || left[0].Locked {
					t.Errorf("%s left %+v, want the failed job alone", v, left)
				}
				for _, job := range db.seen() {
					if job.Task == "fast" && (job.Queue != "q" || string(job.Payload) != `{"n": 1}`) {
						t.Errorf("%s saw the job as %+v", v, job)
					}
				}
			})
		}
	})
}

// What Rust's client adds, we run; and what ours adds, Rust does.
func TestJobsAcrossRustAndGo(t *testing.T) {
	forEachRust(t, func(t *testing.T, v rust.Version) {
		t.Run("added by Rust", func(t *testing.T) { testHandover(t, rustSide(v), gworkerSide) })
		t.Run("added by us", func(t *testing.T) { testHandover(t, gworkerSide, rustSide(v)) })
	})
}

// A Rust worker that is killed leaves its job locked: what the test can do to it
// is what a crash does.
func TestKilledRustWorkerLeavesItsLock(t *testing.T) {
	db := gworkerDatabase(t)
	defer db.closeGate()()
	j := newJournal()
	p := startRust(t, db.url, j, withTasks("slow"))
	gworkerSide.add(t, db.url, call{AddJob: &spec{Task: "slow", Payload: json.RawMessage(`{}`)}})
	j.await(t, "started", 1)
	p.kill(t)
	if left := db.jobs(); len(left) != 1 || !left[0].Locked || left[0].Attempts != 1 {
		t.Errorf("left %+v, want one locked job", left)
	}
}
