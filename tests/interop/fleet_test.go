package interop_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// A member is a worker of a fleet. Its name is that of its runs.
type member struct {
	name  string
	side  side
	order func(*order)
}

// batching has a worker prefetch and write outcomes together, in Node and Rust.
func batching(o *order) { o.LocalQueue, o.BatchMs = 10, ptr(5) }

// fleetMembers are two workers of each runtime. Those of Rust are left out on a
// machine that cannot build them, unless it has to.
func fleetMembers(t *testing.T) []member {
	t.Helper()
	node.Require(t)
	members := []member{
		{"gworker, holding", gworkerSide, func(*order) {}},
		{"gworker, locking", gworkerSide, func(o *order) { o.HoldMs = ptr(0) }},
		{"node", nodeSide(node.V18), func(*order) {}},
		{"node, batching", nodeSide(node.V18), batching},
	}
	if err := rust.Available(); err != nil && os.Getenv(rust.RequireEnv) != "1" {
		t.Logf("without Rust workers: %v", err)
		return members
	}
	rust.Require(t, rust.V14)
	return append(members, member{"rust", rustSide(rust.V14), func(*order) {}},
		member{"rust, local queue", rustSide(rust.V14), batching})
}

// Two workers of each runtime drain one queue together, of jobs of all kinds, while
// keyed jobs are replaced and removed and cron adds its own: each job runs once, no
// queue runs two at a time, and what failed is left alike.
func TestMixedFleet(t *testing.T) {
	members := fleetMembers(t)
	db := gworkerDatabase(t)
	jobs := newFleetJobs(fleetSize(t))
	adders := []side{gworkerSide, nodeSide(node.V18), members[len(members)-1].side}
	for i, adder := range adders {
		at := func(i int) int { return i * len(jobs.specs) / len(adders) }
		adder.add(t, db.url, call{AddJobs: jobs.specs[at(i):at(i+1)]})
	}
	jobs.prepare(db)

	// Until all are at it, nobody ends a job, and so each has a share. Each works at
	// keyed jobs first, some of which are replaced or removed meanwhile.
	open := db.closeGate()
	j := newJournal()
	fleet := make(map[string]*process)
	for _, m := range members {
		o := order{
			ConnectionString: db.url, Worker: m.name, Tasks: fleetTasks, BatchTasks: []string{"batch"}, Concurrency: 4,
			Crontab: fleetCrontab,
		}
		m.order(&o)
		fleet[m.name] = m.side.startWorker(t, o, j)
		j.awaitFrom(t, fleet[m.name], "started")
	}
	for i, m := range members {
		jobs.replaceRunning(t, db, m.name, adders[i%len(adders)])
		jobs.removeRunning(t, db, m.name)
	}
	began := time.Now()
	open()
	jobs.churn(t, db)
	db.awaitDrained(t, fleet)
	took := time.Since(began)
	for _, p := range fleet {
		p.stop(t)
	}

	verdict := jobs.judge(db)
	shares := make(map[string]int)
	for _, r := range verdict.runs {
		shares[r.Worker]++
	}
	t.Logf("%d runs in %s (%.0f a second), by worker %v; cron's among them: %d", len(verdict.runs), took.Round(time.Millisecond),
		float64(len(verdict.runs))/took.Seconds(), shares, verdict.scheduled)
	if len(shares) != len(members) {
		t.Errorf("%d workers of %d took part", len(shares), len(members))
	}
}

// fleetJobsEnv sets the number of jobs of TestMixedFleet.
const fleetJobsEnv = "GWORKER_FLEET_JOBS"

func fleetSize(t *testing.T) int {
	t.Helper()
	text := os.Getenv(fleetJobsEnv)
	if text == "" {
		return 20_000
	}
	size, err := strconv.Atoi(text)
	if err != nil || size < 1000 {
		t.Fatalf("%s is %q: set a number from 1000", fleetJobsEnv, text)
	}
	return size
}

// drainPatience bounds the wait for a whole fleet's work, on a busy machine too.
const drainPatience = 10 * time.Minute

// pendingJobs are those that some worker has still to end.
const pendingJobs = `
	select concat_ws(' ', j.id, j.payload, 'attempt', j.attempts, 'of', j.max_attempts, 'at', j.run_at, 'error', j.last_error,
		'locked by', j.locked_by, 'since', j.locked_at, 'in', q.queue_name, 'locked by', q.locked_by, 'now', clock_timestamp())
	from graphile_worker._private_jobs j left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
	where j.locked_at is not null or attempts < max_attempts and run_at < now() + interval '1 minute'`

func (db *database) pending() int {
	db.t.Helper()
	return value[int](db, "select count(*) from ("+pendingJobs+") pending")
}

// awaitDrained waits until nothing is left to do, or a worker has ended by itself.
func (db *database) awaitDrained(t *testing.T, fleet map[string]*process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), drainPatience)
	defer cancel()
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for {
		left := db.pending()
		if left == 0 {
			return
		}
		for name, p := range fleet {
			select {
			case <-p.exited:
				t.Fatalf("%s ended while %d jobs were left: %v\n%s", name, left, p.err, p.stderr)
			default:
			}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("%d jobs are left after %s, among them:\n%s", left, drainPatience, strings.Join(values[string](db, pendingJobs+" limit 5"), "\n"))
		}
	}
}
