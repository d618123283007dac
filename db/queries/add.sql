-- What the client adds outside a transaction of its caller: the effect of add_job
-- and add_jobs in one statement each, which notifies only if it is told to (see
-- internal/announce).
--
-- Each statement names the tables of tasks and queues as targets of an insert.
-- That locks them against a cleanup until the commit, before the statement's
-- snapshot is taken, whether or not anything is inserted there: as in the
-- functions.
--
-- A row that another session has inserted since the snapshot can be neither read
-- nor inserted. Then nothing is added, no row comes back, and the statement is to
-- be run again. Tasks are inserted before queues, and both in the order of their
-- names, so that adders wait for each other in one direction only; the counts that
-- are compared with 0 say nothing but what has to be done first.

-- name: AddPlain :one
-- A job without a key.
with new_task as (
  insert into graphile_worker._private_tasks (identifier)
  select @task::text
  where not exists (select from graphile_worker._private_tasks t where t.identifier = @task::text)
  on conflict do nothing
  returning id
), new_queue as (
  insert into graphile_worker._private_job_queues (queue_name)
  select sqlc.narg(queue)::text
  where (select pg_catalog.count(*) from new_task) >= 0
    and sqlc.narg(queue)::text is not null
    and not exists (
      select from graphile_worker._private_job_queues q where q.queue_name = sqlc.narg(queue)::text
    )
  on conflict do nothing
  returning id
), found as (
  select
    coalesce(
      (select t.id from graphile_worker._private_tasks t where t.identifier = @task::text),
      (select n.id from new_task n)
    ) as task_id,
    coalesce(
      (select q.id from graphile_worker._private_job_queues q where q.queue_name = sqlc.narg(queue)::text),
      (select n.id from new_queue n)
    ) as job_queue_id
), added as (
  insert into graphile_worker._private_jobs
    (task_id, job_queue_id, payload, run_at, max_attempts, priority, flags)
  select
    f.task_id,
    f.job_queue_id,
    cast(@payload::text as json),
    coalesce(
      sqlc.narg(run_at)::timestamp with time zone, case when sqlc.narg(queue)::text is not null then pg_catalog.clock_timestamp() else pg_catalog.now() end
    ),
    coalesce(sqlc.narg(max_attempts)::int, 25),
    @priority::int,
    sqlc.narg(flags)::text::jsonb
  from found f
  where f.task_id is not null and (sqlc.narg(queue)::text is null or f.job_queue_id is not null)
  returning *
)
select
  j.id, j.payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at,
  j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags, j.task_id, j.job_queue_id,
  f.task_id::int as found_task_id, coalesce(f.job_queue_id, 0)::int as found_queue_id,
  (case when @announce::boolean
    then pg_catalog.pg_notify('jobs:insert', '{"r":' || pg_catalog.random()::text || ',"count":1}') end is not null)::boolean as announced
from added j, found f;

