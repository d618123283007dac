-- Claiming: from runnable rows to rows that this worker holds.

-- name: ClaimJobs :many
-- One statement, in four steps. "runnable" walks the jobs in their order and
-- locks up to max_jobs of them; a job of a named queue passes only if its queue
-- row is free, which the walk locks first: other claimers then skip the whole
-- queue, so none can start its second job before its first. "chosen" keeps one
-- job a queue. "held_queues" and "held_jobs" write the locks.
--
-- The walk takes its time, and a queue that somebody held when it came by the
-- first job may be free again when it comes by a later one. So a queue's job is
-- chosen only if none comes before it as the statement sees the table: "firsts"
-- are those of the queues that come before the last that was found. What that
-- leaves out is for the next claim.
--
-- Where much lies ahead of what can run, the walk begins at a place (from_priority,
-- from_run_at) and leaves the queues in "blocked" out; FindPlace and
-- ListBlockedQueues find them. Without them (null) it walks everything. The
-- comparison of rows is a condition of the index, so what lies before the place is
-- not looked at; "firsts" need not look there either.
with runnable as materialized (
  select j.id, j.job_queue_id, j.priority, j.run_at
  from graphile_worker._private_jobs j
  where j.is_available
    and j.run_at <= now()
    and (j.priority, j.run_at) >= (
      coalesce(sqlc.narg(from_priority)::int2, '-32768'::int2), coalesce(sqlc.narg(from_run_at)::timestamptz, '-infinity')
    )
    and j.task_id = any (array(
      select t.id from graphile_worker._private_tasks t where t.identifier = any (@tasks::text[])
    ))
    and (
      j.job_queue_id is null
      or j.job_queue_id <> all (coalesce(sqlc.narg(blocked)::int[], '{}'))
      and (
        select q.is_available
        from graphile_worker._private_job_queues q
        where q.id = j.job_queue_id and q.is_available
        for update skip locked
      )
    )
  order by j.priority, j.run_at
  limit @max_jobs::int
  for update of j skip locked
), ranked as (
  select r.id, r.job_queue_id, r.priority, r.run_at,
    row_number() over (partition by r.job_queue_id order by r.priority, r.run_at, r.id) as place
  from runnable r
), last as (
  select r.priority, r.run_at
  from ranked r
  where r.job_queue_id is not null and r.place = 1
  order by r.priority desc, r.run_at desc
  limit 1
), firsts as (
  select distinct on (j.job_queue_id) j.job_queue_id, j.priority, j.run_at
  from graphile_worker._private_jobs j
  where j.is_available
    and j.run_at <= now()
    and (j.priority, j.run_at) >= (
      coalesce(sqlc.narg(from_priority)::int2, '-32768'::int2), coalesce(sqlc.narg(from_run_at)::timestamptz, '-infinity')
    )
    and j.task_id = any (array(
      select t.id from graphile_worker._private_tasks t where t.identifier = any (@tasks::text[])
    ))
    and j.job_queue_id = any (array(select r.job_queue_id from ranked r where r.place = 1))
    and (j.priority, j.run_at) < ((select l.priority from last l), (select l.run_at from last l))
  order by j.job_queue_id, j.priority, j.run_at
), chosen as (
  select r.id, r.job_queue_id
  from ranked r
  left join firsts f on f.job_queue_id = r.job_queue_id
  where r.job_queue_id is null or r.place = 1 and ((f.priority, f.run_at) < (r.priority, r.run_at)) is not true
), held_queues as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = now()
  from chosen c
  where q.id = c.job_queue_id
), held_jobs as (
  update graphile_worker._private_jobs j
  set locked_by = @worker_id::text, locked_at = now(), attempts = j.attempts + 1
  from chosen c
  where j.id = c.id
  returning j.*
)
select
  h.id, h.payload, h.priority, h.run_at, h.attempts, h.max_attempts, h.last_error, h.created_at,
  h.updated_at, h.key, h.locked_at, h.revision, h.flags,
  (select t.identifier from graphile_worker._private_tasks t where t.id = h.task_id)::text as task,
  coalesce((select q.queue_name from graphile_worker._private_job_queues q where q.id = h.job_queue_id), '')::text as queue,
  (select count(*) from runnable)::int as seen
from held_jobs h
order by h.priority, h.run_at, h.id;

-- name: ListHeldJobs :many
-- What this worker holds according to the database, but for the claims that it
-- knows of: the jobs of a claim whose answer never arrived. A job that it knows by
-- an older claim is among them.
with known as (
  select unnest(@known::bigint[]) as id, unnest(@locked_ats::timestamptz[]) as locked_at
)
select
  h.id, h.payload, h.priority, h.run_at, h.attempts, h.max_attempts, h.last_error, h.created_at,
  h.updated_at, h.key, h.locked_at, h.revision, h.flags,
  (select t.identifier from graphile_worker._private_tasks t where t.id = h.task_id)::text as task,
  coalesce((select q.queue_name from graphile_worker._private_job_queues q where q.id = h.job_queue_id), '')::text as queue
from graphile_worker._private_jobs h
where h.locked_by = @worker_id::text
  and not exists (select from known k where k.id = h.id and k.locked_at = h.locked_at)
order by h.priority, h.run_at, h.id;
