package interop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gworker/gworker/tests/interop/node"
)

// awaitFrom returns once the process has told of an event of the kind.
func (j *journal) awaitFrom(t *testing.T, p *process, kind string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for {
		j.mu.Lock()
		found := slices.ContainsFunc(j.events, func(e report) bool { return e.From == p && e.Event == kind })
		j.mu.Unlock()
		if found {
			return
		}
		select {
		case <-j.changed:
		case <-p.exited:
			t.Fatalf("%s ended before a job was %s: %v\n%s", p.name, kind, p.err, p.stderr)
		case <-ctx.Done():
			t.Fatalf("waiting for a job %s by %s: %v", kind, p.name, context.Cause(ctx))
		}
	}
}

// The jobs of each named queue run in strict order, one at a time, while Node
// workers with and without a local queue and gworker share the queues.
func TestQueueOrderInAMixedFleet(t *testing.T) {
	node.Require(t)
	const queues, perQueue = 8, 30
	db := gworkerDatabase(t)
	var specs []spec
	for n := range perQueue {
		for q := range queues {
			// Added in another order than they are to run in: n says when.
			at := (n*7 + q) % perQueue
			specs = append(specs, spec{
				Task: "work", Queue: fmt.Sprintf("queue %d", q), Priority: at * 3 / perQueue,
				RunAt: longAgo.Add(time.Duration(at) * time.Minute), Payload: json.RawMessage(fmt.Sprintf(`{"n":%d}`, at)),
			})
		}
	}
	// Jobs between them that are in no queue keep the fleet busy.
	for range 200 {
		specs = append(specs, spec{Task: "work", Priority: 1})
	}
	nodeSide(node.V18).add(t, db.url, call{AddJobs: specs[:len(specs)/2]})
	gworkerSide.add(t, db.url, call{AddJobs: specs[len(specs)/2:]})

	// Until all are at it, nobody ends a job: so each has a share. The slots of
	// the three are fewer than the queues.
	open := db.closeGate()
	work := order{ConnectionString: db.url, Tasks: []string{"work"}, Concurrency: 2}
	j := newJournal()
	var fleet []*process
	for i, member := range []struct {
		side       side
		localQueue int
	}{{gworkerSide, 0}, {nodeSide(node.V18), 10}, {nodeSide(node.V17), 0}, {gworkerSide, 0}} {
		o := work
		o.LocalQueue = member.localQueue
		if i == 3 {
			o.Concurrency = 5
		}
		p := member.side.startWorker(t, o, j)
		fleet = append(fleet, p)
		j.awaitFrom(t, p, "started")
	}
	held := values[int](db, `
		select count(*)::int from graphile_worker._private_jobs where locked_by is not null group by locked_by order by count(*)`)
	if t.Logf("jobs held by each worker: %v", held); len(held) != len(fleet) || held[len(held)-1] <= 5 {
		t.Errorf("jobs held by each worker: %v, want four workers, and one of them with more than run anywhere", held)
	}
	open()
	j.await(t, "finished", len(specs))
	for _, p := range fleet {
		p.stop(t)
	}

	if left := len(db.jobs()); left > 0 {
		t.Errorf("%d jobs are left", left)
	}
	type run struct {
		Queue   string
		N       int
		Started time.Time
		Ended   time.Time
	}
	runs := query[run](db, `
		select queue, (job -> 'payload' ->> 'n')::int, started_at, ended_at from interop.runs where queue <> '' order by started_at`)
	if len(runs) != queues*perQueue {
		t.Errorf("%d runs, want %d", len(runs), queues*perQueue)
	}
	order, ended := map[string][]int{}, map[string]time.Time{}
	for _, r := range runs {
		if r.Started.Before(ended[r.Queue]) {
			t.Errorf("job %d of %s started before the one before it had ended", r.N, r.Queue)
		}
		order[r.Queue], ended[r.Queue] = append(order[r.Queue], r.N), r.Ended
	}
	for queue, got := range order {
		if !slices.IsSorted(got) {
			t.Errorf("%s ran in the order %v", queue, got)
		}
	}
	if locked := value[int](db, "select count(*)::int from graphile_worker._private_job_queues where locked_by is not null or locked_at is not null"); locked > 0 {
		t.Errorf("%d queues are still locked", locked)
	}
}
