-- +goose Up
-- Jobs move to a new table, smaller and with numbers for tasks and queues. Their
-- ids and locks stay behind, so nothing may be running.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (11, true);

lock table graphile_worker.jobs, graphile_worker.job_queues in access exclusive mode;

-- The SQLSTATE is the one that other runtimes meet here.
do $gw$
begin
  if exists (select from graphile_worker.jobs j where j.locked_at >= now() - interval '4 hours') then
    raise exception 'There are locked jobs present; migration 11 cannot complete. Please ensure all workers are shut down cleanly and all locked jobs and queues are unlocked before attempting this migration.'
      using errcode = '22012';
  end if;
end
$gw$;

alter table graphile_worker.jobs rename to jobs_before_11;
alter table graphile_worker.job_queues rename to job_queues_before_11;

-- Whatever is there of an earlier time, with whatever signature.
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
      'reschedule_jobs'
      )
  loop
    execute 'drop function ' || routine::text;
  end loop;
end
$gw$;

-- Names of constraints and indexes are as they fall where the old ones exist.
create table graphile_worker.tasks (
  id int not null generated always as identity,
  identifier text not null,
  constraint tasks_pkey primary key (id),
  constraint tasks_identifier_key unique (identifier),
  constraint tasks_identifier_check check (length(identifier) <= 128)
);
alter table graphile_worker.tasks enable row level security;

create table graphile_worker.job_queues (
  id int not null generated always as identity,
  queue_name text not null,
  locked_at timestamptz,
  locked_by text,
  is_available boolean not null generated always as (locked_at is null) stored,
  constraint job_queues_pkey1 primary key (id),
  constraint job_queues_queue_name_key unique (queue_name),
  constraint job_queues_queue_name_check check (length(queue_name) <= 128)
);
alter table graphile_worker.job_queues enable row level security;

create table graphile_worker.jobs (
  id bigint not null generated always as identity,
  job_queue_id int,
  task_id int not null,
  payload json not null default '{}'::json,
  priority smallint not null default 0,
  run_at timestamptz not null default now(),
  attempts smallint not null default 0,
  max_attempts smallint not null default 25,
  last_error text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  key text,
  locked_at timestamptz,
  locked_by text,
  revision int not null default 0,
  flags jsonb,
  is_available boolean not null generated always as (locked_at is null and attempts < max_attempts) stored,
  constraint jobs_pkey1 primary key (id),
  constraint jobs_key_key1 unique (key),
  constraint jobs_key_check check (length(key) > 0 and length(key) <= 512),
  constraint jobs_max_attempts_check check (max_attempts >= 1)
);
alter table graphile_worker.jobs enable row level security;

insert into graphile_worker.tasks (identifier)
select distinct b.task_identifier from graphile_worker.jobs_before_11 b order by 1;

insert into graphile_worker.job_queues (queue_name)
select distinct b.queue_name from graphile_worker.jobs_before_11 b where b.queue_name is not null order by 1;

-- Numbers beyond smallint are cut to it, so that a job that had attempts left
-- has one left, and a failed one none.
insert into graphile_worker.jobs (
  job_queue_id, task_id, payload, priority, run_at, attempts, max_attempts, last_error, created_at, updated_at,
  key, revision, flags
)
select
  q.id, t.id, b.payload, least(greatest(b.priority, -32768), 32767), b.run_at,
  case
    when b.attempts < b.max_attempts then least(b.attempts, limits.max_attempts - 1)
    else greatest(limits.max_attempts, least(b.attempts, 32767))
  end,
  limits.max_attempts, b.last_error, b.created_at, b.updated_at, b.key, b.revision, b.flags
from graphile_worker.jobs_before_11 b
cross join lateral (select least(greatest(b.max_attempts, 1), 32767) as max_attempts) limits
join graphile_worker.tasks t on t.identifier = b.task_identifier
left join graphile_worker.job_queues q on q.queue_name = b.queue_name
order by b.id;

drop table graphile_worker.jobs_before_11;
drop table graphile_worker.job_queues_before_11;
-- Its trigger went with the table.
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
      'tg_jobs__notify_new_jobs'
      )
  loop
    execute 'drop function ' || routine::text;
  end loop;
end
$gw$;

create index jobs_main_index on graphile_worker.jobs (priority, run_at)
  include (id, task_id, job_queue_id)
  where is_available = true;
