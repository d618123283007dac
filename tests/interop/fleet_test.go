package interop_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/gworker/gworker/tests/interop/node"
)

const (
	fleetJobs   = 5000
	fleetQueued = 500
	fleetQueues = 20
)

// Node 0.18 and gworker drain one queue together: every job once, and never two
// of a named queue at the same time.
func TestMixedFleet(t *testing.T) {
	node.Require(t)
	db := gworkerDatabase(t)
	specs := make([]spec, fleetJobs)
	for i := range specs {
		specs[i] = spec{Task: "work", Payload: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i))}
		// Pairs of one queue stand together, so that a claim of many meets both.
		const every = 2 * fleetJobs / fleetQueued
		if i%every < 2 {
			specs[i].Queue = fmt.Sprintf("queue %d", i/every%fleetQueues)
		}
	}
	nodeSide(node.V18).add(t, db.url, call{AddJobs: specs[:fleetJobs/2]})

	// Until both are at it, nobody ends a job: so each side has a share.
	open := db.closeGate()
	j, work := newJournal(), order{ConnectionString: db.url, Tasks: []string{"work"}, Concurrency: 10}
	gworkers := gworkerSide.startWorker(t, work, j)
	j.await(t, "started", work.Concurrency)
	nodes := nodeSide(node.V18).startWorker(t, work, j)
	j.await(t, "started", work.Concurrency+1)
	gworkerSide.add(t, db.url, call{AddJobs: specs[fleetJobs/2:]})
	open()
	j.await(t, "finished", fleetJobs)
	gworkers.stop(t)
	nodes.stop(t)

	if left := len(db.jobs()); left > 0 {
		t.Errorf("%d jobs are left", left)
	}
	type share struct {
		Worker       string
		Runs, Queued int
	}
	shares := query[share](db, `
		select worker, count(*), count(*) filter (where queue <> '') from interop.runs group by worker order by worker`)
	t.Logf("shares: %+v", shares)
	if len(shares) != 2 {
		t.Errorf("the runs were shared by %d workers, want 2", len(shares))
	}
	type count struct{ Payloads, Runs, Unfinished, Queued, Queues int }
	got := query[count](db, `
		select count(distinct job -> 'payload' ->> 'n'), count(*), count(*) filter (where ended_at is null),
			count(*) filter (where queue <> ''), count(distinct nullif(queue, ''))
		from interop.runs`)[0]
	if want := (count{fleetJobs, fleetJobs, 0, fleetQueued, fleetQueues}); got != want {
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
