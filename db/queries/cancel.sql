-- Cancelling a run from elsewhere. What has to outlive a lost notification, and
-- the worker itself, is on the job's row, and needs no column of its own:
--
--   * The job is retired as the schema retires a job that is replaced while it
--     runs: no key, no attempts left. So no runtime tries it again, and the
--     functions that give back the jobs of dead workers leave it failed. Rust's
--     revision 22 goes by marks in a table of its own instead, which its
--     permanently_fail_jobs writes; so that function does this part, on any
--     revision. It takes unlocked jobs only: the lock is laid aside for the length
--     of the transaction, in which nobody else can see the row.
--   * last_error is the reason.
--   * flags gets the member "gworker:cancel". Its value names the very lock that
--     the run holds, holder and time: 'gworker_0a1b 2026-05-04T03:02:01.000000Z'.
--     Another run has another lock, so a mark that is left over, as another
--     runtime leaves it, means nothing. It is compared as text, since anything
--     may stand there.
--
-- Who ends the run removes the mark (release.sql, recovery.sql).

-- name: LockJobToCancel :one
-- Waits for whoever is writing the job's end at this moment. "mark" is the value
-- that names its lock; to_char makes null of infinity, which no lock of a claim here is but
-- one written by hand may be. The task is looked up afterwards: a job that was replaced
-- while this waited may have got another, and would fall out of a join.
select l.id, coalesce(t.identifier, '')::text as task, l.attempts, l.max_attempts, l.last_error, l.locked_by, l.locked_at, l.mark,
  coalesce(l.flags ->> 'gworker:cancel'::text = l.mark, false)::boolean as cancelled
from (
  select j.id, j.task_id, j.attempts, j.max_attempts, coalesce(j.last_error, '')::text as last_error,
    coalesce(j.locked_by, '')::text as locked_by, j.locked_at, j.flags,
    coalesce(j.locked_by || coalesce(pg_catalog.to_char(j.locked_at at time zone 'UTC', ' YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), ' '::text || j.locked_at::text), '')::text as mark
  from graphile_worker._private_jobs j
  where j.id = @id::bigint
  for update
) l
left join graphile_worker._private_tasks t on t.id = l.task_id;

-- name: LayLockAside :exec
update graphile_worker._private_jobs j set key = null, locked_by = null, locked_at = null where j.id = @id::bigint;

-- name: FailJobForGood :one
select pg_catalog.count(*)::int as failed from graphile_worker.permanently_fail_jobs(array[@id::bigint], @reason::text);

-- name: MarkJobCancelled :exec
-- Puts the lock back, with the mark.
update graphile_worker._private_jobs j
set locked_by = @locked_by::text,
  locked_at = @locked_at::timestamptz,
  flags = case when pg_catalog.jsonb_typeof(j.flags) = 'object' then j.flags else '{}' end
    || pg_catalog.jsonb_build_object('gworker:cancel', @mark::text)
where j.id = @id::bigint;

-- name: AnnounceCancel :exec
select pg_catalog.pg_notify('gworker:cancel', pg_catalog.json_build_object('job', @id::bigint, 'worker', @worker_id::text)::text);

-- name: CancelledJobs :many
-- Which of the given claims, by their places, were cancelled.
with mine as (
  select pg_catalog.unnest(@ids::bigint[]) as id, pg_catalog.unnest(@locked_ats::timestamp with time zone[]) as locked_at,
    pg_catalog.generate_subscripts(@ids::bigint[], 1) as place
)
select m.place::int as place, coalesce(j.last_error, '')::text as reason
from mine m
join graphile_worker._private_jobs j on j.id = m.id
where j.locked_by = @worker_id::text
  and j.locked_at = m.locked_at
  and j.flags ->> 'gworker:cancel'::text
    = j.locked_by || pg_catalog.to_char(j.locked_at at time zone 'UTC', ' YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
