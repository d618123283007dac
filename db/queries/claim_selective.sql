-- Claiming with more to go by than the order: flags, tasks of which only so many
-- may be held at once, and a clock that is not the database's. It is ClaimJobs
-- otherwise, which stays as plain as it is for those who need none of this.

-- name: ClaimSelectedJobs :many
-- Two walks. "plain" is that of ClaimJobs. "limited" walks the jobs of each
-- limited task separately, up to the task's free capacity: jobs beyond it take no
-- place of the plain walk, and a task without capacity is not walked. Both walks
-- lock the rows that they find and skip locked ones; their results are merged in the
-- order of jobs and cut to max_jobs. A walk that meets a second job of a queue may
-- end before jobs that precede some of another walk's; jobs after its last one are
-- left to the next claim, so that the order holds. Rows that were locked and not
-- chosen are free again when the statement ends. "last" and "firsts" keep the order
-- within queues: a queue that was locked when a walk reached its first job may be free
-- at a later one, so a job is chosen only if, in the statement's snapshot, no other job
-- of its queue precedes it. Jobs before the last one are looked up in two parts, since
-- a comparison of both columns at once would not end a scan of the index. As in
-- ClaimJobs, max_bytes bounds the payloads of the jobs that are taken ("kept").
--
-- "at" replaces the database's time in comparisons with jobs' times, and "lock_at" replaces
-- it in locked_at. A locked_at identifies a claim, so its clock must not stand still; the
-- other clock may.
--
-- "refused_ids" are jobs that are left alone, as if they were not there: the database
-- refuses their locks, and "refused_queues" queues of the same kind. To find these, a claim is asked first which jobs it would take
-- ("look": nothing is written, and no text of the user's is read), and then takes some
-- of these ("only_ids"). Those whose lock, or whose queue's, a trigger has kept from being
-- written without an error come without locked_at.
--
-- As in ClaimJobs the locks of the tasks in lock_tasks are written, or of all where it is
-- null. The others are held by this transaction and come without locked_at. Then all that
-- the walks found is taken, as its rows stay locked. What is not, because of the order of
-- queues or its size, is free when the transaction ends: "passed" says that there is some.
with rooms as (
  select t.id as task_id, r.room
  from (select pg_catalog.unnest(@limited_tasks::text[]) as identifier, pg_catalog.unnest(@rooms::int[]) as room) r
  join graphile_worker._private_tasks t on t.identifier = r.identifier
), plain as materialized (
  select j.id, j.job_queue_id, j.priority, j.run_at
  from graphile_worker._private_jobs j
  where j.is_available
    and j.run_at <= coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now())
    and j.task_id = any (array(
      select t.id from graphile_worker._private_tasks t where t.identifier = any (@tasks::text[])
    ))
    and (j.flags ?| @forbidden_flags::text[]) is not true
    and (pg_catalog.cardinality(@accepted_flags::text[]) = 0 or j.flags ?| @accepted_flags::text[])
    and (j.id = any (@refused_ids::bigint[])) is not true
    and (j.job_queue_id = any (array(
      select q.id from graphile_worker._private_job_queues q where q.queue_name = any (@refused_queues::text[])
    ))) is not true
    and (pg_catalog.cardinality(@only_ids::bigint[]) > 0 and j.id <> all (@only_ids::bigint[])) is not true
    and (
      j.job_queue_id is null
      or (
        select q.is_available
        from graphile_worker._private_job_queues q
        where q.id = j.job_queue_id and q.is_available
        for update skip locked
      )
    )
  order by j.priority, j.run_at
  limit @max_jobs::int
  for update of j skip locked
), limited as materialized (
  select w.id, w.job_queue_id, w.priority, w.run_at, r.task_id
  from rooms r
  cross join lateral (
    select j.id, j.job_queue_id, j.priority, j.run_at
    from graphile_worker._private_jobs j
    where j.is_available
      and j.run_at <= coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now())
      and j.task_id = r.task_id
      and (j.flags ?| @forbidden_flags::text[]) is not true
      and (pg_catalog.cardinality(@accepted_flags::text[]) = 0 or j.flags ?| @accepted_flags::text[])
      and (j.id = any (@refused_ids::bigint[])) is not true
      and (j.job_queue_id = any (array(
        select q.id from graphile_worker._private_job_queues q where q.queue_name = any (@refused_queues::text[])
      ))) is not true
      and (pg_catalog.cardinality(@only_ids::bigint[]) > 0 and j.id <> all (@only_ids::bigint[])) is not true
      and (
        j.job_queue_id is null
        or (
          select q.is_available
          from graphile_worker._private_job_queues q
          where q.id = j.job_queue_id and q.is_available
          for update skip locked
        )
      )
    order by j.priority, j.run_at
    limit least(r.room, @max_jobs::int)
    for update of j skip locked
  ) w
), runnable as (
  select p.id, p.job_queue_id, p.priority, p.run_at, null::int as walk from plain p
  union all
  select l.id, l.job_queue_id, l.priority, l.run_at, l.task_id as walk from limited l
), ranked as materialized (
  select r.id, r.job_queue_id, r.walk, r.priority, r.run_at,
    pg_catalog.row_number() over (partition by r.job_queue_id order by r.priority, r.run_at, r.id) as place,
    pg_catalog.row_number() over (order by r.priority, r.run_at, r.id) as position
  from runnable r
), ends as (
  select pg_catalog.max(r.position) as position
  from ranked r
  group by r.walk
  having pg_catalog.bool_or(r.job_queue_id is not null and r.place > 1)
), last as (
  select r.priority, r.run_at
  from ranked r
  where r.job_queue_id is not null and r.place = 1
  order by r.priority desc, r.run_at desc
  limit 1
), firsts as (
  select distinct on (e.job_queue_id) e.job_queue_id, e.priority, e.run_at
  from (
    select j.job_queue_id, j.priority, j.run_at
    from graphile_worker._private_jobs j
    where j.is_available
      and j.run_at <= coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now())
      and j.task_id = any (array(
        select t.id from graphile_worker._private_tasks t where t.identifier = any (@tasks::text[])
        union all
        select r.task_id from rooms r
      ))
      and (j.flags ?| @forbidden_flags::text[]) is not true
      and (pg_catalog.cardinality(@accepted_flags::text[]) = 0 or j.flags ?| @accepted_flags::text[])
      and (j.id = any (@refused_ids::bigint[])) is not true
      and j.job_queue_id = any (array(select r.job_queue_id from ranked r where r.place = 1))
      and j.priority < (select l.priority from last l)
    union all
    select j.job_queue_id, j.priority, j.run_at
    from graphile_worker._private_jobs j
    where j.is_available
      and j.run_at <= coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now())
      and j.task_id = any (array(
        select t.id from graphile_worker._private_tasks t where t.identifier = any (@tasks::text[])
        union all
        select r.task_id from rooms r
      ))
      and (j.flags ?| @forbidden_flags::text[]) is not true
      and (pg_catalog.cardinality(@accepted_flags::text[]) = 0 or j.flags ?| @accepted_flags::text[])
      and (j.id = any (@refused_ids::bigint[])) is not true
      and j.job_queue_id = any (array(select r.job_queue_id from ranked r where r.place = 1))
      and j.priority = (select l.priority from last l)
      and j.run_at < (select l.run_at from last l)
  ) e
  order by e.job_queue_id, e.priority, e.run_at
), chosen as materialized (
  select r.id, r.job_queue_id, r.position
  from ranked r
  left join firsts f on f.job_queue_id = r.job_queue_id
  where (r.job_queue_id is null or r.place = 1 and ((f.priority, f.run_at) < (r.priority, r.run_at)) is not true)
    and r.position <= all (select e.position from ends e)
  order by r.position
  limit case when sqlc.narg(lock_tasks)::text[] is null then @max_jobs::int end
), sized as materialized (
  select c.id, c.job_queue_id, c.position, (select j.payload from graphile_worker._private_jobs j where j.id = c.id) as payload
  from chosen c
), fits as materialized (
  select
    case
      when s.stored * 256 <= @max_bytes::bigint then s.chosen
      else (
        select greatest(pg_catalog.count(*) filter (where w.bytes <= @max_bytes::bigint), 1)
        from (select pg_catalog.sum(pg_catalog.octet_length(z.payload::text)) over (order by z.position rows unbounded preceding) as bytes from sized z) w
      )
    end as jobs
  from (select pg_catalog.count(*) as chosen, pg_catalog.sum(pg_catalog.pg_column_size(z.payload)) as stored from sized z) s
), kept as materialized (
  select z.id, z.job_queue_id from sized z order by z.position limit (select f.jobs from fits f)
), to_lock as materialized (
  select c.id, c.job_queue_id
  from kept c
  where not @look::boolean
    and (
      sqlc.narg(lock_tasks)::text[] is null
      or (select j.task_id from graphile_worker._private_jobs j where j.id = c.id) = any (array(
        select t.id from graphile_worker._private_tasks t where t.identifier = any (sqlc.narg(lock_tasks)::text[])
      ))
    )
), locked_queues as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = coalesce(sqlc.narg(lock_at)::timestamp with time zone, pg_catalog.now())
  from to_lock c
  where q.id = c.job_queue_id
  returning q.id, q.locked_at
), locked_jobs as (
  update graphile_worker._private_jobs j
  set locked_by = @worker_id::text, locked_at = coalesce(sqlc.narg(lock_at)::timestamp with time zone, pg_catalog.now()), attempts = j.attempts + 1
  from to_lock c
  where j.id = c.id
    and (c.job_queue_id is null or c.job_queue_id in (select h.id from locked_queues h where h.locked_at is not null))
  returning j.*
)
select
  h.id, h.payload, h.priority, h.run_at, h.attempts, h.max_attempts, h.last_error, h.created_at,
  h.updated_at, h.key, h.locked_at, h.revision, h.flags,
  (select t.identifier from graphile_worker._private_tasks t where t.id = h.task_id)::text as task,
  coalesce((select q.queue_name from graphile_worker._private_job_queues q where q.id = h.job_queue_id), '')::text as queue,
  -- Whether a walk ended at its limit with something behind it, or the payloads at theirs.
  ((select pg_catalog.count(*) from plain) >= @max_jobs::int
    or (select pg_catalog.count(*) from chosen) > (select pg_catalog.count(*) from kept)
    or (select pg_catalog.count(*) from runnable) > (select pg_catalog.count(*) from chosen)
    or (select pg_catalog.count(*) from chosen) >= @max_jobs::int)::boolean as more,
  exists (
    select from ranked r
    where (r.job_queue_id is null or r.place = 1) and r.id not in (select c.id from kept c)
  ) as passed
