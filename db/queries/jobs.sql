-- Adding and removing, as the client does it.

-- name: AddJob :one
-- A job of a named queue that gives no time gets the present one and not that of
-- its transaction, which other jobs share: so a queue's jobs have an order.
select
  j.id, j.payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at,
  j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags, j.task_id, j.job_queue_id,
  t.identifier as task, q.queue_name as queue
from graphile_worker.add_job(
  identifier => @task::text,
  payload => cast(@payload::text as json),
  queue_name => sqlc.narg(queue)::text,
  run_at => coalesce(
    sqlc.narg(run_at)::timestamp with time zone, case when sqlc.narg(queue)::text is not null then pg_catalog.clock_timestamp() end
  ),
  max_attempts => sqlc.narg(max_attempts)::int,
  job_key => sqlc.narg(key)::text,
  priority => @priority::int,
  flags => @flags::text[],
  job_key_mode => @key_mode::text
) j
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
where j.id is not null;

-- name: AddJobs :many
-- The arrays are the specs' fields in turn; '' and 0 stand for "not given", as
-- no spec can mean them. Flags come as a JSON array, since specs have different
-- numbers of them. Jobs of a named queue that give no time get different ones, as
-- AddJob's do: a microsecond a job is far less than storing it takes.
select
  j.id, j.payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at,
  j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags, j.task_id, j.job_queue_id,
  t.identifier as task, q.queue_name as queue
from graphile_worker.add_jobs(
  specs => array(
    select row(
      s.task,
      s.payload::json,
      nullif(s.queue, ''),
      coalesce(
        s.run_at, case when s.queue <> '' then pg_catalog.clock_timestamp() + s.place::float8 * interval '1 microsecond' end
      ),
      nullif(s.max_attempts, 0)::smallint,
      nullif(s.key, ''),
      s.priority::smallint,
      case when s.flags <> '' then array(select pg_catalog.json_array_elements_text(s.flags::json)) end
    )::graphile_worker.job_spec
    from (
      select
        pg_catalog.unnest(@tasks::text[]) as task,
        pg_catalog.unnest(@payloads::text[]) as payload,
        pg_catalog.unnest(@queues::text[]) as queue,
        pg_catalog.unnest(@run_ats::timestamptz[]) as run_at,
        pg_catalog.unnest(@max_attempts::int[]) as max_attempts,
        pg_catalog.unnest(@keys::text[]) as key,
        pg_catalog.unnest(@priorities::int[]) as priority,
        pg_catalog.unnest(@flags::text[]) as flags,
        pg_catalog.generate_subscripts(@tasks::text[], 1) as place
    ) s
    order by s.place
  ),
  job_key_preserve_run_at => @preserve_run_at::boolean
) j
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id;

-- name: RemoveJob :one
-- The schema's function may be another runtime's, or of before it locked the row
-- first: then it keeps a job whose run fails at this moment, without its key and
-- unlocked, though nothing runs. So the row is locked here, and a job that was kept
-- like that is deleted.
with holding as materialized (
  select p.id from graphile_worker._private_jobs p where p.key = @key::text for update
)
select
  j.id, j.payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at,
  j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags, j.task_id, j.job_queue_id,
  t.identifier as task, q.queue_name as queue
from (select pg_catalog.count(*) as rows from holding) h
cross join lateral graphile_worker.remove_job(case when h.rows >= 0 then @key::text end) j
left join lateral graphile_worker.complete_jobs(
  case when j.key is null and j.locked_at is null then array[j.id] end
) c on true
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
where j.id is not null;

-- name: TaskNames :many
select t.id, t.identifier from graphile_worker._private_tasks t where t.id = any (@ids::int[]);

-- name: QueueNames :many
select q.id, q.queue_name from graphile_worker._private_job_queues q where q.id = any (@ids::int[]);
