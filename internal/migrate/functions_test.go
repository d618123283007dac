package migrate_test

import (
	"strings"
	"testing"

	"github.com/gworker/gworker/internal/testdb"
)

// fourJobs adds a job of each kind: one that waits, one that has failed, one
// that runs, and one that ran five hours ago and whose worker is gone.
func (f fixture) fourJobs() {
	f.t.Helper()
	f.script(`
		insert into graphile_worker._private_tasks (identifier) values ('waits'), ('failed'), ('runs'), ('stuck');
		insert into graphile_worker._private_jobs
			(task_id, run_at, attempts, max_attempts, last_error, created_at, updated_at, key, locked_at, locked_by)
		select t.id, '2023-01-01', v.attempts, 4, v.last_error, '2022-12-31', '2022-12-31', t.identifier, v.locked_at, v.locked_by
		from (values
			('waits', 1, 'e', null, null), ('failed', 4, 'e', null, null),
			('runs', 2, 'e', now(), 'w1'), ('stuck', 3, 'e', now() - interval '5 hours', 'w2')
		) v (task, attempts, last_error, locked_at, locked_by)
		join graphile_worker._private_tasks t on t.identifier = v.task order by t.id`)
}

// A job that runs is its worker's business, and stays as it is.
const running = "runs {} at 2023-01-01 p0 2/4 key=runs r0 error=e by w1"

func TestManaging(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for call, want := range map[string][]string{
		`complete_jobs(ids)`: {running},
		`permanently_fail_jobs(ids)`: {
			"waits {} at 2023-01-01 p0 4/4 key=waits r0 error=Manually marked as failed touched",
			"failed {} at 2023-01-01 p0 4/4 key=failed r0 error=Manually marked as failed touched",
			running,
			"stuck {} at 2023-01-01 p0 4/4 key=stuck r0 error=Manually marked as failed by w2 touched",
		},
		`permanently_fail_jobs(ids, 'no more')`: {
			"waits {} at 2023-01-01 p0 4/4 key=waits r0 error=no more touched",
			"failed {} at 2023-01-01 p0 4/4 key=failed r0 error=no more touched",
			running,
			"stuck {} at 2023-01-01 p0 4/4 key=stuck r0 error=no more by w2 touched",
		},
		`reschedule_jobs(ids)`: {
			"waits {} at 2023-01-01 p0 1/4 key=waits r0 error=e touched",
			"failed {} at 2023-01-01 p0 4/4 key=failed r0 error=e touched",
			running,
			"stuck {} at 2023-01-01 p0 3/4 key=stuck r0 error=e by w2 touched",
		},
		`reschedule_jobs(ids, '2024-02-02', 7, 0, 9)`: {
			"waits {} at 2024-02-02 p7 0/9 key=waits r0 error=e touched",
			"failed {} at 2024-02-02 p7 0/9 key=failed r0 error=e touched",
			running,
			"stuck {} at 2024-02-02 p7 0/9 key=stuck r0 error=e by w2 touched",
		},
		`reschedule_jobs(ids, attempts := 0)`: {
			"waits {} at 2023-01-01 p0 0/4 key=waits r0 error=e touched",
			"failed {} at 2023-01-01 p0 0/4 key=failed r0 error=e touched",
			running,
			"stuck {} at 2023-01-01 p0 0/4 key=stuck r0 error=e by w2 touched",
		},
	} {
		t.Run(call, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newMigrated(t)
			f.fourJobs()
			f.sql(`select graphile_worker.add_job('other')`)
			// Unknown ids and repeated ones mean nothing.
			all := `array(select id from graphile_worker.jobs where task_identifier <> 'other' union all select 1 union all select 12345)`
			returned := f.lines(`select j.key from graphile_worker.` + strings.Replace(call, "ids", all, 1) + ` j order by j.id`)
			wantEqual(t, "returned", []string{"waits", "failed", "stuck"}, returned)
			wantEqual(t, "jobs", append(want, "other {} at now p0 0/25 r0"), f.jobs())
			wantEqual(t, "returned of none", nil, f.lines(`select j.key from graphile_worker.`+strings.Replace(call, "ids", `'{}'`, 1)+` j`))
			wantEqual(t, "returned of null", nil, f.lines(`select j.key from graphile_worker.`+strings.Replace(call, "ids", `null`, 1)+` j`))
		})
	}
}