create index jobs_no_queue_index on graphile_worker.jobs (priority, run_at)
  include (id, task_id)
  where is_available = true and job_queue_id is null;

create type graphile_worker.job_spec as (
  identifier text,
  payload json,
  queue_name text,
  run_at timestamptz,
  max_attempts int,
  job_key text,
  priority int,
  flags text[]
);

create or replace function graphile_worker.add_jobs(
  specs graphile_worker.job_spec[],
  job_key_preserve_run_at boolean default false
) returns setof graphile_worker.jobs language plpgsql as $gw$
begin
  insert into graphile_worker.tasks (identifier)
  select distinct s.identifier
  from pg_catalog.unnest(specs) s
  where not exists (select from graphile_worker.tasks t where t.identifier = s.identifier)
  on conflict do nothing;

  insert into graphile_worker.job_queues (queue_name)
  select distinct s.queue_name
  from pg_catalog.unnest(specs) s
  where s.queue_name is not null
    and not exists (select from graphile_worker.job_queues q where q.queue_name = s.queue_name)
  on conflict do nothing;

  update graphile_worker.jobs j
  set key = null, attempts = j.max_attempts, updated_at = pg_catalog.now()
  from pg_catalog.unnest(specs) s
  where j.key = s.job_key and not j.is_available;

  return query
  insert into graphile_worker.jobs as j
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
  join graphile_worker.tasks t on t.identifier = s.identifier
  left join graphile_worker.job_queues q on q.queue_name = s.queue_name
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

create or replace function graphile_worker.remove_job(job_key text)
returns graphile_worker.jobs language plpgsql strict as $gw$
declare
  removed graphile_worker.jobs;
begin
  delete from graphile_worker.jobs j
  where j.key = remove_job.job_key
    and (j.locked_at is null or j.locked_at < pg_catalog.now() - interval '4 hours')
  returning j.* into removed;
  if found then
    return removed;
  end if;
  update graphile_worker.jobs j
  set key = null, attempts = j.max_attempts, updated_at = pg_catalog.now()
  where j.key = remove_job.job_key
  returning j.* into removed;
  return removed;
end
$gw$;

create or replace function graphile_worker.complete_jobs(job_ids bigint[])
returns setof graphile_worker.jobs language sql as $gw$
  delete from graphile_worker.jobs j
  where j.id = any (complete_jobs.job_ids)
    and (j.locked_at is null or j.locked_at < pg_catalog.now() - interval '4 hours')
  returning j.*;
$gw$;

create or replace function graphile_worker.permanently_fail_jobs(
  job_ids bigint[],
  error_message text default null
) returns setof graphile_worker.jobs language sql as $gw$
  update graphile_worker.jobs j
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
) returns setof graphile_worker.jobs language sql as $gw$
  update graphile_worker.jobs j
  set run_at = coalesce(reschedule_jobs.run_at, j.run_at),
    priority = coalesce(reschedule_jobs.priority::smallint, j.priority),
    attempts = coalesce(reschedule_jobs.attempts::smallint, j.attempts),
    max_attempts = coalesce(reschedule_jobs.max_attempts::smallint, j.max_attempts),
    updated_at = pg_catalog.now()
  where j.id = any (reschedule_jobs.job_ids)
    and (j.locked_at is null or j.locked_at < pg_catalog.now() - interval '4 hours')
  returning j.*;
$gw$;

create or replace function graphile_worker.tg_jobs__after_insert()
returns trigger language plpgsql as $gw$
begin
  perform pg_catalog.pg_notify('jobs:insert', '{"r":' || pg_catalog.random()::text || ',"count":1}');
  return null;
end
$gw$;

create trigger _900_after_insert after insert on graphile_worker.jobs
  for each statement execute function graphile_worker.tg_jobs__after_insert();

-- Nothing calls these from here on; whoever runs revision 15 expects them.
create or replace function graphile_worker.tg__update_timestamp()
returns trigger language plpgsql as $gw$
begin
  return new;
end
$gw$;

create or replace function graphile_worker.jobs__increase_job_queue_count()
returns trigger language plpgsql as $gw$
begin
  return null;
end
$gw$;

create or replace function graphile_worker.jobs__decrease_job_queue_count()
returns trigger language plpgsql as $gw$
begin
  return null;
end
$gw$;

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":11,"breaking":true}');
-- +goose StatementEnd
