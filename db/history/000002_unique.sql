-- +goose Up
-- Jobs that are added once in a time, however often they are asked for, and even if the first
-- is done and gone by then.
-- +goose StatementBegin

-- The keys that are taken. task is '' for a key that counts over all tasks. A row without a
-- job is of an add that did not come to its end, and counts for nothing.
create table graphile_worker._gworker_unique (
  key text not null,
  task text not null,
  identifier text not null,
  added_at timestamptz not null,
  expires_at timestamptz not null,
  job_id bigint,
  primary key (key, task)
);
create index on graphile_worker._gworker_unique (expires_at);
comment on table graphile_worker._gworker_journal is 'gworker history 2';

-- A JSON value as one text for all ways to write it: the keys of objects sorted, without
-- space between tokens, strings with as few escapes as can be. Numbers stay as they are
-- written, and keys that are given twice stay both. What is nested deeper is left as written,
-- so that no payload exhausts the stack.
create function graphile_worker._gworker_unique_text(value json, level int)
returns text language plpgsql immutable as $gw$
begin
  if level > 50 then
    return value::text;
  end if;
  case pg_catalog.json_typeof(value)
  when 'object' then
    return (
      select '{'::text || coalesce(pg_catalog.string_agg(
        pg_catalog.to_json(e.key)::text || ':'::text || graphile_worker._gworker_unique_text(e.value, level + 1),
        ',' order by e.key collate pg_catalog."C", e.place
      ), ''::text) || '}'::text
      from pg_catalog.json_each(value) with ordinality as e (key, value, place)
    );
  when 'array' then
    return (
      select '['::text || coalesce(pg_catalog.string_agg(
        graphile_worker._gworker_unique_text(e.value, level + 1), ',' order by e.place
      ), ''::text) || ']'::text
      from pg_catalog.json_array_elements(value) with ordinality as e (value, place)
    );
  when 'string' then
    if pg_catalog.strpos(value::text, E'\\') > 0 then
      return pg_catalog.to_json(pg_catalog.json_extract_path_text(value, variadic '{}'::text[]))::text;
    end if;
  else
  end case;
  return pg_catalog.btrim(value::text, E' \t\r\n');
end $gw$;

-- The key under which an add is unique, or an error for what cannot be one. A key that was
-- given never equals one that was made of a payload. A text in a payload that the database
-- cannot decode (a NUL, half of a pair, a character that its encoding lacks) makes the
-- payload count as it is written.
create function graphile_worker._gworker_unique_key(identifier text, unique_for interval, payload json, unique_key text, unique_scope text)
returns text language plpgsql stable as $gw$
declare
  canonical text;
begin
  if coalesce(identifier, '') = ''::text then
    raise exception 'identifier is empty: name the task that shall run the job' using errcode = 'invalid_parameter_value';
  elsif unique_for is null or unique_for < '1 millisecond'::interval or unique_for > '366 days'::interval then
    raise exception 'unique_for is %: it can be 1 millisecond to 366 days', coalesce(unique_for::text, 'null')
      using errcode = 'invalid_parameter_value';
  elsif coalesce(unique_scope, 'task') not in ('task'::text, 'all'::text) then
    raise exception 'unique_scope is "%": it can be task or all', unique_scope using errcode = 'invalid_parameter_value';
  elsif pg_catalog.length(unique_key) > 512 then
    raise exception 'unique_key has % characters: the limit is 512', pg_catalog.length(unique_key) using errcode = 'invalid_parameter_value';
  elsif unique_key <> ''::text then
    return 'key:'::text || unique_key;
  end if;
  if pg_catalog.strpos(payload::text, E'\\u') > 0 then
    begin
      canonical := graphile_worker._gworker_unique_text(payload, 1);
    exception when data_exception then
      canonical := 'as written: '::text || payload::text;
    end;
  else
    canonical := graphile_worker._gworker_unique_text(coalesce(payload, '{}'::json), 1);
  end if;
  return 'payload:'::text || pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(canonical, pg_catalog.getdatabaseencoding())), 'hex');
end $gw$;

-- Takes keys for jobs that the caller adds next, each for its span; a place whose key is null
-- needs none. Says which it got, and of the others what became of the job that has the key. A
-- key that another transaction is just taking is waited for. Keys are taken in their order, so
-- that two calls do not wait for each other. It runs with the rights of the schema's owner and
-- changes this table alone: what is added is added by the caller.
create function graphile_worker._gworker_unique_take(keys text[], tasks text[], identifiers text[], spans interval[])
returns table (place int, got boolean, job_id bigint, state text, identifier text, added_at timestamptz, expires_at timestamptz)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $gw$
#variable_conflict use_column
declare
  taken int[];
  answered int;
