-- Administration: reading and changing jobs by hand, and lists of tasks, queues and
-- workers.
--
-- The states of jobs are defined here, by one text that is repeated in every statement that
-- needs it; a test checks that the copies agree. Joins are outer joins, so that a job whose
-- task or queue row was deleted is still seen.
--
-- A job that a worker holds only by an open transaction (hold.sql) has no lock on its row.
-- Its own process knows of it: @held are the ids of such jobs, @held_queues the names of
-- their queues, and @holder is the worker. They are read before the statement runs, so a
-- job whose lock is written in between counts as locked.
--
-- Ages are the difference of two numbers and not of two times, here and in the other files:
-- before PostgreSQL 17 infinite times cannot be subtracted, and one such row, which users may
-- write, would fail the statement for all. -infinity has an age of Infinity, and infinity one
-- of -Infinity; internal/elapsed says what becomes of them.

-- name: AdminCompleteJobs :many
-- The schema's function decides which jobs may be touched. The others come as
-- they were when the statement began. @held is empty here: what was touched is held
-- no more, since the function has waited for that.
with touched as materialized (
  select f.* from graphile_worker.complete_jobs(@ids::bigint[]) f
), asked as (
  select true as touched, f.* from touched f
  union all
  select false, p.*
  from graphile_worker._private_jobs p
  where p.id = any (@ids::bigint[]) and not exists (select from touched f where f.id = p.id)
)
select
  j.touched,
  j.id, j.payload as payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error,
  j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags,
  coalesce(t.identifier, '')::text as task,
  coalesce(q.queue_name, '')::text as queue,
  (case
    when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
    when j.attempts >= j.max_attempts then 'failed'
    when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
    when j.run_at > pg_catalog.now() then 'scheduled'
    when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
    else 'blocked'
  end)::text as state,
  coalesce(q.locked_by, '')::text as queue_locked_by,
  q.locked_at as queue_locked_at,
  pg_catalog.now()::timestamp with time zone as read_at
from asked j
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
order by j.id;

-- name: AdminFailJobs :many
-- As above.
with touched as materialized (
  select f.* from graphile_worker.permanently_fail_jobs(@ids::bigint[], sqlc.narg(reason)::text) f
), asked as (
  select true as touched, f.* from touched f
  union all
  select false, p.*
  from graphile_worker._private_jobs p
  where p.id = any (@ids::bigint[]) and not exists (select from touched f where f.id = p.id)
)
select
  j.touched,
  j.id, j.payload as payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error,
  j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags,
  coalesce(t.identifier, '')::text as task,
  coalesce(q.queue_name, '')::text as queue,
  (case
    when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
    when j.attempts >= j.max_attempts then 'failed'
    when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
    when j.run_at > pg_catalog.now() then 'scheduled'
    when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
    else 'blocked'
  end)::text as state,
  coalesce(q.locked_by, '')::text as queue_locked_by,
  q.locked_at as queue_locked_at,
  pg_catalog.now()::timestamp with time zone as read_at
from asked j
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
order by j.id;

-- name: AdminRescheduleJobs :many
-- As above. The function tells nobody; here workers hear of what can run now, and
-- need not find it by polling.
with touched as materialized (
  select f.* from graphile_worker.reschedule_jobs(
    @ids::bigint[],
    run_at => case when @run_now::boolean then pg_catalog.now() else sqlc.narg(run_at)::timestamp with time zone end,
    priority => sqlc.narg(priority)::int,
    attempts => sqlc.narg(attempts)::int,
    max_attempts => sqlc.narg(max_attempts)::int
  ) f
), asked as (
  select true as touched, f.* from touched f
  union all
  select false, p.*
  from graphile_worker._private_jobs p
  where p.id = any (@ids::bigint[]) and not exists (select from touched f where f.id = p.id)
), announced as (
  select pg_catalog.pg_notify('jobs:insert', pg_catalog.json_build_object('r', pg_catalog.random(), 'count', pg_catalog.count(*))::text)
  from touched f
  where f.is_available and f.run_at <= pg_catalog.now()
  having pg_catalog.count(*) > 0
)
select
  j.touched,
  j.id, j.payload as payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error,
  j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags,
  coalesce(t.identifier, '')::text as task,
  coalesce(q.queue_name, '')::text as queue,
  (case
    when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
    when j.attempts >= j.max_attempts then 'failed'
    when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
    when j.run_at > pg_catalog.now() then 'scheduled'
    when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
    else 'blocked'
  end)::text as state,
  coalesce(q.locked_by, '')::text as queue_locked_by,
  q.locked_at as queue_locked_at,
  pg_catalog.now()::timestamp with time zone as read_at
