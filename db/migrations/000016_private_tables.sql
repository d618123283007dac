-- +goose Up
-- The tables get names that say "private". What names them in its text is made anew.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (16, true);

alter table if exists graphile_worker.jobs rename to _private_jobs;
alter table if exists graphile_worker.job_queues rename to _private_job_queues;
alter table if exists graphile_worker.tasks rename to _private_tasks;
alter table if exists graphile_worker.known_crontabs rename to _private_known_crontabs;

-- One of each, whatever their signatures.
do $gw$
declare
  routine regprocedure;
begin
  for routine in
    select p.oid
    from pg_catalog.pg_proc p
    join pg_catalog.pg_class ledger on ledger.relnamespace = p.pronamespace
    where ledger.oid = (select m.tableoid from graphile_worker.migrations m limit 1)
      and p.proname in (
      'add_job',
      'add_jobs',
      'complete_job',
      'complete_jobs',
      'fail_job',
      'get_job',
      'permanently_fail_jobs',
      'remove_job',
      'reschedule_jobs',
      'force_unlock_workers'
      )
  loop
    execute 'drop function ' || routine::text;
  end loop;
end
$gw$;

create or replace function graphile_worker.add_jobs(
  specs graphile_worker.job_spec[],
  job_key_preserve_run_at boolean default false
) returns setof graphile_worker._private_jobs language plpgsql as $gw$
begin
  insert into graphile_worker._private_tasks (identifier)
  select distinct s.identifier
  from pg_catalog.unnest(specs) s
  where not exists (select from graphile_worker._private_tasks t where t.identifier = s.identifier)
  on conflict do nothing;

  insert into graphile_worker._private_job_queues (queue_name)
  select distinct s.queue_name
  from pg_catalog.unnest(specs) s
  where s.queue_name is not null
    and not exists (select from graphile_worker._private_job_queues q where q.queue_name = s.queue_name)
  on conflict do nothing;

  update graphile_worker._private_jobs j
  set key = null, attempts = j.max_attempts, updated_at = pg_catalog.now()
  from pg_catalog.unnest(specs) s
  where j.key = s.job_key and not j.is_available;

  return query
  insert into graphile_worker._private_jobs as j
    (task_id, job_queue_id, payload, run_at, max_attempts, key, priority, flags)
  select
    t.id,
    q.id,
    coalesce(s.payload, '{}'),
    coalesce(s.run_at, pg_catalog.now()),
    coalesce(s.max_attempts, 25),
    s.job_key,
    coalesce(s.priority, 0),
    (select pg_catalog.jsonb_object_agg(flag, true) from pg_catalog.unnest(s.flags) flag)
  from pg_catalog.unnest(specs) with ordinality
    s (identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place)
  join graphile_worker._private_tasks t on t.identifier = s.identifier
  left join graphile_worker._private_job_queues q on q.queue_name = s.queue_name
  order by s.place
  on conflict (key) do update set
    task_id = excluded.task_id,
    job_queue_id = excluded.job_queue_id,
    payload = case
      when pg_catalog.json_typeof(j.payload) = 'array' and pg_catalog.json_typeof(excluded.payload) = 'array'
        then (j.payload::jsonb || excluded.payload::jsonb)::json
      else excluded.payload
    end,
    run_at = case
      when job_key_preserve_run_at and j.attempts = 0 then j.run_at
      else excluded.run_at
    end,
    max_attempts = excluded.max_attempts,
    priority = excluded.priority,
    flags = excluded.flags,
    revision = j.revision + 1,
    attempts = 0,
    last_error = null,
    updated_at = pg_catalog.now()
  where j.locked_at is null
  returning j.*;
end
$gw$;

create or replace function graphile_worker.add_job(
  identifier text,
  payload json default null,
  queue_name text default null,
  run_at timestamptz default null,
  max_attempts int default null,
  job_key text default null,
  priority int default null,
  flags text[] default null,
  job_key_mode text default 'replace'
) returns graphile_worker._private_jobs language plpgsql as $gw$
declare
  added graphile_worker._private_jobs;