begin
  for round in 1..10 loop
    with wanted as (
      select distinct on (w.key, w.task) w.key, w.task, w.identifier, w.span, w.place
      from rows from (
        pg_catalog.unnest(_gworker_unique_take.keys), pg_catalog.unnest(_gworker_unique_take.tasks),
        pg_catalog.unnest(_gworker_unique_take.identifiers), pg_catalog.unnest(_gworker_unique_take.spans)
      ) with ordinality as w (key, task, identifier, span, place)
      where w.key is not null
      order by w.key, w.task, w.place
    ), got as (
      insert into graphile_worker._gworker_unique as u (key, task, identifier, added_at, expires_at)
      select w.key, w.task, w.identifier, c.now, c.now + w.span
      from wanted w
      cross join lateral (select pg_catalog.clock_timestamp() as now) c
      where not exists (
        select from graphile_worker._gworker_unique u
        where u.key = w.key and u.task = w.task and u.job_id is not null and u.expires_at > pg_catalog.clock_timestamp()
      )
      order by w.key, w.task
      on conflict (key, task) do update
        set identifier = excluded.identifier, added_at = excluded.added_at, expires_at = excluded.expires_at, job_id = null
        where u.job_id is null or u.expires_at <= pg_catalog.clock_timestamp()
      returning u.key, u.task
    )
    select coalesce(pg_catalog.array_agg(w.place::int), '{}') into taken
    from wanted w join got g on g.key = w.key and g.task = w.task;

    -- Those that others have taken meanwhile are there only for a new statement. One that
    -- was swept between the two is looked for again.
    exit when not exists (
      select from rows from (pg_catalog.unnest(_gworker_unique_take.keys), pg_catalog.unnest(_gworker_unique_take.tasks)) as w (key, task)
      where w.key is not null
        and not exists (select from graphile_worker._gworker_unique u where u.key = w.key and u.task = w.task)
    );
  end loop;

  return query
  select w.place::int, g.place is not null, u.job_id,
    case
      when j.id is null then 'gone'
      when j.locked_at is not null then 'running'
      when j.attempts >= j.max_attempts then 'failed'
      else 'waiting'
    end,
    u.identifier, u.added_at, u.expires_at
  from rows from (pg_catalog.unnest(_gworker_unique_take.keys), pg_catalog.unnest(_gworker_unique_take.tasks)) with ordinality as w (key, task, place)
  join graphile_worker._gworker_unique u on u.key = w.key and u.task = w.task
  left join pg_catalog.unnest(taken) as g (place) on g.place = w.place::int
  left join graphile_worker._private_jobs j on j.id = u.job_id;
  get diagnostics answered = row_count;
  if answered <> (select pg_catalog.count(*) from pg_catalog.unnest(_gworker_unique_take.keys) as w (key) where w.key is not null) then
    raise exception 'Unique keys were taken away while jobs were added under them'
      using errcode = 'serialization_failure', hint = 'Add the jobs again.';
  end if;
end $gw$;

-- Notes which jobs have the keys that the same transaction has taken before. Jobs that this
-- transaction has not written can have none, so that nobody holds a key without adding a job.
create function graphile_worker._gworker_unique_settle(keys text[], tasks text[], ids bigint[])
returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $gw$
declare
  settled int;
begin
  update graphile_worker._gworker_unique u
  set job_id = w.id
  from rows from (
    pg_catalog.unnest(_gworker_unique_settle.keys), pg_catalog.unnest(_gworker_unique_settle.tasks), pg_catalog.unnest(_gworker_unique_settle.ids)
  ) as w (key, task, id)
  join graphile_worker._private_jobs j on j.id = w.id and j.updated_at >= pg_catalog.now()
  where u.key = w.key and u.task = w.task and u.job_id is null;
  get diagnostics settled = row_count;
  if settled <> pg_catalog.cardinality(_gworker_unique_settle.ids) then
    raise exception 'Of % jobs under unique keys, % were not added by this transaction',
      pg_catalog.cardinality(_gworker_unique_settle.ids), pg_catalog.cardinality(_gworker_unique_settle.ids) - settled;
  end if;
end $gw$;

