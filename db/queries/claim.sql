-- Claiming: from runnable rows to rows that this worker holds.

-- name: ClaimJobs :many
-- The claim for jobs of which few or none have a queue: "runnable" walks the jobs in
-- their order and locks up to max_jobs of them; "held_queues" and "held_jobs" write
-- the locks.
--
-- A job of a named queue passes only if it is the queue's first as the statement sees
-- the table ("firsts") and its queue row is free, which the walk locks before the job:
-- other claimers then skip the whole queue, so none can start its second job before
-- its first. That the first is found beforehand, without looking at locks, matters:
-- the walk takes its time, and a queue that somebody held when it came by the first
-- job may be free again when it comes by a later one. "firsts" are found among the
-- next thousand jobs only, and only if the walk meets a queued job at all; where that
-- is not enough ClaimQueuedJobs is the better claim.
--
-- Where much lies ahead of what can run, the walk begins at a place (from_priority,
-- from_run_at) and leaves the queues in "blocked" out; FindPlace and
-- ListBlockedQueues find them. Without them (null) it walks everything. The
-- comparison of rows is a condition of the index, so what lies before the place is
-- not looked at. (With an upper bound of that kind the index would be read to the end
-- of the priority all the same: only its first column stops a scan.)
--
-- What is written goes by arrays of ids, not by joins: then every plan looks each id up,
-- also one that was made when the tables were empty and is kept.
--
-- Beside the jobs it tells what it saw. "looked" is how many queued ones it looked at,
-- if it took fewer than it might have. Where nothing was taken there is one row
-- without a job, and "seen" counts the queues of which somebody else had a row in his
-- hands: as soon as he lets go the next of their jobs can run, and nobody tells of
-- that. Both are null for 0.
--
-- As many of these are taken as have max_bytes of payloads together, but at least one
-- ("kept"): who asks for many, as they will be over soon, does not know how large they
-- are. Where that leaves some out, "seen" is 1. Their size is that of the text; what is
-- stored is at least a 256th part of it, so mostly a look at that is enough.
--
-- A trigger may keep a row as it was, by returning null or the old one. A job whose lock,
-- or whose queue's, is not written so is not among those that are taken, and "seen" is
-- -1; the lock of its queue stays then, see FreeIdleQueues.
--
-- The window is one of rows: one of peers would read all jobs that were added together.
--
-- Tasks come as their ids, which always mean the same: looking their names up for every
-- row would be a quarter of the cost of finding it. For the same reason created_at,
-- updated_at and revision are null where they are run_at, created_at and 0.
with looked as materialized (
  select w.id, w.job_queue_id, pg_catalog.row_number() over (order by w.priority, w.run_at rows unbounded preceding) as position
  from graphile_worker._private_jobs w
  where w.is_available
    and w.run_at <= pg_catalog.now()
    and (w.priority, w.run_at) >= (
      coalesce(sqlc.narg(from_priority)::int2, '-32768'::int2), coalesce(sqlc.narg(from_run_at)::timestamptz, '-infinity')
    )
    and w.task_id = any (array(
      select t.id from graphile_worker._private_tasks t where t.identifier = any (@tasks::text[])
    ))
    and (w.job_queue_id is null or w.job_queue_id <> all (coalesce(sqlc.narg(blocked)::int[], '{}')))
  order by w.priority, w.run_at
  limit 1000
), firsts as materialized (
  select distinct on (l.job_queue_id) l.job_queue_id, l.id
  from looked l
  where l.job_queue_id is not null
  order by l.job_queue_id, l.position
), runnable as materialized (
  select j.id, j.job_queue_id, j.payload
  from graphile_worker._private_jobs j
  where j.is_available
    and j.run_at <= pg_catalog.now()
    and (j.priority, j.run_at) >= (
      coalesce(sqlc.narg(from_priority)::int2, '-32768'::int2), coalesce(sqlc.narg(from_run_at)::timestamptz, '-infinity')
    )
    and j.task_id = any (array(
      select t.id from graphile_worker._private_tasks t where t.identifier = any (@tasks::text[])
    ))
    and (
      j.job_queue_id is null
      or j.job_queue_id <> all (coalesce(sqlc.narg(blocked)::int[], '{}'))
      and j.id in (select f.id from firsts f)
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
), fits as materialized (
  select s.chosen,
    case
      when s.stored * 256 <= @max_bytes::bigint then s.chosen
      else (
        select greatest(pg_catalog.count(*) filter (where w.bytes <= @max_bytes::bigint), 1)
        from (select pg_catalog.sum(pg_catalog.octet_length(r.payload::text)) over (rows unbounded preceding) as bytes from runnable r) w
      )
    end as jobs
  from (select pg_catalog.count(*) as chosen, pg_catalog.sum(pg_catalog.pg_column_size(r.payload)) as stored from runnable r) s
), kept as not materialized (
  select r.* from runnable r limit (select f.jobs from fits f)
), summary as materialized (
  select s.chosen,
    case
      when s.chosen = 0 then (
        select pg_catalog.count(*) from firsts f
        where (select q.is_available from graphile_worker._private_job_queues q where q.id = f.job_queue_id)
      )
      when s.chosen > (select f.jobs from fits f) then 1
      else 0
    end as seen,
    case
      when s.chosen < @max_jobs::int then (select pg_catalog.count(*) from looked l where l.job_queue_id is not null)
      else 0
    end as looked
  from (select f.chosen from fits f) s
), held_queues as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = pg_catalog.now()
  where q.id = any (array(select r.job_queue_id from kept r))
  returning q.id, q.locked_at
), held_jobs as (
  update graphile_worker._private_jobs j
  set locked_by = @worker_id::text, locked_at = pg_catalog.now(), attempts = j.attempts + 1
  where j.id = any (array(
    select r.id from kept r
    where r.job_queue_id is null or r.job_queue_id in (select h.id from held_queues h where h.locked_at is not null)
  ))
  returning j.*
)
select
  h.id, h.payload, h.priority, h.run_at, h.attempts, h.max_attempts, h.last_error,
  case when h.created_at <> h.run_at then h.created_at end as created_at,
  case when h.updated_at <> h.created_at then h.updated_at end as updated_at,
  h.key, case when h.revision <> 0 then h.revision end as revision, h.flags, h.task_id,
  case
    when h.job_queue_id is not null
    then (select q.queue_name from graphile_worker._private_job_queues q where q.id = h.job_queue_id)
  end as queue,
  case
    when (select pg_catalog.count(*) from held_jobs w where w.locked_at is not null) < least(s.chosen, (select f.jobs from fits f)) then -1
    when s.seen > 0 then s.seen::int
  end as seen, case when s.looked > 0 then s.looked::int end as looked,
  case when false then 0 end as reached, h.locked_at