from asked j
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
left join announced a on true
order by j.id;

-- name: AdminGetJobs :many
-- "touched" says whether the functions above would touch the job.
select
  ((j.locked_at is null or j.locked_at < pg_catalog.now() - interval '4 hours') and j.id <> all (@held::bigint[]))::boolean as touched,
  j.id, j.payload as payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error,
  j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags,
  coalesce(t.identifier, '')::text as task,
  coalesce(q.queue_name, '')::text as queue,
  (case
    when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
    when j.attempts >= j.max_attempts then 'failed'
    when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
    when j.run_at > pg_catalog.now() then 'scheduled'
    when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
    else 'blocked'
  end)::text as state,
  coalesce(q.locked_by, '')::text as queue_locked_by,
  q.locked_at as queue_locked_at,
  pg_catalog.now()::timestamp with time zone as read_at
from graphile_worker._private_jobs j
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
where j.id = any (@ids::bigint[])
order by j.id;

-- name: AdminGetJobByKey :one
select
  ((j.locked_at is null or j.locked_at < pg_catalog.now() - interval '4 hours') and j.id <> all (@held::bigint[]))::boolean as touched,
  j.id, j.payload as payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error,
  j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags,
  coalesce(t.identifier, '')::text as task,
  coalesce(q.queue_name, '')::text as queue,
  (case
    when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
    when j.attempts >= j.max_attempts then 'failed'
    when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
    when j.run_at > pg_catalog.now() then 'scheduled'
    when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
    else 'blocked'
  end)::text as state,
  coalesce(q.locked_by, '')::text as queue_locked_by,
  q.locked_at as queue_locked_at,
  pg_catalog.now()::timestamp with time zone as read_at
from graphile_worker._private_jobs j
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
where j.key = @key::text;

-- name: AdminListByID :many
-- The three listings differ in their order, which each has an index for, and in
-- where a page begins. They find the jobs of the page first and their names then.
-- They must be planned for their arguments and not once for all: then what is not
-- asked for costs nothing, the join for the states included, and "available" and
-- "locked", which follow from the states, tell the planner how many jobs there
-- are. "touched" makes their rows alike.
--
-- Here and in AdminGetJobs "j.payload as payload" is what a reader without a right to
-- payloads goes without (statement.Set.WithoutPayloads).
select
  true as touched,
  j.id, (case when @with_payload::boolean then j.payload end)::json as payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error,
  j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags,
  coalesce(t.identifier, '')::text as task,
  coalesce(q.queue_name, '')::text as queue,
  (case
    when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
    when j.attempts >= j.max_attempts then 'failed'
    when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
    when j.run_at > pg_catalog.now() then 'scheduled'
    when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
    else 'blocked'
  end)::text as state,
  coalesce(q.locked_by, '')::text as queue_locked_by,
  q.locked_at as queue_locked_at,
  pg_catalog.now()::timestamp with time zone as read_at