-- name: AddKeyed :one
-- A job with a key, in the modes replace and preserve_run_at. The lock on the key
-- comes first, as in the functions. A job that has the key and can no longer be
-- changed is left alone, and no row comes back: the function retires it.
with key_lock as materialized (
  select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext(@key::text))
), new_task as (
  insert into graphile_worker._private_tasks (identifier)
  select @task::text
  where (select pg_catalog.count(*) from key_lock) > 0
    and not exists (select from graphile_worker._private_tasks t where t.identifier = @task::text)
  on conflict do nothing
  returning id
), new_queue as (
  insert into graphile_worker._private_job_queues (queue_name)
  select sqlc.narg(queue)::text
  where (select pg_catalog.count(*) from new_task) >= 0
    and sqlc.narg(queue)::text is not null
    and not exists (
      select from graphile_worker._private_job_queues q where q.queue_name = sqlc.narg(queue)::text
    )
  on conflict do nothing
  returning id
), found as (
  select
    coalesce(
      (select t.id from graphile_worker._private_tasks t where t.identifier = @task::text),
      (select n.id from new_task n)
    ) as task_id,
    coalesce(
      (select q.id from graphile_worker._private_job_queues q where q.queue_name = sqlc.narg(queue)::text),
      (select n.id from new_queue n)
    ) as job_queue_id
), added as (
  insert into graphile_worker._private_jobs as j
    (task_id, job_queue_id, payload, run_at, max_attempts, key, priority, flags)
  select
    f.task_id,
    f.job_queue_id,
    cast(@payload::text as json),
    coalesce(
      sqlc.narg(run_at)::timestamp with time zone, case when sqlc.narg(queue)::text is not null then pg_catalog.clock_timestamp() else pg_catalog.now() end
    ),
    coalesce(sqlc.narg(max_attempts)::int, 25),
    @key::text,
    @priority::int,
    sqlc.narg(flags)::text::jsonb
  from found f
  where (select pg_catalog.count(*) from key_lock) > 0
    and f.task_id is not null and (sqlc.narg(queue)::text is null or f.job_queue_id is not null)
  on conflict (key) do update set
    task_id = excluded.task_id,
    job_queue_id = excluded.job_queue_id,
    payload = case
      when pg_catalog.json_typeof(j.payload) = 'array' and pg_catalog.json_typeof(excluded.payload) = 'array' then (
        select coalesce(pg_catalog.json_agg(e.value order by e.side, e.place), '[]')
        from (
          select 1 as side, o.place, o.value
          from pg_catalog.json_array_elements(j.payload) with ordinality o (value, place)
          union all
          select 2, n.place, n.value
          from pg_catalog.json_array_elements(excluded.payload) with ordinality n (value, place)
        ) e
      )
      else excluded.payload
    end,
    run_at = case
      when @preserve_run_at::boolean and j.attempts = 0 then j.run_at
      else excluded.run_at
    end,
    max_attempts = excluded.max_attempts,
    priority = excluded.priority,
    flags = excluded.flags,
    revision = j.revision + 1,
    attempts = 0,
    last_error = null,
    updated_at = pg_catalog.now()
  where j.is_available
  returning *
)
select
  j.id, j.payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at,
  j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags, j.task_id, j.job_queue_id,
  f.task_id::int as found_task_id, coalesce(f.job_queue_id, 0)::int as found_queue_id,
  (case when @announce::boolean
    then pg_catalog.pg_notify('jobs:insert', '{"r":' || pg_catalog.random()::text || ',"count":1}') end is not null)::boolean as announced
from added j, found f;

-- name: AddDeduped :one
-- A job with a key, in the mode unsafe_dedupe. Nobody hears of one that was there.
with key_lock as materialized (
  select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext(@key::text))
), new_task as (
  insert into graphile_worker._private_tasks (identifier)
  select @task::text
  where (select pg_catalog.count(*) from key_lock) > 0
    and not exists (select from graphile_worker._private_tasks t where t.identifier = @task::text)
  on conflict do nothing
  returning id
), new_queue as (
  insert into graphile_worker._private_job_queues (queue_name)
  select sqlc.narg(queue)::text
  where (select pg_catalog.count(*) from new_task) >= 0
    and sqlc.narg(queue)::text is not null
    and not exists (
      select from graphile_worker._private_job_queues q where q.queue_name = sqlc.narg(queue)::text
    )
  on conflict do nothing
  returning id
), found as (
  select
    coalesce(
      (select t.id from graphile_worker._private_tasks t where t.identifier = @task::text),
      (select n.id from new_task n)
    ) as task_id,
    coalesce(
      (select q.id from graphile_worker._private_job_queues q where q.queue_name = sqlc.narg(queue)::text),
      (select n.id from new_queue n)
    ) as job_queue_id
), added as (
  insert into graphile_worker._private_jobs as j
    (task_id, job_queue_id, payload, run_at, max_attempts, key, priority, flags)
  select
    f.task_id,
    f.job_queue_id,
    cast(@payload::text as json),
    coalesce(
      sqlc.narg(run_at)::timestamp with time zone, case when sqlc.narg(queue)::text is not null then pg_catalog.clock_timestamp() else pg_catalog.now() end
    ),
    coalesce(sqlc.narg(max_attempts)::int, 25),
    @key::text,
    @priority::int,
    sqlc.narg(flags)::text::jsonb
  from found f
  where (select pg_catalog.count(*) from key_lock) > 0
    and f.task_id is not null and (sqlc.narg(queue)::text is null or f.job_queue_id is not null)
  on conflict (key) do update set revision = j.revision + 1, updated_at = pg_catalog.now()
  returning *
)
select
  j.id, j.payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at,
  j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags, j.task_id, j.job_queue_id,
  f.task_id::int as found_task_id, coalesce(f.job_queue_id, 0)::int as found_queue_id,
  (case when @announce::boolean and j.revision = 0
    then pg_catalog.pg_notify('jobs:insert', '{"r":' || pg_catalog.random()::text || ',"count":1}') end is not null)::boolean as announced
