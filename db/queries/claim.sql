-- Claiming: from runnable rows to rows that belong to this worker.

-- name: ClaimJobs :many
-- The claim for jobs of which few or none have a queue. In this order:
--
-- "runnable" walks the jobs in their order and takes the row locks of up to max_jobs of
-- them, skipping what others have locked. "kept" are as many of these as have max_bytes of
-- payloads together, but at least one: whoever asks for many, because they will end soon,
-- does not know how large they are. The size is that of the text; what is stored is at
-- least a 256th part of it, so a look at that is mostly enough.
--
-- "to_lock" are those whose lock is written: of the tasks in lock_tasks, or all of them
-- where lock_tasks is null (a locked claim). The rest are held: nothing but the row locks
-- of this transaction keeps them, until it ends. locked_at is null for them; BeginHold
-- tells when they count as locked. "attempts" counts this attempt, written or not.
--
-- A job of a named queue passes only if it is the queue's first as the statement sees
-- the table ("firsts") and its queue row is free, which the walk locks before the job:
-- other claims then skip the whole queue, so none can start its second job before its
-- first. It matters that the first is found beforehand, without regard to locks: the walk
-- takes time, and a queue that was locked at its first job may be free at a later one.
-- "firsts" are found among the next thousand jobs only, and only if the walk meets a queued
-- job; where that is not enough ClaimQueuedJobs is the better claim.
--
-- Where many jobs lie before the first that can run, the walk begins at a place
-- (from_priority, from_run_at) and leaves the queues in "blocked" out; FindCursor and
-- ListBlockedQueues find them. Without them (null) it walks everything. The comparison of
-- rows is a condition of the index, so what lies before the place is not read. (An upper
-- bound of that kind would not end the scan before the end of the priority: only the
-- first column of an index does.)
--
-- Locks are written by arrays of ids, not by joins: then every plan looks each id up,
-- even one that was made for empty tables and is kept.
--
-- Three columns tell what the claim saw. "looked" is how many queued jobs it looked at,
-- if it took fewer than it might have. Where it took nothing there is one row without a
-- job, and "seen" counts the queues of which another session has a row locked: when that
-- ends the next of their jobs can run, and no notification says so. "seen" is 1 where
-- max_bytes left jobs out. Both are null for 0.
--
-- A user's trigger may keep a row as it was, by returning null or the old row. Where the
-- lock of a job or of its queue is not written for that reason, the job is not among
-- those that are claimed, and "seen" is -1; the lock of its queue may stay, see
-- FreeIdleQueues.
--
-- The window counts rows: one that counts peers would read all jobs of one transaction.
--
-- Tasks come as ids, which never change their meaning: looking their names up for every
-- row would take a quarter of the time of finding it. For the same reason created_at,
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
  select j.*
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
), to_lock as (
  select r.id, r.job_queue_id
  from kept r
  where coalesce(pg_catalog.cardinality(sqlc.narg(lock_tasks)::text[]), 1) > 0
    and (
      sqlc.narg(lock_tasks)::text[] is null
      or r.task_id = any (array(
        select t.id from graphile_worker._private_tasks t where t.identifier = any (sqlc.narg(lock_tasks)::text[])
      ))
    )
), locked_queues as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = pg_catalog.now()
  where q.id = any (array(select l.job_queue_id from to_lock l))
  returning q.id, q.locked_at
), locked_jobs as (
  update graphile_worker._private_jobs j
  set locked_by = @worker_id::text, locked_at = pg_catalog.now(), attempts = j.attempts + 1
  where j.id = any (array(
    select l.id from to_lock l
    where l.job_queue_id is null or l.job_queue_id in (select w.id from locked_queues w where w.locked_at is not null)
  ))
  returning j.*
), claimed as (
  select
    r.id, r.payload, r.priority, r.run_at, r.attempts + 1 as attempts, r.max_attempts, r.last_error, r.created_at,
    r.updated_at, r.key, r.revision, r.flags, r.task_id, case
      when r.job_queue_id is not null
      then (select q.queue_name from graphile_worker._private_job_queues q where q.id = r.job_queue_id)
    end as queue, null::timestamptz as locked_at
  from kept r
  where sqlc.narg(lock_tasks)::text[] is not null
    and (pg_catalog.cardinality(sqlc.narg(lock_tasks)::text[]) = 0 or r.id not in (select l.id from to_lock l))
  union all
  select
    w.id, w.payload, w.priority, w.run_at, w.attempts, w.max_attempts, w.last_error, w.created_at,
    w.updated_at, w.key, w.revision, w.flags, w.task_id,
    case
      when w.job_queue_id is not null
      then (select q.queue_name from graphile_worker._private_job_queues q where q.id = w.job_queue_id)
    end as queue, w.locked_at
  from locked_jobs w
  where w.locked_at is not null
)
select
  c.id, c.payload, c.priority, c.run_at, c.attempts, c.max_attempts, c.last_error,
  case when c.created_at <> c.run_at then c.created_at end as created_at,
  case when c.updated_at <> c.created_at then c.updated_at end as updated_at,
  c.key, case when c.revision <> 0 then c.revision end as revision, c.flags, c.task_id, c.queue,
  case
    when (select pg_catalog.count(*) from locked_jobs w where w.locked_at is not null) < (select pg_catalog.count(*) from to_lock) then -1
    when s.seen > 0 then s.seen::int
  end as seen, case when s.looked > 0 then s.looked::int end as looked,
  case when false then 0 end as reached, c.locked_at