from (
  select
    j.id, j.job_queue_id, j.task_id, j.payload as payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error,
    j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags
  from graphile_worker._private_jobs j
  left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
  where j.id > @after_id::bigint
    and (
      sqlc.narg(available)::boolean is null
      or (j.is_available and j.id <> all (@held::bigint[])) = sqlc.narg(available)::boolean
    )
    and (
      sqlc.narg(locked)::boolean is null
      or (j.locked_at is not null or j.id = any (@held::bigint[])) = sqlc.narg(locked)::boolean
    )
    and (pg_catalog.cardinality(@states::text[]) = 0 or (case
      when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
      when j.attempts >= j.max_attempts then 'failed'
      when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
      when j.run_at > pg_catalog.now() then 'scheduled'
      when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
      else 'blocked'
    end) = any (@states::text[]))
    and (pg_catalog.cardinality(@tasks::text[]) = 0 or j.task_id = any (array(
      select i.id from graphile_worker._private_tasks i where i.identifier = any (@tasks::text[])
    )))
    and (
      pg_catalog.cardinality(@queues::text[]) = 0
      or j.job_queue_id = any (array(
        select i.id from graphile_worker._private_job_queues i where i.queue_name = any (@queues::text[])
      ))
      or j.job_queue_id is null and '' = any (@queues::text[])
    )
    and (pg_catalog.cardinality(@keys::text[]) = 0 or j.key = any (@keys::text[]))
    and (
      pg_catalog.cardinality(@workers::text[]) = 0
      or j.locked_by = any (@workers::text[])
      or j.id = any (@held::bigint[]) and @holder::text = any (@workers::text[])
    )
    and (pg_catalog.cardinality(@flags::text[]) = 0 or j.flags ?& @flags::text[])
    and (@error_contains::text = '' or position(pg_catalog.lower(@error_contains::text) in pg_catalog.lower(j.last_error)) > 0)
    and (sqlc.narg(min_priority)::int is null or j.priority >= sqlc.narg(min_priority)::int)
    and (sqlc.narg(max_priority)::int is null or j.priority <= sqlc.narg(max_priority)::int)
    and (sqlc.narg(run_at_from)::timestamp with time zone is null or j.run_at >= sqlc.narg(run_at_from)::timestamp with time zone)
    and (sqlc.narg(run_at_before)::timestamp with time zone is null or j.run_at < sqlc.narg(run_at_before)::timestamp with time zone)
    and (sqlc.narg(created_at_from)::timestamp with time zone is null or j.created_at >= sqlc.narg(created_at_from)::timestamp with time zone)
    and (sqlc.narg(created_at_before)::timestamp with time zone is null or j.created_at < sqlc.narg(created_at_before)::timestamp with time zone)
    and (sqlc.narg(updated_at_from)::timestamp with time zone is null or j.updated_at >= sqlc.narg(updated_at_from)::timestamp with time zone)
    and (sqlc.narg(updated_at_before)::timestamp with time zone is null or j.updated_at < sqlc.narg(updated_at_before)::timestamp with time zone)
  order by j.id
  limit @page_size::int
) j
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
order by j.id;

-- name: AdminListNewest :many
-- As above.
select
  true as touched,
  j.id, (case when @with_payload::boolean then j.payload end)::json as payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error,
  j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags,
  coalesce(t.identifier, '')::text as task,
  coalesce(q.queue_name, '')::text as queue,
  (case
    when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
    when j.attempts >= j.max_attempts then 'failed'
    when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
    when j.run_at > pg_catalog.now() then 'scheduled'
    when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
    else 'blocked'
  end)::text as state,
  coalesce(q.locked_by, '')::text as queue_locked_by,
  q.locked_at as queue_locked_at,
  pg_catalog.now()::timestamp with time zone as read_at