-- Adds a job, unless one was added in the same way less than that job's unique_for ago. It
-- runs with the rights of its caller, who can add nothing that add_job would not add.
create function graphile_worker.gworker_add_unique(
  identifier text, unique_for interval, payload json default null, unique_key text default null, unique_scope text default 'task',
  queue_name text default null, run_at timestamptz default null, max_attempts int default null, job_key text default null,
  priority int default null, flags text[] default null, job_key_mode text default 'replace',
  out existed boolean, out job_id bigint, out state text, out task_identifier text, out added_at timestamptz, out expires_at timestamptz
) language plpgsql as $gw$
declare
  own_key text := graphile_worker._gworker_unique_key(identifier, unique_for, payload, unique_key, unique_scope);
  own_task text := case when unique_scope = 'all'::text then '' else identifier end;
begin
  select not t.got, t.job_id, t.state, t.identifier, t.added_at, t.expires_at
  into existed, job_id, state, task_identifier, added_at, expires_at
  from graphile_worker._gworker_unique_take(array[own_key], array[own_task], array[identifier], array[unique_for]) t;
  if existed then
    return;
  end if;
  select a.id into job_id
  from graphile_worker.add_job(
    identifier => gworker_add_unique.identifier, payload => gworker_add_unique.payload, queue_name => gworker_add_unique.queue_name,
    run_at => gworker_add_unique.run_at, max_attempts => gworker_add_unique.max_attempts, job_key => gworker_add_unique.job_key,
    priority => gworker_add_unique.priority, flags => gworker_add_unique.flags, job_key_mode => gworker_add_unique.job_key_mode
  ) a;
  if job_id is null then
    raise exception 'Unable to schedule job for key "%"', job_key
      using errcode = 'GWNOR', hint = 'Another session has locked the job with this key meanwhile. Add the job again.';
  end if;
  state := 'waiting';
  perform graphile_worker._gworker_unique_settle(array[own_key], array[own_task], array[job_id]);
end $gw$;

-- One job, for statements that began before it was added. A role sees those that it may see.
create function graphile_worker._gworker_unique_job(id bigint)
returns setof graphile_worker._private_jobs language plpgsql as $gw$
begin
  return query select j.* from graphile_worker._private_jobs j where j.id = _gworker_unique_job.id;
end $gw$;

-- Forgets keys whose time is over: so many that it takes milliseconds. Returns how many those
-- were; the caller calls it again while there are as many as this.
create function graphile_worker._gworker_unique_sweep(most int)
returns int language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $gw$
declare
  swept int;
begin
  delete from graphile_worker._gworker_unique u
  using (
    select e.key, e.task
    from graphile_worker._gworker_unique e
    where e.expires_at <= pg_catalog.now()
    order by e.expires_at
    limit _gworker_unique_sweep.most
    for update skip locked
  ) as expired
  where u.key = expired.key and u.task = expired.task;
  get diagnostics swept = row_count;
  return swept;
end $gw$;

-- Two of them run with the rights of the schema's owner. Roles that may add jobs already keep
-- that right in this form too, and those that keep history in order keep this in order.
revoke all on function
  graphile_worker._gworker_unique_take(text[], text[], text[], interval[]),
  graphile_worker._gworker_unique_settle(text[], text[], bigint[]),
  graphile_worker._gworker_unique_sweep(int)
from public;

do $gw$
declare
  given record;
begin
  for given in
    with home as (
      select c.relnamespace as id, n.nspname as name
      from graphile_worker._gworker_journal j
      join pg_catalog.pg_class c on c.oid = j.tableoid
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    ), adds as (
      select c.relacl as acl, c.relowner as owner, 'INSERT' as privilege, array['_gworker_unique_take', '_gworker_unique_settle'] as functions
      from home h join pg_catalog.pg_class c on c.relnamespace = h.id and c.relname = '_private_jobs'
      union all
      select a.attacl, c.relowner, 'INSERT', array['_gworker_unique_take', '_gworker_unique_settle']
      from home h join pg_catalog.pg_class c on c.relnamespace = h.id and c.relname = '_private_jobs'
      join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = 'payload'
      union all
      select p.proacl, p.proowner, 'EXECUTE', array['_gworker_unique_sweep']
      from home h join pg_catalog.pg_proc p on p.pronamespace = h.id and p.proname = '_gworker_upkeep'
    )
    select distinct h.name as home, f.name as function, case when x.grantee = 0::oid then 'public' else pg_catalog.quote_ident(r.rolname) end as role
    from home h
    cross join adds
    cross join pg_catalog.aclexplode(adds.acl) x
    cross join pg_catalog.unnest(adds.functions) as f (name)
    left join pg_catalog.pg_roles r on r.oid = x.grantee
    where x.privilege_type = adds.privilege and x.grantee <> adds.owner and (x.grantee = 0::oid or r.oid is not null)
  loop
    execute pg_catalog.format('grant execute on function %I.%I to %s', given.home, given.function, given.role);
  end loop;
end $gw$;
-- +goose StatementEnd
