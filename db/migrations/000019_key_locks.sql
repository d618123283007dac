-- +goose Up
-- Adding takes locks on keys, and leaves the identities of known tasks and queues
-- alone. Safe to run again, and over what Node and Rust call revision 19; whatever
-- is missing of the earlier revisions is made again.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (19, false)
on conflict (id) do nothing;

create table if not exists graphile_worker._private_tasks (
  id int not null generated always as identity,
  identifier text not null
);

create table if not exists graphile_worker._private_job_queues (
  id int not null generated always as identity,
  queue_name text not null,
  locked_at timestamptz,
  locked_by text,
  is_available boolean not null generated always as (locked_at is null) stored
);

create table if not exists graphile_worker._private_jobs (
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
  is_available boolean not null generated always as (locked_at is null and attempts < max_attempts) stored
);

create table if not exists graphile_worker._private_known_crontabs (
  identifier text not null,
  known_since timestamptz not null,
  last_execution timestamptz
);

-- What belongs to these tables, and the type, where missing.
do $gw$
declare
  home oid := (
    select c.relnamespace
    from pg_catalog.pg_class c
    where c.oid = (select m.tableoid from graphile_worker.migrations m limit 1)
  );
  missing record;
begin
  for missing in
    select c.oid::regclass as relation, w.name, w.definition
    from (values
      ('_private_tasks', 'tasks_pkey', 'primary key (id)'),
      ('_private_tasks', 'tasks_identifier_key', 'unique (identifier)'),
      ('_private_tasks', 'tasks_identifier_check', 'check (length(identifier) <= 128)'),
      ('_private_job_queues', 'job_queues_pkey1', 'primary key (id)'),
      ('_private_job_queues', 'job_queues_queue_name_key', 'unique (queue_name)'),
      ('_private_job_queues', 'job_queues_queue_name_check', 'check (length(queue_name) <= 128)'),
      ('_private_jobs', 'jobs_pkey1', 'primary key (id)'),
      ('_private_jobs', 'jobs_key_key1', 'unique (key)'),
      ('_private_jobs', 'jobs_key_check', 'check (length(key) > 0 and length(key) <= 512)'),
      ('_private_jobs', 'jobs_max_attempts_check', 'check (max_attempts >= 1)'),
      ('_private_known_crontabs', 'known_crontabs_pkey', 'primary key (identifier)')
    ) w (relation, name, definition)
    join pg_catalog.pg_class c on c.relname = w.relation and c.relnamespace = home
    where not exists (
      select from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.conname = w.name
    )
  loop
    execute pg_catalog.format('alter table %s add constraint %I %s', missing.relation, missing.name, missing.definition);
  end loop;

  for missing in
    select c.oid::regclass as relation
    from pg_catalog.pg_class c
    where c.relnamespace = home
      and c.relname in ('_private_tasks', '_private_job_queues', '_private_jobs', '_private_known_crontabs')
      and not c.relrowsecurity
  loop
    execute pg_catalog.format('alter table %s enable row level security', missing.relation);
  end loop;

  if not exists (
    select from pg_catalog.pg_type t where t.typname = 'job_spec' and t.typnamespace = home
  ) then
    create type graphile_worker.job_spec as (
      identifier text,
      payload json,
      queue_name text,
      run_at timestamptz,
      max_attempts smallint,
      job_key text,
      priority smallint,
      flags text[]
    );
  end if;
end
$gw$;

create index if not exists jobs_main_index on graphile_worker._private_jobs (priority, run_at)
  include (id, task_id, job_queue_id)
  where is_available = true;
create index if not exists jobs_no_queue_index on graphile_worker._private_jobs (priority, run_at)
  include (id, task_id)
  where is_available = true and job_queue_id is null;

create or replace view graphile_worker.jobs as
select
  jobs.id,
  job_queues.queue_name,
  tasks.identifier as task_identifier,
  jobs.priority,
  jobs.run_at,
  jobs.attempts,
  jobs.max_attempts,
  jobs.last_error,
  jobs.created_at,
  jobs.updated_at,
  jobs.key,
  jobs.locked_at,
  jobs.locked_by,
  jobs.revision,
  jobs.flags
from graphile_worker._private_jobs as jobs
join graphile_worker._private_tasks as tasks on tasks.id = jobs.task_id
left join graphile_worker._private_job_queues as job_queues on job_queues.id = jobs.job_queue_id;