from (
  select
    j.id, j.job_queue_id, j.task_id, j.payload as payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error,
    j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags
  from graphile_worker._private_jobs j
  left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
  where j.id < @before_id::bigint
    and (
      sqlc.narg(available)::boolean is null
      or (j.is_available and j.id <> all (@held::bigint[])) = sqlc.narg(available)::boolean
    )
    and (
      sqlc.narg(locked)::boolean is null
      or (j.locked_at is not null or j.id = any (@held::bigint[])) = sqlc.narg(locked)::boolean
    )
    and (pg_catalog.cardinality(@states::text[]) = 0 or (case
      when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
      when j.attempts >= j.max_attempts then 'failed'
      when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
      when j.run_at > pg_catalog.now() then 'scheduled'
      when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
      else 'blocked'
    end) = any (@states::text[]))
    and (pg_catalog.cardinality(@tasks::text[]) = 0 or j.task_id = any (array(
      select i.id from graphile_worker._private_tasks i where i.identifier = any (@tasks::text[])
    )))
    and (
      pg_catalog.cardinality(@queues::text[]) = 0
      or j.job_queue_id = any (array(
        select i.id from graphile_worker._private_job_queues i where i.queue_name = any (@queues::text[])
      ))
      or j.job_queue_id is null and '' = any (@queues::text[])
    )
    and (pg_catalog.cardinality(@keys::text[]) = 0 or j.key = any (@keys::text[]))
    and (
      pg_catalog.cardinality(@workers::text[]) = 0
      or j.locked_by = any (@workers::text[])
      or j.id = any (@held::bigint[]) and @holder::text = any (@workers::text[])
    )
    and (pg_catalog.cardinality(@flags::text[]) = 0 or j.flags ?& @flags::text[])
    and (@error_contains::text = '' or position(pg_catalog.lower(@error_contains::text) in pg_catalog.lower(j.last_error)) > 0)
    and (sqlc.narg(min_priority)::int is null or j.priority >= sqlc.narg(min_priority)::int)
    and (sqlc.narg(max_priority)::int is null or j.priority <= sqlc.narg(max_priority)::int)
    and (sqlc.narg(run_at_from)::timestamp with time zone is null or j.run_at >= sqlc.narg(run_at_from)::timestamp with time zone)
    and (sqlc.narg(run_at_before)::timestamp with time zone is null or j.run_at < sqlc.narg(run_at_before)::timestamp with time zone)
    and (sqlc.narg(created_at_from)::timestamp with time zone is null or j.created_at >= sqlc.narg(created_at_from)::timestamp with time zone)
    and (sqlc.narg(created_at_before)::timestamp with time zone is null or j.created_at < sqlc.narg(created_at_before)::timestamp with time zone)
    and (sqlc.narg(updated_at_from)::timestamp with time zone is null or j.updated_at >= sqlc.narg(updated_at_from)::timestamp with time zone)
    and (sqlc.narg(updated_at_before)::timestamp with time zone is null or j.updated_at < sqlc.narg(updated_at_before)::timestamp with time zone)
  order by j.id desc
  limit @page_size::int
) j
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
order by j.id desc;

-- name: AdminListClaimOrder :many
-- As above, in the order in which workers look at jobs: those that wait.
select
  true as touched,
  j.id, (case when @with_payload::boolean then j.payload end)::json as payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error,
  j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags,
  coalesce(t.identifier, '')::text as task,
  coalesce(q.queue_name, '')::text as queue,
  (case
    when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
    when j.attempts >= j.max_attempts then 'failed'
    when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
    when j.run_at > pg_catalog.now() then 'scheduled'
    when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
    else 'blocked'
  end)::text as state,
  coalesce(q.locked_by, '')::text as queue_locked_by,
  q.locked_at as queue_locked_at,
  pg_catalog.now()::timestamp with time zone as read_at
from (
  select
    j.id, j.job_queue_id, j.task_id, j.payload as payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error,
    j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags
  from graphile_worker._private_jobs j
  left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
  where j.is_available
    and j.id <> all (@held::bigint[])
    and (j.priority, j.run_at) >= (@after_priority::int, @after_run_at::timestamptz)
    and (j.priority, j.run_at, j.id) > (@after_priority::int, @after_run_at::timestamptz, @after_id::bigint)
    and (
      sqlc.narg(available)::boolean is null
      or (j.is_available and j.id <> all (@held::bigint[])) = sqlc.narg(available)::boolean
    )
    and (
      sqlc.narg(locked)::boolean is null
      or (j.locked_at is not null or j.id = any (@held::bigint[])) = sqlc.narg(locked)::boolean
    )
    and (pg_catalog.cardinality(@states::text[]) = 0 or (case
      when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
      when j.attempts >= j.max_attempts then 'failed'
      when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
      when j.run_at > pg_catalog.now() then 'scheduled'
      when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
      else 'blocked'
    end) = any (@states::text[]))
    and (pg_catalog.cardinality(@tasks::text[]) = 0 or j.task_id = any (array(
      select i.id from graphile_worker._private_tasks i where i.identifier = any (@tasks::text[])
    )))
    and (
      pg_catalog.cardinality(@queues::text[]) = 0
      or j.job_queue_id = any (array(
        select i.id from graphile_worker._private_job_queues i where i.queue_name = any (@queues::text[])
      ))
      or j.job_queue_id is null and '' = any (@queues::text[])
    )
    and (pg_catalog.cardinality(@keys::text[]) = 0 or j.key = any (@keys::text[]))
    and (
      pg_catalog.cardinality(@workers::text[]) = 0
      or j.locked_by = any (@workers::text[])
      or j.id = any (@held::bigint[]) and @holder::text = any (@workers::text[])
    )
    and (pg_catalog.cardinality(@flags::text[]) = 0 or j.flags ?& @flags::text[])
    and (@error_contains::text = '' or position(pg_catalog.lower(@error_contains::text) in pg_catalog.lower(j.last_error)) > 0)
    and (sqlc.narg(min_priority)::int is null or j.priority >= sqlc.narg(min_priority)::int)
    and (sqlc.narg(max_priority)::int is null or j.priority <= sqlc.narg(max_priority)::int)
    and (sqlc.narg(run_at_from)::timestamp with time zone is null or j.run_at >= sqlc.narg(run_at_from)::timestamp with time zone)
    and (sqlc.narg(run_at_before)::timestamp with time zone is null or j.run_at < sqlc.narg(run_at_before)::timestamp with time zone)
    and (sqlc.narg(created_at_from)::timestamp with time zone is null or j.created_at >= sqlc.narg(created_at_from)::timestamp with time zone)
    and (sqlc.narg(created_at_before)::timestamp with time zone is null or j.created_at < sqlc.narg(created_at_before)::timestamp with time zone)
    and (sqlc.narg(updated_at_from)::timestamp with time zone is null or j.updated_at >= sqlc.narg(updated_at_from)::timestamp with time zone)
    and (sqlc.narg(updated_at_before)::timestamp with time zone is null or j.updated_at < sqlc.narg(updated_at_before)::timestamp with time zone)
  order by j.priority, j.run_at, j.id
  limit @page_size::int
) j
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
order by j.priority, j.run_at, j.id;

