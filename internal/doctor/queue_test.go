package doctor_test

import (
	"testing"

	"github.com/gworker/gworker/internal/doctor"
)

// sick is a queue with much to report.
func sick(t testing.TB) patient {
	p := healthyIn(t, oddName)
	p.locked("gworker_dead", "2 minutes")
	p.locked("pool-0123456789abcdef01", "5 hours")
	p.registered("gworker_silent", "10 minutes", `{"host": "h", "pid": 7}`)
	p.locked("gworker_silent", "10 minutes")
	p.do("insert into graphile_worker._private_job_queues (queue_name, locked_by, locked_at) values ('idle', 'gworker_silent', now() - interval '2 minutes')")
	p.waiting("late", "2 hours")
	p.failed("broken", 2)
	return p
}

// locked adds a job that a worker has locked for some time.
func (p patient) locked(worker, since string) {
	p.t.Helper()
	p.do("select graphile_worker.add_job('held')")
	p.do(`update graphile_worker._private_jobs set locked_by = '`+worker+`', locked_at = now() - $1::text::interval, attempts = 1
		where id = (select max(id) from graphile_worker._private_jobs)`, since)
}

// waiting adds a job that could have run for some time.
func (p patient) waiting(task, since string) {
	p.t.Helper()
	p.do("select graphile_worker.add_job($1)", task)
	p.do(`update graphile_worker._private_jobs set run_at = now() - $1::text::interval, created_at = now() - $1::text::interval
		where id = (select max(id) from graphile_worker._private_jobs)`, since)
}

// failed adds jobs that have failed permanently.
func (p patient) failed(task string, n int) {
	p.t.Helper()
	p.do(`select graphile_worker.add_job($1)`, task)
	p.do(`insert into graphile_worker._private_jobs (task_id, attempts, max_attempts, updated_at)
		select t.id, 25, 25, now() - n * interval '1 hour' from graphile_worker._private_tasks t, generate_series(1, $2::int) n
		where t.identifier = $1`, task, n)
	p.do(`delete from graphile_worker._private_jobs where attempts = 0 and task_id =
		(select id from graphile_worker._private_tasks where identifier = $1)`, task)
}

func (p patient) registered(id, silent, metadata string) {
	p.t.Helper()
	p.do(`insert into graphile_worker._private_workers (id, last_heartbeat_at, metadata)
		values ($1, now() - $2::text::interval, $3::text::jsonb)`, id, silent, metadata)
}

func TestStaleWorkers(t *testing.T) {
	p := healthyIn(t, oddName)
	p.registered("gworker_fine", "1 minute", `{}`)
	p.registered("gworker_patient", "6 minutes", `{"stale_after_seconds": 600}`)
	want(t, p.examine(), "stale-workers", doctor.OK, "2 workers are registered")

	p.registered("graphile_worker_a'b", "6 minutes", `{"host": "here", "pid": 42}`)
	r := p.examine()
	want(t, r, "stale-workers", doctor.Warning, "graphile_worker_a'b (here, pid 42), for 6 min",
		`gworker sweep --schema 'my "odd" $gw$ Schema'\''s'`, `.recover_dead_worker_jobs(array['graphile_worker_a''b'])`)
	wantOthersOK(t, r, "stale-workers")
	p.helps(r, "stale-workers")
	wantOthersOK(t, p.examine())

	p.registered("gworker_dead", "6 minutes", `"odd metadata"`)
	p.locked("gworker_dead", "6 minutes")
	r = p.examine()
	want(t, r, "stale-workers", doctor.Problem, "gworker_dead, for 6 min", "holding 1 job", "for 4 hours")
	p.helps(r, "stale-workers")
	wantOthersOK(t, p.examine())
}

func TestUnknownWorkers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, c := range []struct {
		worker, since string
		severity      doctor.Severity
		parts         []string
	}{
		{"gworker_0a", "1 second", doctor.OK, nil},
		{"gworker_0a", "2 minutes", doctor.Warning, []string{"gworker_0a (of gworker) holds 1 job, for 2 min", "gworker sweep"}},
		{"gworker_unregistered_0a", "2 minutes", doctor.Note, []string{"recovery off"}},
		{"graphile_worker_0a", "2 minutes", doctor.Note, []string{"(of Rust)", "only if recovery is on"}},
		{"pool-0123456789abcdef01", "1 second", doctor.Note, []string{"(of Node)", "never register", "normal"}},
		{"otpool-0123456789abcdef01", "3 hours", doctor.Note, []string{"(of Node)"}},
		{"worker-0123456789abcdef01", "5 hours", doctor.Problem, []string{"(of Node)", "--include-node-locks-older-than 4h"}},
		{"graphile_worker_0a", "5 hours", doctor.Problem, []string{"(of Rust)"}},
		{"me", "2 minutes", doctor.Warning, []string{"me (of an unknown maker)", "force_unlock_workers(array['me'])"}},
	} {
		p := healthy(t)
		p.locked(c.worker, c.since)
		r := p.examine()
		want(t, r, "unknown-workers", c.severity, c.parts...)
		if old := c.severity == doctor.Problem; old {
			wantOthersOK(t, r, "unknown-workers", "old-locks")
		} else {
			wantOthersOK(t, r, "unknown-workers")
		}
		p.registered(c.worker, "1 second", "{}")
		want(t, p.examine(), "unknown-workers", doctor.OK)
	}
}

func TestManyUnknownWorkersAreNotAllNamed(t *testing.T) {
	p := healthy(t)
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		p.locked("gworker_"+id, "2 minutes")
	}
	r := p.examine()
	want(t, r, "unknown-workers", doctor.Warning, "7 workers hold locks", "and 2 more")
}