from summary s
left join held_jobs h on h.locked_at is not null
order by h.priority, h.run_at, h.id;

-- name: PlanByIndex :exec
-- Keeps one plan for every claim, for the transaction that it is in: the walk of the
-- index in its order (see BeginHold).
select
  pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true),
  pg_catalog.set_config('enable_seqscan', 'off', true),
  pg_catalog.set_config('enable_bitmapscan', 'off', true),
  pg_catalog.set_config('jit', 'off', true);

-- name: ClaimQueuedJobs :many
-- The claim for jobs of which many have a queue: it looks at the first look_at jobs
-- without locking any, keeps the first of each queue and all that have none, and locks
-- these in their order, up to max_jobs. ClaimJobs would walk by all the others, too.
-- Queue row before job, and only the queue's first as the statement sees the table, as
-- there: what somebody has changed meanwhile is for the next claim. That a job still is
-- what was looked at has to be asked of its row, in its latest version.
--
-- "looked" is how many jobs it looked at: look_at of them mean that there may be more
-- behind. "reached" is the position up to which three quarters of those lay that it took.
with looked as materialized (
  select w.id, w.job_queue_id, w.task_id, pg_catalog.row_number() over (order by w.priority, w.run_at rows unbounded preceding) as position
  from graphile_worker._private_jobs w
  where w.is_available
    and w.run_at <= pg_catalog.now()
    and (w.priority, w.run_at) >= (
      coalesce(sqlc.narg(from_priority)::int2, '-32768'::int2), coalesce(sqlc.narg(from_run_at)::timestamptz, '-infinity')
    )
    and w.task_id = any (array(
      select t.id from graphile_worker._private_tasks t where t.identifier = any (@tasks::text[])
    ))
    and (w.job_queue_id is null or w.job_queue_id <> all (coalesce(sqlc.narg(blocked)::int[], '{}')))
  order by w.priority, w.run_at
  limit @look_at::int
), firsts as (
  select distinct on (coalesce(l.job_queue_id::bigint, -l.id)) l.id, l.job_queue_id, l.task_id, l.position
  from looked l
  order by coalesce(l.job_queue_id::bigint, -l.id), l.position
), runnable as materialized (
  select j.id, j.job_queue_id, f.position, j.payload
  from (select f.id, f.job_queue_id, f.task_id, f.position from firsts f order by f.position) f
  left join lateral (
    select q.queue_name
    from graphile_worker._private_job_queues q
    where q.id = f.job_queue_id and q.is_available
    for update skip locked
  ) q on true
  cross join lateral (
    select j.*
    from graphile_worker._private_jobs j
    where j.id = f.id
      and (f.job_queue_id is null or q.queue_name is not null)
      and j.job_queue_id is not distinct from f.job_queue_id
      and j.task_id = f.task_id
      and j.is_available
      and j.run_at <= pg_catalog.now()
    for update skip locked
  ) j
  order by f.position
  limit @max_jobs::int
), fits as materialized (
  select s.chosen,
    case
      when s.stored * 256 <= @max_bytes::bigint then s.chosen
      else (
        select greatest(pg_catalog.count(*) filter (where w.bytes <= @max_bytes::bigint), 1)
        from (select pg_catalog.sum(pg_catalog.octet_length(r.payload::text)) over (rows unbounded preceding) as bytes from runnable r) w
      )
    end as jobs
  from (select pg_catalog.count(*) as chosen, pg_catalog.sum(pg_catalog.pg_column_size(r.payload)) as stored from runnable r) s
), kept as not materialized (
  select r.* from runnable r limit (select f.jobs from fits f)
), summary as materialized (
  select s.chosen, s.reached,
    case
      when s.chosen = 0 then (
        select pg_catalog.count(*) from firsts f
        where (select q.is_available from graphile_worker._private_job_queues q where q.id = f.job_queue_id)
      )
      when s.chosen > (select f.jobs from fits f) then 1
      else 0
    end as seen,
    (select pg_catalog.count(*) from looked) as looked
  from (select pg_catalog.count(*) as chosen, pg_catalog.percentile_disc(0.75) within group (order by r.position) as reached from runnable r) s
), held_queues as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = pg_catalog.now()
  where q.id = any (array(select r.job_queue_id from kept r))
  returning q.id, q.locked_at
), held_jobs as (
  update graphile_worker._private_jobs j
  set locked_by = @worker_id::text, locked_at = pg_catalog.now(), attempts = j.attempts + 1
  where j.id = any (array(
    select r.id from kept r
    where r.job_queue_id is null or r.job_queue_id in (select h.id from held_queues h where h.locked_at is not null)
  ))
  returning j.*
)
select
  h.id, h.payload, h.priority, h.run_at, h.attempts, h.max_attempts, h.last_error,
  case when h.created_at <> h.run_at then h.created_at end as created_at,
  case when h.updated_at <> h.created_at then h.updated_at end as updated_at,
  h.key, case when h.revision <> 0 then h.revision end as revision, h.flags, h.task_id,
  case
    when h.job_queue_id is not null
    then (select q.queue_name from graphile_worker._private_job_queues q where q.id = h.job_queue_id)
  end as queue,
  case
    when (select pg_catalog.count(*) from held_jobs w where w.locked_at is not null) < least(s.chosen, (select f.jobs from fits f)) then -1
    when s.seen > 0 then s.seen::int
  end as seen, case when s.looked > 0 then s.looked::int end as looked,
  case when s.reached > 0 then s.reached::int end as reached, h.locked_at
from summary s
left join held_jobs h on h.locked_at is not null
order by h.priority, h.run_at, h.id;

-- name: ListHeldJobs :many
-- What this worker holds according to the database, but for the claims that it
-- knows of: the jobs of a claim whose answer never arrived. A job that it knows by
-- an older claim is among them.
with known as (
  select pg_catalog.unnest(@known::bigint[]) as id, pg_catalog.unnest(@locked_ats::timestamptz[]) as locked_at
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