-- name: AdminTaskCounts :many
-- One walk over all jobs. A ready job waits since its time came, or since it was
-- added if that was later.
select
  coalesce((select t.identifier from graphile_worker._private_tasks t where t.id = s.task_id), '')::text as task,
  coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'ready'), 0)::bigint as ready,
  coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'scheduled'), 0)::bigint as scheduled,
  coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'retrying'), 0)::bigint as retrying,
  coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'running'), 0)::bigint as running,
  coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'blocked'), 0)::bigint as blocked,
  coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'failed'), 0)::bigint as failed,
  coalesce(extract(epoch from pg_catalog.now()) - extract(epoch from pg_catalog.min(s.oldest) filter (where s.state = 'ready')), 0)::float8 as longest_wait
from (
  select j.task_id, (case
    when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
    when j.attempts >= j.max_attempts then 'failed'
    when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
    when j.run_at > pg_catalog.now() then 'scheduled'
    when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
    else 'blocked'
  end) as state,
    pg_catalog.count(*) as jobs, pg_catalog.min(greatest(j.run_at, j.created_at)) as oldest
  from graphile_worker._private_jobs j
  left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
  group by 1, 2
) s
group by s.task_id
order by 1;

-- name: AdminBusiestQueues :many
-- Those with the most jobs; jobs without a queue are none of them.
select
  coalesce((select q.queue_name from graphile_worker._private_job_queues q where q.id = c.job_queue_id), '')::text as queue,
  c.ready, c.scheduled, c.retrying, c.running, c.blocked, c.failed, c.longest_wait
from (
  select s.job_queue_id,
    coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'ready'), 0)::bigint as ready,
    coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'scheduled'), 0)::bigint as scheduled,
    coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'retrying'), 0)::bigint as retrying,
    coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'running'), 0)::bigint as running,
    coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'blocked'), 0)::bigint as blocked,
    coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'failed'), 0)::bigint as failed,
    coalesce(extract(epoch from pg_catalog.now()) - extract(epoch from pg_catalog.min(s.oldest) filter (where s.state = 'ready')), 0)::float8 as longest_wait
  from (
    select j.job_queue_id, (case
      when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
      when j.attempts >= j.max_attempts then 'failed'
      when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
      when j.run_at > pg_catalog.now() then 'scheduled'
      when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
      else 'blocked'
    end) as state,
      pg_catalog.count(*) as jobs, pg_catalog.min(greatest(j.run_at, j.created_at)) as oldest
    from graphile_worker._private_jobs j
    left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
    where j.job_queue_id is not null
    group by 1, 2
  ) s
  group by s.job_queue_id
  order by pg_catalog.sum(s.jobs) desc, s.job_queue_id
  limit @most::int
) c
order by c.ready + c.scheduled + c.retrying + c.running + c.blocked + c.failed desc, c.job_queue_id;