begin
  if add_job.job_key is null or add_job.job_key_mode is null
    or add_job.job_key_mode in ('replace', 'preserve_run_at')
  then
    select made.* into added
    from graphile_worker.add_jobs(
      array[row(
        add_job.identifier, add_job.payload, add_job.queue_name, add_job.run_at, add_job.max_attempts,
        add_job.job_key, add_job.priority, add_job.flags
      )::graphile_worker.job_spec],
      coalesce(add_job.job_key_mode = 'preserve_run_at', false)
    ) made;
  elsif add_job.job_key_mode = 'unsafe_dedupe' then
    insert into graphile_worker._private_tasks (identifier)
    select add_job.identifier
    where not exists (select from graphile_worker._private_tasks t where t.identifier = add_job.identifier)
    on conflict do nothing;

    insert into graphile_worker._private_job_queues (queue_name)
    select add_job.queue_name
    where add_job.queue_name is not null
      and not exists (select from graphile_worker._private_job_queues q where q.queue_name = add_job.queue_name)
    on conflict do nothing;

    insert into graphile_worker._private_jobs as j
      (task_id, job_queue_id, payload, run_at, max_attempts, key, priority, flags)
    values (
      (select t.id from graphile_worker._private_tasks t where t.identifier = add_job.identifier),
      (select q.id from graphile_worker._private_job_queues q where q.queue_name = add_job.queue_name),
      coalesce(add_job.payload, '{}'),
      coalesce(add_job.run_at, pg_catalog.now()),
      coalesce(add_job.max_attempts, 25),
      add_job.job_key,
      coalesce(add_job.priority, 0),
      (select pg_catalog.jsonb_object_agg(flag, true) from pg_catalog.unnest(add_job.flags) flag)
    )
    on conflict (key) do update set revision = j.revision + 1, updated_at = pg_catalog.now()
    returning j.* into added;
  else
    raise exception 'Unknown job_key_mode "%": it is replace, preserve_run_at or unsafe_dedupe', add_job.job_key_mode
      using errcode = 'GWBKM';
  end if;
  return added;
end
$gw$;

create or replace function graphile_worker.remove_job(job_key text)
returns graphile_worker._private_jobs language plpgsql strict as $gw$
declare
  removed graphile_worker._private_jobs;
begin
  delete from graphile_worker._private_jobs j
  where j.key = remove_job.job_key
    and (j.locked_at is null or j.locked_at < pg_catalog.now() - interval '4 hours')
  returning j.* into removed;
  if found then
    return removed;
  end if;
  update graphile_worker._private_jobs j
  set key = null, attempts = j.max_attempts, updated_at = pg_catalog.now()
  where j.key = remove_job.job_key
  returning j.* into removed;
  return removed;
end
$gw$;

create or replace function graphile_worker.complete_jobs(job_ids bigint[])
returns setof graphile_worker._private_jobs language sql as $gw$
  delete from graphile_worker._private_jobs j
  where j.id = any (complete_jobs.job_ids)
    and (j.locked_at is null or j.locked_at < pg_catalog.now() - interval '4 hours')
  returning j.*;
$gw$;

create or replace function graphile_worker.permanently_fail_jobs(
  job_ids bigint[],
  error_message text default null
) returns setof graphile_worker._private_jobs language sql as $gw$
  update graphile_worker._private_jobs j
  set attempts = j.max_attempts,
    last_error = coalesce(permanently_fail_jobs.error_message, 'Manually marked as failed'),
    updated_at = pg_catalog.now()
  where j.id = any (permanently_fail_jobs.job_ids)
    and (j.locked_at is null or j.locked_at < pg_catalog.now() - interval '4 hours')
  returning j.*;
$gw$;

create or replace function graphile_worker.reschedule_jobs(
  job_ids bigint[],
  run_at timestamptz default null,
  priority int default null,
  attempts int default null,
  max_attempts int default null
) returns setof graphile_worker._private_jobs language sql as $gw$
  update graphile_worker._private_jobs j
  set run_at = coalesce(reschedule_jobs.run_at, j.run_at),
    priority = coalesce(reschedule_jobs.priority::smallint, j.priority),
    attempts = coalesce(reschedule_jobs.attempts::smallint, j.attempts),
    max_attempts = coalesce(reschedule_jobs.max_attempts::smallint, j.max_attempts),
    updated_at = pg_catalog.now()
  where j.id = any (reschedule_jobs.job_ids)
    and (j.locked_at is null or j.locked_at < pg_catalog.now() - interval '4 hours')
  returning j.*;
$gw$;

create or replace function graphile_worker.force_unlock_workers(worker_ids text[])
returns void language sql as $gw$
  update graphile_worker._private_jobs j
  set locked_at = null, locked_by = null
  where j.locked_by = any (force_unlock_workers.worker_ids);

  update graphile_worker._private_job_queues q
  set locked_at = null, locked_by = null
  where q.locked_by = any (force_unlock_workers.worker_ids);
$gw$;

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":16,"breaking":true}');
-- +goose StatementEnd