from added j, found f;

-- name: AddMany :many
-- Any number of jobs without keys, all or none. The arrays are the specs' fields in
-- turn; an empty text and 0 stand for "not given". Flags come as the object that is stored.
-- Task and queue are the numbers that their names have in the arrays of names, from
-- 1; the queue 0 is none.
with new_task as (
  insert into graphile_worker._private_tasks (identifier)
  select n.name
  from pg_catalog.unnest(@task_names::text[]) n (name)
  where not exists (select from graphile_worker._private_tasks t where t.identifier = n.name)
  order by n.name
  on conflict do nothing
  returning id, identifier
), new_queue as (
  insert into graphile_worker._private_job_queues (queue_name)
  select n.name
  from pg_catalog.unnest(@queue_names::text[]) n (name)
  where (select pg_catalog.count(*) from new_task) >= 0
    and not exists (select from graphile_worker._private_job_queues q where q.queue_name = n.name)
  order by n.name
  on conflict do nothing
  returning id, queue_name
), found as materialized (
  select
    array(
      select coalesce(t.id, w.id)
      from pg_catalog.unnest(@task_names::text[]) with ordinality n (name, place)
      left join graphile_worker._private_tasks t on t.identifier = n.name
      left join new_task w on w.identifier = n.name
      order by n.place
    ) as task_ids,
    array(
      select coalesce(q.id, w.id)
      from pg_catalog.unnest(@queue_names::text[]) with ordinality n (name, place)
      left join graphile_worker._private_job_queues q on q.queue_name = n.name
      left join new_queue w on w.queue_name = n.name
      order by n.place
    ) as queue_ids
), added as (
  insert into graphile_worker._private_jobs
    (task_id, job_queue_id, payload, run_at, max_attempts, priority, flags)
  select
    f.task_ids[s.task],
    f.queue_ids[s.queue],
    cast(s.payload as json),
    coalesce(
      s.run_at, case when s.queue <> 0 then pg_catalog.clock_timestamp() + s.place::float8 * interval '1 microsecond' else pg_catalog.now() end
    ),
    case when s.max_attempts = 0 then 25 else s.max_attempts end,
    s.priority,
    cast(nullif(s.flags, '') as jsonb)
  from found f, (
    select
      pg_catalog.unnest(@tasks::int[]) as task,
      pg_catalog.unnest(@payloads::text[]) as payload,
      pg_catalog.unnest(@queues::int[]) as queue,
      pg_catalog.unnest(@run_ats::timestamptz[]) as run_at,
      pg_catalog.unnest(@max_attempts::int[]) as max_attempts,
      pg_catalog.unnest(@priorities::int[]) as priority,
      pg_catalog.unnest(@flags::text[]) as flags,
      pg_catalog.generate_subscripts(@tasks::int[], 1) as place
  ) s
  where pg_catalog.array_position(f.task_ids, null) is null and pg_catalog.array_position(f.queue_ids, null) is null
  order by s.place
  returning *
), announced as (
  select pg_catalog.pg_notify('jobs:insert', '{"r":' || pg_catalog.random()::text || ',"count":' || pg_catalog.count(*)::text || '}')
  from added
  where @announce::boolean
  having pg_catalog.count(*) > 0
)
select
  j.id, j.payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at,
  j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags, j.task_id, j.job_queue_id,
  t.identifier as task, q.queue_name as queue