func TestOldLocks(t *testing.T) {
	p := healthyIn(t, oddName)
	p.registered("gworker_a", "1 second", "{}")
	p.locked("gworker_a", "3 hours 59 minutes")
	want(t, p.examine(), "old-locks", doctor.OK)
	p.locked("gworker_a", "4 hours 1 minute")
	p.do("insert into graphile_worker._private_job_queues (queue_name, locked_by, locked_at) values ('q', 'gworker_a', now() - interval '26 hours')")
	r := p.examine()
	want(t, r, "old-locks", doctor.Problem, "1 job and 1 queue are locked", "the longest for 1 d 2 h")
	p.helps(r, "old-locks")
	want(t, p.examine(), "old-locks", doctor.OK)
}

func TestIdleQueues(t *testing.T) {
	p := healthyIn(t, oddName)
	p.registered("gworker_a", "1 second", "{}")
	p.do("insert into graphile_worker._private_job_queues (queue_name, locked_by, locked_at) values ('busy', 'gworker_a', now() - interval '1 hour')")
	p.do("select graphile_worker.add_job('x', queue_name => 'busy')")
	p.do("update graphile_worker._private_jobs set locked_by = 'gworker_a', locked_at = now() - interval '1 hour'")
	p.do("insert into graphile_worker._private_job_queues (queue_name, locked_by, locked_at) values ('young', 'gworker_a', now())")
	wantOthersOK(t, p.examine())

	p.do("insert into graphile_worker._private_job_queues (queue_name, locked_by, locked_at) values ('idle', 'gworker_a', now() - interval '2 minutes')")
	r := p.examine()
	want(t, r, "idle-queues", doctor.Warning, "idle (by gworker_a, for 2 min")
	wantOthersOK(t, r, "idle-queues")
	p.helps(r, "idle-queues")
	wantOthersOK(t, p.examine())
	if n := value[int64](p, "select count(*) from graphile_worker._private_job_queues where locked_at is not null"); n != 2 {
		t.Errorf("%d queues are locked", n)
	}
}

func TestFailedJobs(t *testing.T) {
	p := healthyIn(t, oddName)
	p.failed("it's broken", 3)
	p.failed("other", 1)
	r := p.examine()
	want(t, r, "failed-jobs", doctor.Note, "4 jobs have failed permanently, the first 3 h ago and the last 1 h ago: it's broken (3), other (1)")
	wantOthersOK(t, r, "failed-jobs")
	p.failed("many", 96)
	want(t, p.examine(), "failed-jobs", doctor.Warning, "100 jobs")
	p.helps(p.examine(), "failed-jobs") // reschedules all, and deletes none that is left
	r = p.examine()
	want(t, r, "failed-jobs", doctor.OK)
	want(t, r, "latency", doctor.OK, "100 jobs wait")
}

func TestLatency(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	p := healthyIn(t, oddName)
	p.waiting("x", "30 seconds")
	want(t, p.examine(), "latency", doctor.OK, "1 job waits to be run, the longest for ", "s (task x)")
	p.waiting("y", "3 minutes")
	p.do("select graphile_worker.add_job('z', run_at => now() + interval '1 hour')")
	r := p.examine()
	want(t, r, "latency", doctor.Warning, "2 jobs wait to be run, the longest for 3 min", "(task y)", "0 are running, 1 is for later", "0 workers that live")
	wantOthersOK(t, r, "latency")
	p.helps(r, "latency")
	p.waiting("y", "61 minutes")
	want(t, p.examine(), "latency", doctor.Problem, "1 h 1 min")

	// Jobs behind a running one of their queue do not wait for a worker, and a
	// job does not wait before it was added.
	p = healthy(t)
	p.do("select graphile_worker.add_job('x', queue_name => 'q', run_at => now() - interval '1 day')")
	want(t, p.examine(), "latency", doctor.OK, "1 job waits")
	p.do("update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'gworker_a'")
	want(t, p.examine(), "latency", doctor.OK, "No job waits")
}

func TestUnservedTasks(t *testing.T) {
	p := healthyIn(t, oddName)
	p.waiting("orphan's", "2 minutes")
	p.waiting("served", "2 minutes")
	p.do("select graphile_worker.add_job('new')")
	want(t, p.examine(), "unserved-tasks", doctor.OK)
	p.registered("gworker_dead", "2 hours", `{"tasks": ["orphan's"]}`)
	p.registered("gworker_a", "1 second", `{"tasks": ["served"]}`)
	r := p.examine()
	want(t, r, "unserved-tasks", doctor.Warning, "1 task that jobs wait for: orphan's (1 job, for 2 min")
	want(t, r, "latency", doctor.Warning, "1 worker that lives is registered")

	p.locked("pool-0123456789abcdef01", "1 second")
	want(t, p.examine(), "unserved-tasks", doctor.Note, "of Node")
	p.do("update graphile_worker._private_jobs set locked_at = null, locked_by = null")

	p.registered("graphile_worker_a", "1 second", `{}`)
	want(t, p.examine(), "unserved-tasks", doctor.OK, "Not every worker says")
	p.do("delete from graphile_worker._private_workers where id = 'graphile_worker_a'")
	p.helps(r, "unserved-tasks")
	want(t, p.examine(), "unserved-tasks", doctor.OK)
	if n := value[int64](p, "select count(*) from graphile_worker.jobs where task_identifier = 'served'"); n != 1 {
		t.Errorf("%d jobs of a task that is served are left", n)
	}
}