func TestRemoveJob(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	f.fourJobs()
	const remove = `select concat_ws(' ', r.id, 'key=' || r.key, r.attempts) from graphile_worker.remove_job($1) r`
	wantEqual(t, "one that waits", "1 key=waits 1", one[string](f, remove, "waits"))
	wantEqual(t, "one that has failed", "2 key=failed 4", one[string](f, remove, "failed"))
	wantEqual(t, "one that is stuck", "4 key=stuck 3", one[string](f, remove, "stuck"))
	wantEqual(t, "one that runs", "3 4", one[string](f, remove, "runs"))
	retired := []string{"runs {} at 2023-01-01 p0 4/4 r0 error=e by w1 touched"}
	wantEqual(t, "jobs", retired, f.jobs())
	wantEqual(t, "one that has lost its key", "", one[string](f, remove, "runs"))
	wantEqual(t, "an unknown one", "", one[string](f, remove, "unknown"))
	wantEqual(t, "null", "", one[string](f, remove, nil))
	wantEqual(t, "jobs", retired, f.jobs())
}

func TestForceUnlockWorkers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	f := newMigrated(t)
	f.fourJobs()
	f.sql(`insert into graphile_worker._private_job_queues (queue_name, locked_at, locked_by)
		values ('a', now(), 'w1'), ('b', now(), 'w3'), ('c', now(), 'w4'), ('d', null, null)`)
	f.sql(`select graphile_worker.force_unlock_workers('{w1,w3,nobody}')`)
	wantEqual(t, "locked", []string{"c w4", "stuck w2"}, f.lines(`
		select key || ' ' || locked_by from graphile_worker.jobs where locked_at is not null or locked_by is not null
		union all
		select queue_name || ' ' || locked_by from graphile_worker._private_job_queues
		where locked_at is not null or locked_by is not null order by 1`))
	wantMember(t, "runs {} at 2023-01-01 p0 2/4 key=runs r0 error=e", f.jobs())
}

func TestWorkersHeartbeats(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	workers := func() []string {
		return f.lines(`select concat_ws(' ', id, metadata,
			case when last_heartbeat_at > now() - interval '1 minute' then 'lives' end,
			case when started_at = '2023-01-01' then 'since then' when started_at = last_heartbeat_at then 'since now' end)
			from graphile_worker._private_workers order by id`)
	}
	f.sql(`select graphile_worker.worker_heartbeat('w1', '{"a" : 1}')`)
	f.sql(`select graphile_worker.worker_heartbeat('w2')`)
	wantEqual(t, "workers", []string{`w1 {"a": 1} lives since now`, "w2 lives since now"}, workers())

	f.sql(`update graphile_worker._private_workers set started_at = '2023-01-01', last_heartbeat_at = '2023-01-02'`)
	wantEqual(t, "workers", []string{`w1 {"a": 1} since then`, "w2 since then"}, workers())
	f.sql(`select graphile_worker.worker_heartbeat('w1')`)
	wantEqual(t, "workers", []string{`w1 {"a": 1} lives since then`, "w2 since then"}, workers())
	f.sql(`select graphile_worker.worker_heartbeat('w1', '{"b": 2}')`)
	wantEqual(t, "workers", []string{`w1 {"b": 2} lives since then`, "w2 since then"}, workers())

	wantEqual(t, "stale", []string{"w2"}, f.lines(`select worker_id from graphile_worker.list_stale_workers('5 minutes')`))
	wantEqual(t, "stale in a longer time", nil, f.lines(`select worker_id from graphile_worker.list_stale_workers('1000 years')`))
	f.sql(`select graphile_worker.worker_heartbeat('w3')`)
	f.sql(`select graphile_worker.worker_deregister('w1')`)
	f.sql(`select graphile_worker.worker_deregister('unknown')`)
	wantEqual(t, "workers", []string{"w2 since then", "w3 lives since now"}, workers())
	f.sql(`select graphile_worker.delete_stale_workers('{w2,unknown}')`)
	wantEqual(t, "workers", []string{"w3 lives since now"}, workers())
}