from added j
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
left join announced a on true
order by j.id;

-- name: AddManyKeyed :many
-- AddMany for jobs of which many have keys, in the modes replace and preserve_run_at:
-- with a constant number of locks, even if the functions in the database are those of
-- another runtime, which lock each key. Like our own function, it waits for sessions that
-- have locked one of the keys, and inserts in the order of the keys, so that the index
-- makes later callers wait. Specs whose keys belong to jobs that can no longer be changed
-- are left to the function, which retires those. An empty key means no key.
with key_wait as materialized (
  -- A producer's policy ("worker grant") lets it see the jobs with these keys.
  select
    pg_catalog.set_config('gworker.added_keys', pg_catalog.array_to_json(pg_catalog.array_agg(w.key))::text, true) as added_keys,
    pg_catalog.count(
      -- One expression, within which nothing interrupts: no lock can be left behind.
      pg_catalog.pg_advisory_unlock(
        pg_catalog.hashtext(w.key)::bigint + pg_catalog.length(pg_catalog.pg_advisory_lock(pg_catalog.hashtext(w.key)::bigint)::text)::bigint
      )
    ) as keys
  from (select k.key from pg_catalog.unnest(@keys::text[]) k (key) where k.key <> '' order by k.key) w
), new_task as (
  insert into graphile_worker._private_tasks (identifier)
  select n.name
  from pg_catalog.unnest(@task_names::text[]) n (name)
  where (select w.keys from key_wait w) > 0
    and not exists (select from graphile_worker._private_tasks t where t.identifier = n.name)
  order by n.name
  on conflict do nothing
  returning id, identifier
), new_queue as (
  insert into graphile_worker._private_job_queues (queue_name)
  select n.name
  from pg_catalog.unnest(@queue_names::text[]) n (name)
  where (select pg_catalog.count(*) from new_task) >= 0
    and not exists (select from graphile_worker._private_job_queues q where q.queue_name = n.name)
  order by n.name
  on conflict do nothing
  returning id, queue_name
), found as materialized (
  select
    array(
      select coalesce(t.id, w.id)
      from pg_catalog.unnest(@task_names::text[]) with ordinality n (name, place)
      left join graphile_worker._private_tasks t on t.identifier = n.name
      left join new_task w on w.identifier = n.name
      order by n.place
    ) as task_ids,
    array(
      select coalesce(q.id, w.id)
      from pg_catalog.unnest(@queue_names::text[]) with ordinality n (name, place)
      left join graphile_worker._private_job_queues q on q.queue_name = n.name
      left join new_queue w on w.queue_name = n.name
      order by n.place
    ) as queue_ids
), given as materialized (
  select
    pg_catalog.unnest(@tasks::int[]) as task,
    pg_catalog.unnest(@payloads::text[]) as payload,
    pg_catalog.unnest(@queues::int[]) as queue,
    pg_catalog.unnest(@run_ats::timestamptz[]) as run_at,
    pg_catalog.unnest(@max_attempts::int[]) as max_attempts,
    pg_catalog.unnest(@priorities::int[]) as priority,
    pg_catalog.unnest(@flags::text[]) as flags,
    nullif(pg_catalog.unnest(@keys::text[]), '') as key,
    pg_catalog.generate_subscripts(@tasks::int[], 1) as place
), added as (
  insert into graphile_worker._private_jobs as j
    (task_id, job_queue_id, payload, run_at, max_attempts, priority, flags, key)
  select
    f.task_ids[s.task],
    f.queue_ids[s.queue],
    cast(s.payload as json),
    coalesce(
      s.run_at, case when s.queue <> 0 then pg_catalog.clock_timestamp() + s.place::float8 * interval '1 microsecond' else pg_catalog.now() end
    ),
    case when s.max_attempts = 0 then 25 else s.max_attempts end,
    s.priority,
    cast(nullif(s.flags, '') as jsonb),
    s.key
  from found f, given s
  where pg_catalog.array_position(f.task_ids, null) is null and pg_catalog.array_position(f.queue_ids, null) is null
  order by s.key, s.place
  on conflict (key) do update set
    task_id = excluded.task_id,
    job_queue_id = excluded.job_queue_id,
    payload = case
      when pg_catalog.json_typeof(j.payload) = 'array' and pg_catalog.json_typeof(excluded.payload) = 'array' then (
        select coalesce(pg_catalog.json_agg(e.value order by e.side, e.place), '[]')
        from (
          select 1 as side, o.place, o.value
          from pg_catalog.json_array_elements(j.payload) with ordinality o (value, place)
          union all
          select 2, n.place, n.value
          from pg_catalog.json_array_elements(excluded.payload) with ordinality n (value, place)
        ) e
      )
      else excluded.payload
    end,
    run_at = case
      when @preserve_run_at::boolean and j.attempts = 0 then j.run_at
      else excluded.run_at
    end,
    max_attempts = excluded.max_attempts,
    priority = excluded.priority,
    flags = excluded.flags,
    revision = j.revision + 1,
    attempts = 0,
    last_error = null,
    updated_at = pg_catalog.now()
  where j.is_available
  returning *
), announced as (
  select pg_catalog.pg_notify('jobs:insert', '{"r":' || pg_catalog.random()::text || ',"count":' || pg_catalog.count(*)::text || '}')
  from added
  having pg_catalog.count(*) > 0
), left_over as materialized (
  select array(
    select row(
      (@task_names::text[])[s.task],
      s.payload::json,
      (@queue_names::text[])[nullif(s.queue, 0)],
      coalesce(s.run_at, case when s.queue <> 0 then pg_catalog.clock_timestamp() + s.place::float8 * interval '1 microsecond' end),
      nullif(s.max_attempts, 0)::smallint,
      s.key,
      s.priority::smallint,
      case when s.flags <> '' then array(select pg_catalog.jsonb_object_keys(s.flags::jsonb)) end
    )::graphile_worker.job_spec
    from given s
    where s.key not in (select a.key from added a where a.key is not null) -- hashed, however many
    order by s.key
  ) as specs
  from found f
  where (select pg_catalog.count(*) from added) < pg_catalog.cardinality(@tasks::int[])
    and pg_catalog.array_position(f.task_ids, null) is null and pg_catalog.array_position(f.queue_ids, null) is null
), by_function as (
  select r.*
  from (select l.specs from left_over l where pg_catalog.cardinality(l.specs) > 0) l
  cross join lateral graphile_worker.add_jobs(specs => l.specs, job_key_preserve_run_at => @preserve_run_at::boolean) r
)
select
  j.id, j.payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at,
  j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags, j.task_id, j.job_queue_id,
  t.identifier as task, q.queue_name as queue
from (select a.* from added a union all select b.* from by_function b) j
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
left join announced a on true
order by j.id;

-- name: Announce :exec
-- Tells workers of jobs that others' statements have committed. Its own commit
-- holds a lock over the whole server, and does not wait for the disk meanwhile:
-- a notification does not outlive a crash in any case.
select
  pg_catalog.set_config('synchronous_commit', 'off', true),
  pg_catalog.pg_notify('jobs:insert', '{"r":' || pg_catalog.random()::text || ',"count":' || cast(@jobs::bigint as text) || '}');
