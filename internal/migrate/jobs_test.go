package migrate_test

import (
	"fmt"
	"strings"
)

// What is in a schema before it is migrated, and how it is read again. The
// payloads are spelled as no program would, to show that nobody spells them anew.

const (
	earlyTimes = `'2023-01-01 00:00:00.123456+00', '2023-01-02 00:00:00.654321+00'`
	oddObject  = `'{"b" : 1,  "a": "ü\n", "b":2}'`
	oddArray   = `'[ 1,2 , {"x" : null} ]'`
)

// seedEarly adds jobs to a schema at a revision up to 10. Locks are old, since
// revision 11 would not run otherwise.
func (f fixture) seedEarly(revision int) {
	f.t.Helper()
	queue := "null"
	if revision < 3 {
		queue = "'own'"
	}
	f.script(fmt.Sprintf(`
		insert into graphile_worker.job_queues (queue_name, job_count, locked_at, locked_by)
		values ('own', 1, null, null), ('shared', 2, now() - interval '5 hours', 'worker-gone');
		insert into graphile_worker.jobs
			(queue_name, task_identifier, payload, priority, run_at, attempts, max_attempts, last_error, created_at, updated_at)
		values
			(%s, 'send', %s, 0, '2023-02-01', 0, 25, null, %s),
			('shared', 'send', %s, -7, '2023-02-02', 3, 4, 'first', %[3]s),
			('shared', 'bill', '{}', 12, '2923-02-03', 4, 4, E'a\nb', %[3]s),
			('own', 'bill', '"text"', 32767, '2023-02-04', 1, 32767, null, %[3]s);`,
		queue, oddObject, earlyTimes, oddArray))
	if revision >= 2 {
		f.sql(`update graphile_worker.jobs set key = 'K-' || priority, locked_at = now() - interval '5 hours',
			locked_by = 'worker-gone', updated_at = '2023-01-03' where priority in (-7, 12)`)
	}
	if revision >= 5 {
		f.sql(`update graphile_worker.jobs set revision = 3, flags = '{"f": true, "g": true}', updated_at = '2023-01-04'
			where priority in (-7, 32767)`)
	}
	if revision >= 8 {
		f.sql(`insert into graphile_worker.known_crontabs values ('c', '2023-01-01', '2023-01-02'), ('d', '2023-01-01', null)`)
	}
}

// earlyJobs prints what of the jobs must carry over at 11, before and after it.
func (f fixture) earlyJobs(revision int) []string {
	f.t.Helper()
	late, from := "j.key, j.revision, j.flags", "graphile_worker.jobs j"
	names := "j.queue_name, j.task_identifier"
	switch {
	case revision < 2:
		late = "null as key, 0 as revision, null as flags"
	case revision < 5:
		late = "j.key, 0 as revision, null as flags"
	case revision > 10:
		names = "q.queue_name, t.identifier as task_identifier"
		from = `graphile_worker._private_jobs j join graphile_worker._private_tasks t on t.id = j.task_id
			left join graphile_worker._private_job_queues q on q.id = j.job_queue_id`
	}
	return f.lines(fmt.Sprintf(`select row_to_json(x)::text from (
		select %s, j.payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at, j.updated_at, %s
		from %s order by j.id) x`, names, late, from))
}

// seed adds jobs to a schema at a revision from 11 on.
func (f fixture) seed(revision int) {
	f.t.Helper()
	prefix := "graphile_worker."
	if revision >= 16 {
		prefix += "_private_"
	}
	f.script(strings.NewReplacer("@", prefix, "$TIMES", earlyTimes, "$OBJECT", oddObject, "$ARRAY", oddArray).Replace(`
		insert into @tasks (identifier) values ('unused'), ('send'), ('bill');
		insert into @job_queues (queue_name, locked_at, locked_by)
		values ('own', null, null), ('shared', now() - interval '1 minute', 'pool-1'), ('stale', '2023-01-01', 'worker-2');
		insert into @jobs (task_id, job_queue_id, payload, priority, run_at, attempts, max_attempts, last_error,
			created_at, updated_at, key, locked_at, locked_by, revision, flags)
		select t.id, q.id, v.payload::json, v.priority, v.run_at::timestamptz, v.attempts, v.max_attempts, v.last_error,
			v.created_at::timestamptz, v.updated_at::timestamptz, v.key, v.locked_at, v.locked_by, v.revision, v.flags::jsonb
		from (values
			('send', null, $OBJECT, 0, '2023-02-01', 0, 25, null, $TIMES, null, null::timestamptz, null, 0, null),
			('send', 'shared', $ARRAY, -7, '2023-02-02', 3, 4, 'first', $TIMES, 'K1', now(), 'pool-1', 3, '{"f": true}'),
			('bill', 'stale', '{}', 12, '2923-02-03', 1, 4, null, $TIMES, 'K2', '2023-01-01', 'worker-2', 1, null),
			('bill', 'own', '"text"', 32767, '2023-02-04', 4, 4, E'a\nb', $TIMES, null, null, null, 0, '{"g": true}'),
			('bill', null, '1e2', -32768, '2023-02-04', 25, 25, 'retired', $TIMES, null, now(), 'pool-2', 9, null)
		) v (task, queue, payload, priority, run_at, attempts, max_attempts, last_error, created_at, updated_at, key,
			locked_at, locked_by, revision, flags)
		join @tasks t on t.identifier = v.task left join @job_queues q on q.queue_name = v.queue;
		insert into @known_crontabs values ('c', '2023-01-01', '2023-01-02'), ('d', '2023-01-01', null);`))
	if f.has("_private_workers") {
		f.sql(`insert into graphile_worker._private_workers values
			('graphile_worker_1', now(), '2023-01-01', '{"host": "h"}'), ('graphile_worker_2', '2023-01-01', '2023-01-01', null)`)
	}
	if f.has("_private_job_retirements") {
		f.sql(`insert into graphile_worker._private_job_retirements
			select id from graphile_worker._private_jobs where last_error = 'retired'`)
	}
}

func (f fixture) has(table string) bool {
	f.t.Helper()
	return one[bool](f, `select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
		where n.nspname = $1 and c.relname = $2 and c.relkind = 'r')`, f.name.String(), table)
}

// contents prints every row but the ledger's, whatever the tables' names are.
func (f fixture) contents() []string {
	f.t.Helper()
	var all []string
	for _, table := range []string{"jobs", "job_queues", "tasks", "known_crontabs", "workers", "job_retirements"} {
		for _, name := range []string{"_private_" + table, table} {
			if f.has(name) {
				all = append(all, f.lines(fmt.Sprintf(`select '%s ' || row_to_json(r) from graphile_worker.%s r order by 1`, table, name))...)
				break
			}
		}
	}
	return all
}
