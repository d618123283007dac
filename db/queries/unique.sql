-- Adding jobs that are unique for a time (db/history/000002_unique.sql).

-- name: AddUnique :one
-- One job. Its row is read by a function that begins after the add: it sees what this
-- statement does not. There is none if the job that existed is gone, or is hidden from this
-- role.
select
  u.existed::boolean as existed, u.job_id::bigint as job_id, u.state::text as state, u.task::text as unique_task,
  u.added_at::timestamptz as added_at, u.expires_at::timestamptz as expires_at,
  coalesce(j.id, 0)::bigint as id, j.payload, coalesce(j.priority, 0)::smallint as priority, j.run_at, coalesce(j.attempts, 0)::smallint as attempts,
  coalesce(j.max_attempts, 0)::smallint as max_attempts, j.last_error, j.created_at,
  j.updated_at, j.key, j.locked_at, j.locked_by, coalesce(j.revision, 0)::int as revision, j.flags, coalesce(j.task_id, 0)::int as task_id, j.job_queue_id,
  t.identifier as task, q.queue_name as queue
from graphile_worker.gworker_add_unique(
  identifier => @task::text,
  unique_for => pg_catalog.make_interval(secs => @unique_for::float8),
  payload => cast(@payload::text as json),
  unique_key => @unique_key::text,
  unique_scope => @unique_scope::text,
  queue_name => sqlc.narg(queue)::text,
  run_at => coalesce(
    sqlc.narg(run_at)::timestamp with time zone, case when sqlc.narg(queue)::text is not null then pg_catalog.clock_timestamp() end
  ),
  max_attempts => sqlc.narg(max_attempts)::int,
  job_key => sqlc.narg(key)::text,
  priority => @priority::int,
  flags => @flags::text[],
  job_key_mode => @key_mode::text
) as u (existed, job_id, state, task, added_at, expires_at)
left join lateral graphile_worker._gworker_unique_job(u.job_id) j on true
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id;

-- name: AddUniqueJobs :many
-- Many jobs, of which some are unique: the arrays are those of AddJobs, and seconds of 0 are
-- those of a job that is added in any case. Keys are taken first, then those jobs are added
-- by one call whose keys were free, and then the keys get their jobs. Each step has the
-- answer of the one before. A spec whose job key is busy has no row.
with given as materialized (
  select s.*,
    case when s.seconds > 0::float8 then graphile_worker._gworker_unique_key(
      s.task, pg_catalog.make_interval(secs => s.seconds), s.payload::json, s.unique_key, s.unique_scope
    ) end as own_key,
    case when s.unique_scope = 'all'::text then '' else s.task end as own_task
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
      pg_catalog.unnest(@unique_fors::float8[]) as seconds,
      pg_catalog.unnest(@unique_keys::text[]) as unique_key,
      pg_catalog.unnest(@unique_scopes::text[]) as unique_scope,
      pg_catalog.generate_subscripts(@tasks::text[], 1) as place
  ) s
), taken as materialized (
  select u.*
  from (
    select
      pg_catalog.array_agg(g.own_key order by g.place) as keys,
      pg_catalog.array_agg(g.own_task order by g.place) as tasks,
      pg_catalog.array_agg(g.task order by g.place) as identifiers,
      pg_catalog.array_agg(pg_catalog.make_interval(secs => g.seconds) order by g.place) as spans
    from given g
  ) a
  cross join lateral graphile_worker._gworker_unique_take(a.keys, a.tasks, a.identifiers, a.spans)
    as u (place, got, job_id, state, task, added_at, expires_at)
), wanted as materialized (
  select g.place, g.key, g.own_key, g.own_task,
    case when g.key = '' then pg_catalog.row_number() over (partition by g.key = '' order by g.place) else 0 end as turn,
    row(
      g.task,
      g.payload::json,
      nullif(g.queue, ''),
      coalesce(
        g.run_at, case when g.queue <> '' then pg_catalog.clock_timestamp() + g.place::float8 * interval '1 microsecond' end
      ),
      nullif(g.max_attempts, 0)::smallint,
      nullif(g.key, ''),
      g.priority::smallint,
      case when g.flags <> '' then array(select pg_catalog.json_array_elements_text(g.flags::json)) end
    )::graphile_worker.job_spec as spec
  from given g
  left join taken u on u.place = g.place
  where u.got is distinct from false
), added as materialized (
  -- Jobs without a key come back in the order of their specs.
  select a.id, coalesce(a.key, '') as key,
    case when a.key is null then pg_catalog.row_number() over (partition by a.key is null order by a.turn) else 0 end as turn
  from (
    select m.id, m.key, pg_catalog.row_number() over () as turn
    from graphile_worker.add_jobs(
      specs => array(select w.spec from wanted w order by w.place),
      job_key_preserve_run_at => @preserve_run_at::boolean
    ) m
  ) a
), matched as materialized (
  select w.place, w.own_key, w.own_task, a.id
  from wanted w
  join added a on a.key = w.key and a.turn = w.turn
), settled as materialized (
  select pg_catalog.count(graphile_worker._gworker_unique_settle(m.keys, m.tasks, m.ids)) as calls
  from (
    select
      pg_catalog.array_agg(m.own_key) as keys, pg_catalog.array_agg(m.own_task) as tasks, pg_catalog.array_agg(m.id) as ids
    from matched m
    where m.own_key is not null
    having pg_catalog.count(*) > 0
  ) m
)
select
  (u.got is not distinct from false)::boolean as existed,
  coalesce(m.id, f.id, u.job_id)::bigint as job_id,
  (case when f.id is not null then 'waiting' else coalesce(u.state, '') end)::text as state,
  coalesce(u.task, '')::text as unique_task,
  coalesce(u.added_at, 'infinity')::timestamptz as added_at,
  coalesce(u.expires_at, 'infinity')::timestamptz as expires_at,
  coalesce(j.id, 0)::bigint as id, j.payload, coalesce(j.priority, 0)::smallint as priority, j.run_at, coalesce(j.attempts, 0)::smallint as attempts,
  coalesce(j.max_attempts, 0)::smallint as max_attempts, j.last_error, j.created_at,
  j.updated_at, j.key, j.locked_at, j.locked_by, coalesce(j.revision, 0)::int as revision, j.flags, coalesce(j.task_id, 0)::int as task_id, j.job_queue_id,
  t.identifier as task, q.queue_name as queue
from given g
cross join settled s
left join taken u on u.place = g.place
left join matched m on m.place = g.place
left join matched f on f.own_key = g.own_key and f.own_task = g.own_task and not u.got and u.job_id is null
left join lateral graphile_worker._gworker_unique_job(coalesce(m.id, f.id, u.job_id)) j on true
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
where s.calls >= 0 and coalesce(m.id, f.id, u.job_id) is not null
order by g.place;

-- name: SweepUnique :one
-- The answer is how many keys are forgotten, at most so many.
select graphile_worker._gworker_unique_sweep(@most::int)::int as swept;
