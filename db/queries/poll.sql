-- Polling: everything that an idle worker asks for, in one statement.

-- name: Poll :one
-- "runnable" says that a claim may find a job. It has the order and the conditions of
-- ClaimJobs but takes no lock, and sees rows that others have locked.
--
-- Recovery can have its own work done here, which saves it statements: "beat" writes the
-- worker's heartbeat, and "silent_for" is how long ago the previous one was; null means that
-- the row is gone, that another session has locked it (this statement must not wait for
-- that), or that a trigger has kept it as it was. "sweep" asks whether a sweep might find a
-- dead worker ("suspects"), and "reset" whether a lock is older than 4 hours ("outdated").
-- With "beat" it also lists the workers that are "alike", see Heartbeat.
with before as (
  select w.id, w.last_heartbeat_at
  from graphile_worker._private_workers w
  where @beat::boolean and w.id = @worker_id::text
  for update skip locked
), beaten as (
  update graphile_worker._private_workers w set last_heartbeat_at = pg_catalog.now()
  from before b
  where w.id = b.id
  returning (extract(epoch from pg_catalog.now()) - extract(epoch from b.last_heartbeat_at))::float8 as silent_for,
    (w.last_heartbeat_at <> b.last_heartbeat_at) as written
), locks as not materialized (
  select j.locked_by, j.locked_at
  from graphile_worker._private_jobs j
  where j.locked_by is not null
  union all
  select q.locked_by, q.locked_at
  from graphile_worker._private_job_queues q
  where q.locked_by is not null
)
select
  exists (
    select from (
      select from graphile_worker._private_jobs j
      where j.is_available
        and j.run_at <= pg_catalog.now()
        and j.task_id = any (array(
          select t.id from graphile_worker._private_tasks t where t.identifier = any (@tasks::text[])
        ))
        and (
          j.job_queue_id is null
          or exists (select from graphile_worker._private_job_queues q where q.id = j.job_queue_id and q.is_available)
        )
      order by j.priority, j.run_at
      limit 1
    ) first
  ) as runnable,
  b.silent_for,
  (@sweep::boolean and (
    exists (
      select from graphile_worker._private_workers w
      where w.last_heartbeat_at < pg_catalog.now() - pg_catalog.make_interval(secs => @threshold::float8)
    )
    or exists (
      select from locks l
      where l.locked_at < pg_catalog.now() - pg_catalog.make_interval(secs => @threshold::float8)
        and not exists (select from graphile_worker._private_workers w where w.id = l.locked_by)
    )
  ))::boolean as suspects,
  (@reset::boolean and exists (
    select from locks l where l.locked_at < pg_catalog.now() - interval '4 hours'
  ))::boolean as outdated,
  array(
    select w.id from graphile_worker._private_workers w
    where @beat::boolean and w.metadata ->> 'looks_for'::text = @looks_for::text
      and w.last_heartbeat_at >= pg_catalog.now() - pg_catalog.make_interval(secs => @heard_within::float8)
  )::text[] as alike
from (select true) always
left join beaten b on b.written;