-- name: AdminQueues :many
-- A page of queues by name, and then one walk over the jobs of just these.
with held as materialized (
  select pg_catalog.unnest(@held_queues::text[]) as queue_name, pg_catalog.unnest(@held_queue_ats::timestamp with time zone[]) as locked_at
), page as materialized (
  select q.id, q.queue_name, coalesce(q.locked_at, h.locked_at) as locked_at,
    case when q.locked_at is null and h.locked_at is not null then @holder::text else q.locked_by end as locked_by
  from graphile_worker._private_job_queues q
  left join held h on h.queue_name = q.queue_name
  where (not @paged::boolean or q.queue_name > @after_name::text)
    and (pg_catalog.cardinality(@names::text[]) = 0 or q.queue_name = any (@names::text[]))
    and (not @locked_only::boolean or coalesce(q.locked_at, h.locked_at) is not null)
  order by q.queue_name
  limit @page_size::int
), counts as (
  select s.job_queue_id,
    coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'ready'), 0)::bigint as ready,
    coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'scheduled'), 0)::bigint as scheduled,
    coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'retrying'), 0)::bigint as retrying,
    coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'running'), 0)::bigint as running,
    coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'blocked'), 0)::bigint as blocked,
    coalesce(pg_catalog.sum(s.jobs) filter (where s.state = 'failed'), 0)::bigint as failed,
    coalesce(extract(epoch from pg_catalog.now()) - extract(epoch from pg_catalog.min(s.oldest) filter (where s.state = 'ready')), 0)::float8 as longest_wait
  from (
    select j.job_queue_id, (case
      when j.locked_at is not null or j.id = any (@held::bigint[]) then 'running'
      when j.attempts >= j.max_attempts then 'failed'
      when j.run_at > pg_catalog.now() and j.attempts > 0 then 'retrying'
      when j.run_at > pg_catalog.now() then 'scheduled'
      when j.job_queue_id is null or q.is_available and q.queue_name <> all (@held_queues::text[]) then 'ready'
      else 'blocked'
    end) as state,
      pg_catalog.count(*) as jobs, pg_catalog.min(greatest(j.run_at, j.created_at)) as oldest
    from graphile_worker._private_jobs j
    left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
    where j.job_queue_id = any (array(select p.id from page p))
    group by 1, 2
  ) s
  group by s.job_queue_id
)
select
  p.queue_name::text as queue,
  coalesce(p.locked_by, '')::text as locked_by,
  p.locked_at,
  coalesce(extract(epoch from pg_catalog.now()) - extract(epoch from p.locked_at), 0)::float8 as locked_for,
  coalesce(c.ready, 0)::bigint as ready,
  coalesce(c.scheduled, 0)::bigint as scheduled,
  coalesce(c.retrying, 0)::bigint as retrying,
  coalesce(c.running, 0)::bigint as running,
  coalesce(c.blocked, 0)::bigint as blocked,
  coalesce(c.failed, 0)::bigint as failed,
  coalesce(c.longest_wait, 0)::float8 as longest_wait
from page p
left join counts c on c.job_queue_id = p.id
order by p.queue_name;

-- name: AdminRegisteredWorkers :many
-- Only where revision 20 or its like is installed.
select
  w.id, w.started_at, w.last_heartbeat_at,
  (extract(epoch from pg_catalog.now()) - extract(epoch from w.last_heartbeat_at))::float8 as silent_for,
  coalesce(w.metadata, '{}')::text as metadata
from graphile_worker._private_workers w
order by w.id;

-- name: AdminLockHolders :many
-- Who holds locks, of any runtime, and what the asking process's worker holds
-- without.
select
  coalesce(h.locked_by, '')::text as worker,
  (pg_catalog.count(*) filter (where h.job))::bigint as jobs,
  (pg_catalog.count(*) filter (where not h.job))::bigint as queues,
  (extract(epoch from pg_catalog.now()) - extract(epoch from pg_catalog.min(h.locked_at)))::float8 as oldest
