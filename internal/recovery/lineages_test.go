package recovery_test

import "testing"

// givesBack is what Rust's revisions 20 and 21 do: every job gets its attempt back.
const givesBack = `
	create or replace function graphile_worker.recover_dead_worker_jobs(worker_ids text[], recovery_delay interval default '0')
	returns int language sql as $$
		update graphile_worker._private_job_queues set locked_by = null, locked_at = null where locked_by = any (worker_ids);
		with back as (
			update graphile_worker._private_jobs j
			set locked_by = null, locked_at = null, last_error = 'Job recovered after worker interruption',
				run_at = greatest(j.run_at, now() + recovery_delay), attempts = greatest(0, j.attempts - 1)
			where j.locked_by = any (worker_ids) returning j.id
		)
		select count(*)::int from back;
	$$`

// retirements are what Rust's revision 22 adds: its functions go by marks in a
// table, and not by the key.
const retirements = `
	create table graphile_worker._private_job_retirements (
		id bigint primary key references graphile_worker._private_jobs (id) on delete cascade);
	create or replace function graphile_worker.remove_job(job_key text)
	returns graphile_worker._private_jobs language plpgsql strict as $$
	declare
		removed graphile_worker._private_jobs;
	begin
		delete from graphile_worker._private_jobs j where j.key = job_key and j.locked_at is null returning j.* into removed;
		if removed.id is null then
			update graphile_worker._private_jobs j set key = null, attempts = j.max_attempts
			where j.key = job_key returning j.* into removed;
			insert into graphile_worker._private_job_retirements select removed.id where removed.id is not null;
		end if;
		return removed;
	end $$;
	create or replace function graphile_worker.permanently_fail_jobs(job_ids bigint[], error_message text default null)
	returns setof graphile_worker._private_jobs language plpgsql as $$
	begin
		insert into graphile_worker._private_job_retirements
		select j.id from graphile_worker._private_jobs j where j.id = any (job_ids) and j.locked_at is null;
		return query
			update graphile_worker._private_jobs j set attempts = j.max_attempts, last_error = error_message
			where j.id = any (job_ids) and j.locked_at is null returning j.*;
	end $$;
	create or replace function graphile_worker.recover_dead_worker_jobs(worker_ids text[], recovery_delay interval default '0')
	returns int language sql as $$
		update graphile_worker._private_job_queues set locked_by = null, locked_at = null where locked_by = any (worker_ids);
		with back as (
			update graphile_worker._private_jobs j
			set locked_by = null, locked_at = null, last_error = 'Job recovered after worker interruption',
				run_at = greatest(j.run_at, now() + recovery_delay),
				attempts = j.attempts - case when j.id in (select id from graphile_worker._private_job_retirements) then 0 else 1 end
			where j.locked_by = any (worker_ids) returning j.id
		)
		select count(*)::int from back;
	$$`

const (
	ourRevision20 = "revision 20"
	revision22    = "Rust's revision 22"
)

// What has to hold for the job of a worker that dies, on each schema that may be
// there.
func onEachSchema(t *testing.T, test func(t *testing.T, f *fixture, schema string)) {
	for name, script := range map[string]string{
		ourRevision20: "select 1", "Rust's revisions 20 and 21": givesBack, revision22: retirements,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.exec(script)
			test(t, f, name)
		})
	}
}