func TestOrphans(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	f.sql(`select graphile_worker.add_job('t', job_key := n::text) from generate_series(1, 6) n`)
	f.script(`
		insert into graphile_worker._private_workers (id, last_heartbeat_at) values ('registered', '2023-01-01');
		update graphile_worker._private_jobs j set locked_at = now() - v.ago::interval, locked_by = v.worker
		from (values ('1', '10 minutes', 'gone'), ('2', '20 minutes', 'gone'), ('3', '1 minute', 'recent'),
			('4', '10 minutes', 'registered'), ('5', '10 minutes', null)) v (key, ago, worker) where j.key = v.key;
		insert into graphile_worker._private_job_queues (queue_name, locked_at, locked_by) values
			('a', now() - interval '10 minutes', 'gone'), ('b', now() - interval '10 minutes', 'gone too'),
			('c', now() - interval '10 minutes', 'registered'), ('d', now(), 'recent'), ('e', null, null);`)
	const list = `select worker_id from graphile_worker.list_orphan_locked_workers($1::interval) order by 1`
	wantEqual(t, "orphans", []string{"gone", "gone too"}, f.lines(list, "5 minutes"))
	wantEqual(t, "orphans of a shorter time", []string{"gone", "gone too", "recent"}, f.lines(list, "30 seconds"))
	wantEqual(t, "orphans of a longer time", []string{"gone"}, f.lines(list, "15 minutes"))
}

func TestRecoverDeadWorkerJobs(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, test := range map[string]struct {
		locked string // what the job is like when its worker dies
		want   string
	}{
		"one attempt back":              {`attempts = 2`, "1/4 key=k 1h"},
		"none below zero":               {`attempts = 0`, "0/4 key=k 1h"},
		"the last attempt, with a key":  {`attempts = 4`, "3/4 key=k 1h"},
		"without a key":                 {`attempts = 2, key = null`, "1/4 1h"},
		"retired: it stays failed":      {`attempts = 4, key = null`, "4/4 1h"},
		"retired, with attempts beyond": {`attempts = 9, key = null`, "9/4 1h"},
		"one that was to run later":     {`attempts = 1, run_at = now() + interval '3 hours'`, "0/4 key=k 3h"},
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newMigrated(t)
			f.sql(`select graphile_worker.add_job('t', queue_name := 'q', max_attempts := 4, run_at := '2023-01-01', job_key := 'k')`)
			f.sql(`update graphile_worker._private_jobs set locked_at = now(), locked_by = 'dead', last_error = 'e', ` + test.locked)
			f.sql(`update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'dead'`)
			wantEqual(t, "recovered", 1, one[int](f, `select graphile_worker.recover_dead_worker_jobs('{nobody,dead}', '1 hour')`))
			// Hours are counted from the change, of which the delay is one.
			wantEqual(t, "jobs", []string{test.want}, f.lines(`select concat_ws(' ', attempts || '/' || max_attempts, 'key=' || key,
				round(extract(epoch from run_at - updated_at) / 3600) || 'h') from graphile_worker.jobs
				where last_error = 'Job recovered after worker interruption' and locked_at is null and locked_by is null
				and updated_at > created_at`))
			wantEqual(t, "locked queues", 0, one[int](f, `select count(*)::int from graphile_worker._private_job_queues
				where locked_at is not null or locked_by is not null`))
		})
	}
}

// Of others nothing is touched, and a delay need not be given.
func TestRecoveryIsOfTheDeadOnly(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	f.seed(20)
	before := f.contents()
	wantEqual(t, "recovered", 0, one[int](f, `select graphile_worker.recover_dead_worker_jobs('{nobody}')`))
	wantEqual(t, "recovered of none", 0, one[int](f, `select graphile_worker.recover_dead_worker_jobs('{}')`))
	wantEqual(t, "contents", before, f.contents())

	f.fourJobs()
	f.sql(`update graphile_worker._private_jobs set locked_by = 'w1' where key = 'stuck'`)
	others := f.lines(`select row_to_json(j)::text from graphile_worker._private_jobs j where locked_by is distinct from 'w1' order by id`)
	wantEqual(t, "recovered", 2, one[int](f, `select graphile_worker.recover_dead_worker_jobs('{w1}', null)`))
	wantEqual(t, "other jobs", others, f.lines(`select row_to_json(j)::text from graphile_worker._private_jobs j
		where last_error is distinct from 'Job recovered after worker interruption' order by id`))
	wantMember(t, "runs {} at now p0 1/4 key=runs r0 error=Job recovered after worker interruption touched", f.jobs())
	wantMember(t, "stuck {} at now p0 2/4 key=stuck r0 error=Job recovered after worker interruption touched", f.jobs())
}
