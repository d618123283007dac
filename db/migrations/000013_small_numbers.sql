-- +goose Up
-- Numbers in specs and arguments are of the columns' type.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (13, true);

-- Within a block, since sqlc cannot read it.
do $gw$
begin
  alter type graphile_worker.job_spec alter attribute max_attempts type smallint;
  alter type graphile_worker.job_spec alter attribute priority type smallint;
end
$gw$;

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
      'reschedule_jobs'
      )
  loop
    execute 'drop function ' || routine::text;
  end loop;
end
$gw$;

create or replace function graphile_worker.add_job(
  identifier text,
  payload json default null,
  queue_name text default null,
  run_at timestamptz default null,
  max_attempts smallint default null,
  job_key text default null,
  priority smallint default null,
  flags text[] default null,
  job_key_mode text default 'replace'
) returns graphile_worker.jobs language plpgsql as $gw$
declare
  added graphile_worker.jobs;
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
    insert into graphile_worker.tasks (identifier)
    select add_job.identifier
    where not exists (select from graphile_worker.tasks t where t.identifier = add_job.identifier)
    on conflict do nothing;

    insert into graphile_worker.job_queues (queue_name)
    select add_job.queue_name
    where add_job.queue_name is not null
      and not exists (select from graphile_worker.job_queues q where q.queue_name = add_job.queue_name)
    on conflict do nothing;

    insert into graphile_worker.jobs as j
      (task_id, job_queue_id, payload, run_at, max_attempts, key, priority, flags)
    values (
      (select t.id from graphile_worker.tasks t where t.identifier = add_job.identifier),
      (select q.id from graphile_worker.job_queues q where q.queue_name = add_job.queue_name),
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

create or replace function graphile_worker.reschedule_jobs(
  job_ids bigint[],
  run_at timestamptz default null,
  priority smallint default null,
  attempts smallint default null,
  max_attempts smallint default null
) returns setof graphile_worker.jobs language sql as $gw$
  update graphile_worker.jobs j
  set run_at = coalesce(reschedule_jobs.run_at, j.run_at),
    priority = coalesce(reschedule_jobs.priority, j.priority),
    attempts = coalesce(reschedule_jobs.attempts, j.attempts),
    max_attempts = coalesce(reschedule_jobs.max_attempts, j.max_attempts),
    updated_at = pg_catalog.now()
  where j.id = any (reschedule_jobs.job_ids)
    and (j.locked_at is null or j.locked_at < pg_catalog.now() - interval '4 hours')
  returning j.*;
$gw$;

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":13,"breaking":true}');
-- +goose StatementEnd