from summary s
left join claimed c on true
order by c.priority, c.run_at, c.id;

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
-- without locking any, keeps the first of each queue and all that have no queue, and
-- locks these in their order, up to max_jobs. ClaimJobs would walk past all the others,
-- too. Everything else is as there: the queue's row before the job's, only the queue's
-- first as the statement sees the table, and what changes meanwhile is left to the next
-- claim. Whether a job still is what was looked at is asked of its row's latest version.
--
-- "looked" is how many jobs it looked at: look_at of them mean that there may be more.
-- "reached" is the position within which three quarters of the taken jobs lay.
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
  select j.*, f.position, q.queue_name
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
), to_lock as (
  select r.id, r.job_queue_id
  from kept r
  where coalesce(pg_catalog.cardinality(sqlc.narg(lock_tasks)::text[]), 1) > 0
    and (
      sqlc.narg(lock_tasks)::text[] is null
      or r.task_id = any (array(
        select t.id from graphile_worker._private_tasks t where t.identifier = any (sqlc.narg(lock_tasks)::text[])
      ))
    )
), locked_queues as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = pg_catalog.now()
  where q.id = any (array(select l.job_queue_id from to_lock l))
  returning q.id, q.locked_at
), locked_jobs as (
  update graphile_worker._private_jobs j
  set locked_by = @worker_id::text, locked_at = pg_catalog.now(), attempts = j.attempts + 1
  where j.id = any (array(
    select l.id from to_lock l
    where l.job_queue_id is null or l.job_queue_id in (select w.id from locked_queues w where w.locked_at is not null)
  ))
  returning j.*
), claimed as (
  select
    r.id, r.payload, r.priority, r.run_at, r.attempts + 1 as attempts, r.max_attempts, r.last_error, r.created_at,
    r.updated_at, r.key, r.revision, r.flags, r.task_id, r.queue_name as queue, null::timestamptz as locked_at
  from kept r
  where sqlc.narg(lock_tasks)::text[] is not null
    and (pg_catalog.cardinality(sqlc.narg(lock_tasks)::text[]) = 0 or r.id not in (select l.id from to_lock l))
  union all
  select
    w.id, w.payload, w.priority, w.run_at, w.attempts, w.max_attempts, w.last_error, w.created_at,
    w.updated_at, w.key, w.revision, w.flags, w.task_id,
    case
      when w.job_queue_id is not null
      then (select q.queue_name from graphile_worker._private_job_queues q where q.id = w.job_queue_id)
    end as queue, w.locked_at
  from locked_jobs w
  where w.locked_at is not null
)
select
  c.id, c.payload, c.priority, c.run_at, c.attempts, c.max_attempts, c.last_error,
  case when c.created_at <> c.run_at then c.created_at end as created_at,
  case when c.updated_at <> c.created_at then c.updated_at end as updated_at,
  c.key, case when c.revision <> 0 then c.revision end as revision, c.flags, c.task_id, c.queue,
  case
    when (select pg_catalog.count(*) from locked_jobs w where w.locked_at is not null) < (select pg_catalog.count(*) from to_lock) then -1
    when s.seen > 0 then s.seen::int
  end as seen, case when s.looked > 0 then s.looked::int end as looked,
  case when s.reached > 0 then s.reached::int end as reached, c.locked_at
from summary s
left join claimed c on true
order by c.priority, c.run_at, c.id;

-- name: ListLockedJobs :many
-- What this worker holds according to the database, but for the claims that it
-- knows of: the jobs of a claim whose answer never arrived. A job that it knows by
-- an older claim is among them.
with known as (
  select pg_catalog.unnest(@known::bigint[]) as id, pg_catalog.unnest(@locked_ats::timestamp with time zone[]) as locked_at
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