from (
  select j.locked_by, j.locked_at, true as job from graphile_worker._private_jobs j where j.locked_at is not null
  union all
  select q.locked_by, q.locked_at, false from graphile_worker._private_job_queues q where q.locked_at is not null
  union all
  select @holder::text, h.locked_at, true
  from (select pg_catalog.unnest(@held::bigint[]) as id, pg_catalog.unnest(@held_ats::timestamp with time zone[]) as locked_at) h
  join graphile_worker._private_jobs j on j.id = h.id and j.locked_at is null
  union all
  select @holder::text, h.locked_at, false
  from (select pg_catalog.unnest(@held_queues::text[]) as queue_name, pg_catalog.unnest(@held_queue_ats::timestamp with time zone[]) as locked_at) h
  join graphile_worker._private_job_queues q on q.queue_name = h.queue_name and q.locked_at is null
) h
group by 1
order by 1;

-- name: AdminLockedJobs :many
select j.id, j.locked_by::text as worker, coalesce(t.identifier, '')::text as task, j.attempts, j.max_attempts,
  (extract(epoch from pg_catalog.now()) - extract(epoch from j.locked_at))::float8 as locked_for
from graphile_worker._private_jobs j
left join graphile_worker._private_tasks t on t.id = j.task_id
where j.locked_by = any (@workers::text[])
order by j.locked_by, j.id;

-- name: AdminLockedQueues :many
select q.queue_name, q.locked_by::text as worker
from graphile_worker._private_job_queues q
where q.locked_by = any (@workers::text[])
order by q.locked_by, q.queue_name;

-- name: AdminForceUnlock :exec
-- Tells workers, too, since what was locked may run now.
select graphile_worker.force_unlock_workers(@workers::text[]),
  pg_catalog.pg_notify('jobs:insert', pg_catalog.json_build_object('r', pg_catalog.random(), 'count', @jobs::int)::text);

-- name: AdminFailedJobs :one
select pg_catalog.count(*)::bigint as jobs
from graphile_worker._private_jobs j
where j.attempts >= j.max_attempts and j.locked_at is null;

-- name: AdminDeleteFailedJobs :one
-- Some of them, in the order of their ids, so that no statement takes long.
-- Jobs whose rows another session has locked are left out.
with victims as (
  select j.id
  from graphile_worker._private_jobs j
  where j.id > @after_id::bigint and j.attempts >= j.max_attempts and j.locked_at is null
  order by j.id
  limit @most::int
  for update skip locked
), deleted as (
  delete from graphile_worker._private_jobs j using victims v where j.id = v.id returning j.id
)
select pg_catalog.count(*)::bigint as jobs, coalesce(pg_catalog.max(d.id), 0)::bigint as last_id from deleted d;

-- name: AdminUnusedTasks :many
select t.id, t.identifier
from graphile_worker._private_tasks t
where not (t.identifier = any (@keep::text[]))
  and not exists (select from graphile_worker._private_jobs j where j.task_id = t.id)
order by t.identifier;

-- name: AdminUnusedQueues :many
select q.id, q.queue_name
from graphile_worker._private_job_queues q
where q.locked_at is null
  and not exists (select from graphile_worker._private_jobs j where j.job_queue_id = q.id)
order by q.queue_name;

-- name: AdminLockTimeout :exec
select pg_catalog.set_config('lock_timeout', @timeout::text, true);

-- name: AdminLockTasks :exec
-- Every way of adding jobs writes this table, or would, in the transaction that
-- adds them: so none is under way while this lock is held.
lock table graphile_worker._private_tasks in share row exclusive mode;

-- name: AdminLockQueues :exec
lock table graphile_worker._private_job_queues in share row exclusive mode;

-- name: AdminDeleteTasks :many
delete from graphile_worker._private_tasks t
where t.id = any (@ids::int[])
  and not exists (select from graphile_worker._private_jobs j where j.task_id = t.id)
returning t.identifier;

-- name: AdminDeleteQueues :many
delete from graphile_worker._private_job_queues q
where q.id = any (@ids::int[])
  and q.locked_at is null
  and not exists (select from graphile_worker._private_jobs j where j.job_queue_id = q.id)
returning q.queue_name;