-- Callers with a key in common go one after the other. Two things see to that. The
-- locks on keys are those of other runtimes, whose functions need them where a job is
-- added and claimed in just that moment. They stand in a table that all sessions of
-- the server share, with room for about 14,000 by default, so one transaction takes
-- 100 at most ("gworker.key_locks" counts them, and goes back with a savepoint as they
-- do). A call for more takes none: it waits for whoever has locked one of its keys,
-- and inserts in the order of the keys, so that the index keeps later callers waiting,
-- and large calls cannot wait for each other. And whoever finds that a job was claimed
-- while it waited looks again, which also helps against those that lock no keys. Only
-- a function of another runtime that meets a key of such a large call still raises
-- GWNOR, if the job is claimed at once.
create or replace function graphile_worker.add_jobs(
  specs graphile_worker.job_spec[],
  job_key_preserve_run_at boolean default false
) returns setof graphile_worker._private_jobs language plpgsql as $gw$
-- made by gworker
declare
  job_keys text[] := array(
    select distinct s.job_key from pg_catalog.unnest(specs) s where s.job_key is not null order by s.job_key
  );
  key_locks int := coalesce(nullif(pg_catalog.current_setting('gworker.key_locks', true), ''), '0')::int + pg_catalog.cardinality(job_keys);
  left_over graphile_worker.job_spec[] := specs;
  added_keys text[] := '{}';
  added int := 0;
  stored graphile_worker._private_jobs;
begin
  if coalesce(pg_catalog.cardinality(specs), 0) = 0 then
    return;
  end if;

  if pg_catalog.cardinality(job_keys) > 0 then
    if key_locks <= 100 then
      perform pg_catalog.set_config('gworker.key_locks', key_locks::text, true);
      perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext(k.job_key)::bigint) from pg_catalog.unnest(job_keys) k (job_key);
    else
      -- A producer's policy ("worker grant") lets it see the jobs with these keys.
      perform pg_catalog.set_config('gworker.added_keys', pg_catalog.array_to_json(job_keys)::text, true);
      -- One expression, within which nothing interrupts: no lock can be left behind.
      perform pg_catalog.pg_advisory_unlock(
        pg_catalog.hashtext(k.job_key)::bigint + pg_catalog.length(pg_catalog.pg_advisory_lock(pg_catalog.hashtext(k.job_key)::bigint)::text)::bigint
      )
      from pg_catalog.unnest(job_keys) k (job_key);
    end if;
  end if;

  for round in 1..10 loop
    if pg_catalog.cardinality(job_keys) > 0 then
      perform j.id
      from graphile_worker._private_jobs j
      where j.key = any (job_keys)
      order by j.key
      for update;
    end if;

    if round = 1 then
      -- A conflict would cost a number of the identity, so only what is not there is
      -- inserted; the conflict clause is for the race.
      insert into graphile_worker._private_tasks (identifier)
      select distinct s.identifier
      from pg_catalog.unnest(specs) s
      where not exists (select from graphile_worker._private_tasks t where t.identifier = s.identifier)
      order by s.identifier
      on conflict do nothing;

      insert into graphile_worker._private_job_queues (queue_name)
      select distinct s.queue_name
      from pg_catalog.unnest(specs) s
      where s.queue_name is not null
        and not exists (select from graphile_worker._private_job_queues q where q.queue_name = s.queue_name)
      order by s.queue_name
      on conflict do nothing;
    end if;

    -- Retired: a job that runs, or has run out of attempts, cannot be changed any
    -- more. It gives up its key and cannot come back.
    if pg_catalog.cardinality(job_keys) > 0 then
      update graphile_worker._private_jobs j
      set key = null, attempts = j.max_attempts, updated_at = pg_catalog.now()
      where j.key = any (job_keys) and not j.is_available;
    end if;

    if round = 1 then
      perform pg_catalog.pg_notify('jobs:insert', '{"r":' || pg_catalog.random()::text || ',"count":' || pg_catalog.cardinality(specs)::text || '}');
    end if;

    for stored in
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
      from pg_catalog.unnest(left_over) with ordinality
        s (identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place)
      join graphile_worker._private_tasks t on t.identifier = s.identifier
      left join graphile_worker._private_job_queues q on q.queue_name = s.queue_name
      where s.queue_name is null or q.id is not null
      order by case when key_locks > 100 then s.job_key end, s.place
      on conflict (key) do update set
        task_id = excluded.task_id,
        job_queue_id = excluded.job_queue_id,
        -- Element by element, so that each stays as it was written.
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
      returning j.*
    loop
      added := added + 1;
      if stored.key is not null then
        added_keys := pg_catalog.array_append(added_keys, stored.key);
      end if;
      return next stored;
    end loop;
    exit when added = pg_catalog.cardinality(specs);

    -- A clean-up may have taken a task or queue since it was looked for. Better an
    -- error that says "again" than a job that is lost.
    if exists (
      select from pg_catalog.unnest(left_over) s
      where not exists (select from graphile_worker._private_tasks t where t.identifier = s.identifier)
        or s.queue_name is not null
        and not exists (select from graphile_worker._private_job_queues q where q.queue_name = s.queue_name)
    ) then
      raise exception 'A task or queue was cleaned up while jobs were added to it'
        using errcode = 'serialization_failure', hint = 'Add the jobs again.';
    end if;

    -- Claimed since it was looked at: it is retired in the next round.
    left_over := array(
      select s from pg_catalog.unnest(left_over) s
      where s.job_key is not null
        and not exists (select from pg_catalog.unnest(added_keys) a (job_key) where a.job_key = s.job_key)
    );
    exit when pg_catalog.cardinality(left_over) = 0;
    job_keys := array(select s.job_key from pg_catalog.unnest(left_over) s order by s.job_key);
  end loop;
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
-- made by gworker
declare
  added graphile_worker._private_jobs;
  key_locks int;
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
    if added.id is null then
      raise exception 'Unable to schedule job for key "%"', add_job.job_key
        using errcode = 'GWNOR', hint = 'Somebody locked the job with this key meanwhile. Add the job again.';
    end if;
  elsif add_job.job_key_mode = 'unsafe_dedupe' then
    key_locks := coalesce(nullif(pg_catalog.current_setting('gworker.key_locks', true), ''), '0')::int + 1;
    if key_locks <= 100 then
      perform pg_catalog.set_config('gworker.key_locks', key_locks::text, true);
      perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext(add_job.job_key)::bigint);
    else
      perform pg_catalog.set_config('gworker.added_keys', pg_catalog.json_build_array(add_job.job_key)::text, true);
      perform pg_catalog.pg_advisory_unlock(
        pg_catalog.hashtext(add_job.job_key)::bigint + pg_catalog.length(pg_catalog.pg_advisory_lock(pg_catalog.hashtext(add_job.job_key)::bigint)::text)::bigint
      );
    end if;

    insert into graphile_worker._private_tasks (identifier)
    select add_job.identifier
    where not exists (
      select from graphile_worker._private_tasks t where t.identifier = add_job.identifier
    )
    on conflict do nothing;

    insert into graphile_worker._private_job_queues (queue_name)
    select add_job.queue_name
    where add_job.queue_name is not null and not exists (
      select from graphile_worker._private_job_queues q where q.queue_name = add_job.queue_name
    )
    on conflict do nothing;

    insert into graphile_worker._private_jobs as j
      (task_id, job_queue_id, payload, run_at, max_attempts, key, priority, flags)
    select
      t.id,
      q.id,
      coalesce(add_job.payload, '{}'),
      coalesce(add_job.run_at, pg_catalog.now()),
      coalesce(add_job.max_attempts, 25),
      add_job.job_key,
      coalesce(add_job.priority, 0),
      (select pg_catalog.jsonb_object_agg(flag, true) from pg_catalog.unnest(add_job.flags) flag)
    from graphile_worker._private_tasks t
    left join graphile_worker._private_job_queues q on q.queue_name = add_job.queue_name
    where t.identifier = add_job.identifier and (add_job.queue_name is null or q.id is not null)
    on conflict (key) do update set revision = j.revision + 1, updated_at = pg_catalog.now()
    returning j.* into added;

    if added.id is null then
      raise exception 'A task or queue was cleaned up while a job was added to it'
        using errcode = 'serialization_failure', hint = 'Add the job again.';
    end if;
    if added.revision = 0 then
      perform pg_catalog.pg_notify('jobs:insert', '{"r":' || pg_catalog.random()::text || ',"count":1}');
    end if;
  else
    raise exception 'Unknown job_key_mode "%": it is replace, preserve_run_at or unsafe_dedupe', add_job.job_key_mode
      using errcode = 'GWBKM';
  end if;
  return added;