from (
  select
    w.id, w.payload, w.priority, w.run_at, w.attempts, w.max_attempts, w.last_error, w.created_at,
    w.updated_at, w.key, w.locked_at, w.revision, w.flags, w.task_id, w.job_queue_id
  from locked_jobs w
  where w.locked_at is not null
  union all
  select
    j.id, case when not @look::boolean then j.payload end, j.priority, j.run_at,
    case when @look::boolean then j.attempts else j.attempts + 1 end::int2, j.max_attempts,
    case when not @look::boolean then j.last_error end, j.created_at, j.updated_at,
    case when not @look::boolean then j.key end, j.locked_at, j.revision, case when not @look::boolean then j.flags end,
    j.task_id, j.job_queue_id
  from graphile_worker._private_jobs j
  where j.id = any (array(
    select c.id from kept c
    where @look::boolean or not exists (select from locked_jobs w where w.id = c.id and w.locked_at is not null)
  ))
) h
order by h.priority, h.run_at, h.id;

-- name: TryQueue :many
-- Locks a queue that is free, to find out whether that is refused. FreeIdleQueues frees it.
with tried as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = pg_catalog.now()
  where q.queue_name = @queue::text and q.is_available
  returning q.id, q.locked_at
)
select coalesce((select t.locked_at is not null from tried t where t.id = f.id), false)::boolean as locked
from graphile_worker._private_job_queues f
where f.queue_name = @queue::text and f.is_available;
