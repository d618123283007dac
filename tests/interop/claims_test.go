package interop_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker/tests/interop/node"
)

// Every side leaves the same jobs alone for their flags, and leaves them as they
// were.
func TestForbiddenFlags(t *testing.T) {
	flags := [][]string{nil, {"a"}, {"b"}, {"c"}, {"a", "c"}, {"b", "c"}, {""}, {"A"}, {"a b"}}
	forEachSide(t, func(t *testing.T, s side) {
		for _, localQueue := range []int{0, 4} {
			if localQueue > 0 && s.isNode() {
				continue // it would fill with jobs that its slots, which ask with flags, never take
			}
			db := gworkerDatabase(t)
			var specs []spec
			for i, f := range flags {
				specs = append(specs, spec{Task: "x", Priority: i, Flags: f, RunAt: longAgo, Queue: fmt.Sprintf("q%d", i%2)})
			}
			gworkerSide.add(t, db.url, call{AddJobs: specs})
			before := db.jobs()
			// Twice: Node's runOnce may end while its other slot runs the job before in
			// the queue.
			for range 2 {
				s.startWorker(t, order{
					ConnectionString: db.url, Tasks: []string{"x"}, Concurrency: 2, Once: true,
					ForbiddenFlags: []string{"a", "b"}, LocalQueue: localQueue,
				}, newJournal()).wait(t)
			}
			want := []storedJob{}
			for _, j := range before {
				switch j.Priority {
				case 1, 2, 4, 5:
					want = append(want, j)
				}
			}
			if diff := cmp.Diff(want, db.jobs()); diff != "" {
				t.Errorf("what %s left with a local queue of %d (-want +got):\n%s", s, localQueue, diff)
			}
			if n := len(db.seen()); n != len(flags)-len(want) {
				t.Errorf("%s ran %d jobs with a local queue of %d", s, n, localQueue)
			}
		}
	})
}

// Each side leaves to the other what it must not run: with all jobs gone, the
// flags say who ran what.
func TestFleetSharedByFlags(t *testing.T) {
	node.Require(t)
	for _, localQueue := range []int{0, 30} {
		db := gworkerDatabase(t)
		const jobs = 400
		specs := make([]spec, jobs)
		for i := range specs {
			specs[i] = spec{Task: "work", Payload: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i))}
			switch i % 4 {
			case 0:
				specs[i].Flags = []string{"not gworker"}
			case 1:
				specs[i].Flags = []string{"other", "not node"}
			case 2:
				specs[i].Queue = fmt.Sprintf("queue %d", i/4%5)
			}
		}
		gworkerSide.add(t, db.url, call{AddJobs: specs})
		j := newJournal()
		work := order{ConnectionString: db.url, Tasks: []string{"work"}, Concurrency: 5, LocalQueue: localQueue}
		work.ForbiddenFlags = []string{"not gworker"}
		gworkers := gworkerSide.startWorker(t, work, j)
		work.ForbiddenFlags, work.LocalQueue = []string{"not node"}, 0 // see TestForbiddenFlags
		nodes := nodeSide(node.V18).startWorker(t, work, j)
		j.await(t, "finished", jobs)
		gworkers.stop(t)
		nodes.stop(t)
		type count struct{ Runs, Wrong, Left int }
		got := query[count](db, `
			select count(*),
				count(*) filter (where job -> 'flags' ? 'not gworker' and worker = 'gworker' or job -> 'flags' ? 'not node' and worker <> 'gworker'),
				(select count(*) from graphile_worker._private_jobs)
			from interop.runs`)[0]
		if want := (count{Runs: jobs}); got != want {
			t.Errorf("local queue of %d: %+v, want %+v", localQueue, got, want)
		}
	}
}

// A local queue fills alike on every side, and goes back alike when its worker
// stops, before the job that runs has ended.
func TestLocalQueueGoesBack(t *testing.T) {
	forEachSide(t, func(t *testing.T, s side) {
		if s == nodeSide(node.V16) {
			t.Skipf("%s has no local queue", s)
		}
		db := gworkerDatabase(t)
		var specs []spec
		for i := range 5 {
			specs = append(specs, spec{
				Task: "x", Priority: i, RunAt: longAgo, Key: fmt.Sprintf("key %d", i), Queue: fmt.Sprintf("queue %d", i),
			})
		}
		gworkerSide.add(t, db.url, call{AddJobs: specs})
		before := db.jobs()
		open := db.closeGate()
		j := newJournal()
		p := s.startWorker(t, order{ConnectionString: db.url, Tasks: []string{"x"}, Concurrency: 1, LocalQueue: 3}, j)
		j.await(t, "started", 1)
		locked := func(want int) {
			t.Helper()
			for give := time.Now().Add(deadline); ; {
				n := value[int](db, "select count(*)::int from graphile_worker._private_jobs where locked_at is not null")
				if n == want {
					return
				}
				if time.Now().After(give) {
					t.Fatalf("%d jobs are locked, want %d", n, want)
				}
			}
		}
		locked(3) // the claim's: two of them wait
		if err := p.stdin.Close(); err != nil {
			t.Fatal(err)
		}
		locked(1) // while the gate is closed
		want := append([]storedJob(nil), before...)
		want[0].Locked, want[0].QueueLocked, want[0].Available, want[0].Attempts = true, true, false, 1
		if diff := cmp.Diff(want, db.jobs()); diff != "" {
			t.Errorf("the jobs while the first runs (-want +got):\n%s", diff)
		}
		open()
		p.wait(t)
		if diff := cmp.Diff(before[1:], db.jobs()); diff != "" {
			t.Errorf("the jobs afterwards (-want +got):\n%s", diff)
		}
	})
}

// Node and gworker drain one queue together, both with local queues: every job
// once, and never two of a named queue at the same time, also while their jobs
// wait.
func TestMixedFleetWithLocalQueues(t *testing.T) {
	node.Require(t)
	db := gworkerDatabase(t)
	const jobs = 1500
	specs := make([]spec, jobs)
	for i := range specs {
		specs[i] = spec{Task: "work", Payload: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i))}
		if i%10 < 3 {
			specs[i].Queue = fmt.Sprintf("queue %d", i%7)
		}
	}
	nodeSide(node.V18).add(t, db.url, call{AddJobs: specs})
	open := db.closeGate()
	j, work := newJournal(), order{ConnectionString: db.url, Tasks: []string{"work"}, Concurrency: 5, LocalQueue: 20}
	gworkers := gworkerSide.startWorker(t, work, j)
	nodes := nodeSide(node.V18).startWorker(t, work, j)
	j.await(t, "started", 2*work.Concurrency)
	open()
	j.await(t, "finished", jobs)
	gworkers.stop(t)
	nodes.stop(t)
	type count struct{ Payloads, Runs, Left, Workers int }
	got := query[count](db, `
		select count(distinct job -> 'payload' ->> 'n'), count(*),
			(select count(*) from graphile_worker._private_jobs), count(distinct worker)
		from interop.runs`)[0]
	if want := (count{jobs, jobs, 0, 2}); got != want {
		t.Errorf("the runs: %+v, want %+v", got, want)
	}
	type pair struct{ Queue, First, Second string }
	for _, p := range query[pair](db, `
		select a.queue, a.worker || ' job ' || a.job_id, b.worker || ' job ' || b.job_id
		from interop.runs a join interop.runs b on b.queue = a.queue and b.id > a.id
		where a.queue <> '' and a.started_at < b.ended_at and b.started_at < a.ended_at
		order by a.id limit 10`) {
		t.Errorf("two jobs of %s ran at the same time: %s, and %s", p.Queue, p.First, p.Second)
	}
}