end
$gw$;

-- The row is locked first and judged then: while its run's end is being written it
-- is still locked for one statement and free for the next, and would be kept
-- although nothing runs.
create or replace function graphile_worker.remove_job(job_key text)
returns graphile_worker._private_jobs language plpgsql strict as $gw$
declare
  seen bigint;
  seen_before bigint;
  held graphile_worker._private_jobs;
  removed graphile_worker._private_jobs;
begin
  -- Who held the row may have given the key to another: then that one is meant.
  loop
    select j.id into seen from graphile_worker._private_jobs j where j.key = remove_job.job_key;
    if seen is null or seen = seen_before then
      return null;
    end if;
    select j.* into held
    from graphile_worker._private_jobs j
    where j.id = seen and j.key = remove_job.job_key
    for update;
    exit when found;
    seen_before := seen;
  end loop;

  delete from graphile_worker._private_jobs j
  where j.id = held.id
    and (held.locked_at is null or held.locked_at < pg_catalog.now() - interval '4 hours')
  returning j.* into removed;
  if found then
    perform pg_catalog.pg_notify('jobs:insert', '{"r":' || pg_catalog.random()::text || ',"count":-1}');
    return removed;
  end if;
  update graphile_worker._private_jobs j
  set key = null, attempts = j.max_attempts, updated_at = pg_catalog.now()
  where j.id = held.id
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

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":19,"breaking":false}');
-- +goose StatementEnd
