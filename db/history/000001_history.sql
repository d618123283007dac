-- +goose Up
-- What happened to jobs, in tables of gworker's own next to those that all Graphile Workers
-- share. Nothing of these is touched, and nothing of theirs refers to these.
-- +goose StatementBegin

-- One row: which journal cursors and events belong to. hours_until and days_until say up to
-- when statistics were added up.
create table graphile_worker._gworker_journal (
  id bigint not null,
  created timestamptz not null default pg_catalog.now(),
  hours_until timestamptz not null default pg_catalog.date_trunc('hour', pg_catalog.now()),
  days_until timestamptz not null default (pg_catalog.date_trunc('day', pg_catalog.now() at time zone 'UTC') at time zone 'UTC')
);
comment on table graphile_worker._gworker_journal is 'gworker history 1';
insert into graphile_worker._gworker_journal (id)
values ((pg_catalog.random() * 9007199254740991::float8)::bigint);

-- What happened. jobs are the jobs of an event that is about several. The names are texts,
-- since the rows of tasks and queues may go before their events.
create table graphile_worker._gworker_events (
  at timestamptz not null default pg_catalog.clock_timestamp(),
  txid bigint not null default pg_catalog.txid_current(),
  seq bigserial not null,
  kind text not null,
  job_id bigint,
  jobs bigint[],
  task text,
  queue text,
  key text,
  attempt int,
  max_attempts int,
  worker text,
  wait_ms real,
  run_ms real,
  error text,
  details jsonb
) partition by range (at);
create index on graphile_worker._gworker_events (at, seq);
create index on graphile_worker._gworker_events (job_id) where job_id is not null;
create index on graphile_worker._gworker_events using gin (jobs) where jobs is not null;

-- How many jobs of a task ended how, and how long they waited and ran. runs and waits count
-- by the duration: the first slot is less than 0.1 ms, and each further one reaches to the
-- square root of 2 times the one before. span is minute, hour or day. An hour and a day are
-- of all workers, and may have several rows.
create table graphile_worker._gworker_stats (
  span text not null,
  at timestamptz not null,
  task text not null,
  worker text not null,
  completed bigint not null,
  failed bigint not null,
  permanently_failed bigint not null,
  returned bigint not null,
  snoozed bigint not null,
  run_seconds float8 not null,
  wait_seconds float8 not null,
  runs bigint[] not null,
  waits bigint[] not null
);
create index on graphile_worker._gworker_stats (span, at, task);

-- Records what happened to jobs in the transaction that changes them. Returns why that was
-- not done, or null: whatever is wrong with these tables, the change itself is not refused,
-- and waits for none of their locks for long. Of changed jobs, those are passed over whose
-- rows the transaction has left as they were. A failed job that has another error than the
-- one that was to be written was cancelled, and its worker has not heard of that.
create function graphile_worker._gworker_record(
  worker text, changed boolean, kinds text[], ids bigint[], tasks text[], attempts int[], waits float8[], runs float8[], errors text[], details text[]
) returns text language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' as $gw$
begin
  insert into graphile_worker._gworker_events (kind, job_id, task, queue, key, attempt, max_attempts, worker, wait_ms, run_ms, error, details)
  select
    case
      when not _gworker_record.changed or r.kind in ('snoozed', 'cancelled') or j.attempts < j.max_attempts then r.kind
      when pg_catalog.left(j.last_error, pg_catalog.length(r.error)) <> r.error then 'cancelled'
      else 'permanently_failed'
    end,
    r.id, coalesce(t.identifier, nullif(r.task, '')), q.queue_name, j.key, nullif(r.attempt, 0), j.max_attempts, nullif(_gworker_record.worker, ''),
    case when r.wait >= 0 then r.wait::real end, case when r.run >= 0 then r.run::real end, nullif(r.error, ''),
    nullif(
      coalesce(nullif(r.detail, '')::jsonb, '{}') || case
        when _gworker_record.changed and j.attempts < j.max_attempts
          then pg_catalog.jsonb_build_object('run_at', pg_catalog.to_char(j.run_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        else '{}'
      end,
      '{}'
    )
  from rows from (
    pg_catalog.unnest(_gworker_record.kinds),
    pg_catalog.unnest(_gworker_record.ids),
    pg_catalog.unnest(_gworker_record.tasks),
    pg_catalog.unnest(_gworker_record.attempts),
    pg_catalog.unnest(_gworker_record.waits),
    pg_catalog.unnest(_gworker_record.runs),
    pg_catalog.unnest(_gworker_record.errors),
    pg_catalog.unnest(_gworker_record.details)
  ) as r (kind, id, task, attempt, wait, run, error, detail)
  left join graphile_worker._private_jobs j on j.id = r.id
  left join graphile_worker._private_tasks t on t.id = j.task_id
  left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
  where not _gworker_record.changed or j.updated_at >= pg_catalog.now() and j.locked_at is null;
  return null;
exception when others then
  return sqlstate || ': ' || sqlerrm;
end $gw$;

-- Records what administrators did: one event for all jobs that it is about.
create function graphile_worker._gworker_record_action(kind text, jobs bigint[], details text)
returns text language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' as $gw$
begin
  insert into graphile_worker._gworker_events (kind, job_id, jobs, task, queue, key, details)
  select _gworker_record_action.kind, one.id, case when one.id is null then _gworker_record_action.jobs end, one.identifier, one.queue_name, one.key,
    _gworker_record_action.details::jsonb || pg_catalog.jsonb_build_object('database_user', session_user)
  from (select) as always
  left join (
    select given.id, t.identifier, q.queue_name, j.key
    from pg_catalog.unnest(_gworker_record_action.jobs) as given (id)
    left join graphile_worker._private_jobs j on j.id = given.id
    left join graphile_worker._private_tasks t on t.id = j.task_id
    left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
    where pg_catalog.cardinality(_gworker_record_action.jobs) = 1
  ) as one on true;
  return null;
exception when others then
  return sqlstate || ': ' || sqlerrm;
end $gw$;

-- Adds a worker's statistics of a minute. Those that come too late for _gworker_upkeep to
-- add them up count as of their hour, or their day.
create function graphile_worker._gworker_record_stats(
  worker text, age float8, tasks text[], completed bigint[], failed bigint[], permanently_failed bigint[], returned bigint[], snoozed bigint[],
  run_seconds float8[], wait_seconds float8[], runs text[], waits text[]
) returns void language sql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $gw$
  with minute as (
    select pg_catalog.now() - pg_catalog.make_interval(secs => _gworker_record_stats.age) as at
  ), span as (
    select case
        when m.at < pg_catalog.date_trunc('day', (pg_catalog.now() - interval '119 minutes') at time zone 'UTC') at time zone 'UTC' then 'day'
        when m.at < pg_catalog.date_trunc('hour', pg_catalog.now() - interval '4 minutes') then 'hour'
        else 'minute'
      end as name, m.at
    from minute m
  )
  insert into graphile_worker._gworker_stats (span, at, task, worker, completed, failed, permanently_failed, returned, snoozed, run_seconds, wait_seconds, runs, waits)
  select s.name, pg_catalog.date_trunc(s.name, s.at at time zone 'UTC') at time zone 'UTC', r.task,
    case when s.name = 'minute' then _gworker_record_stats.worker else '' end,
    r.completed, r.failed, r.permanently_failed, r.returned, r.snoozed, r.run_seconds, r.wait_seconds, r.runs::bigint[], r.waits::bigint[]
  from span s
  cross join rows from (
    pg_catalog.unnest(_gworker_record_stats.tasks),
    pg_catalog.unnest(_gworker_record_stats.completed),
    pg_catalog.unnest(_gworker_record_stats.failed),
    pg_catalog.unnest(_gworker_record_stats.permanently_failed),
    pg_catalog.unnest(_gworker_record_stats.returned),
    pg_catalog.unnest(_gworker_record_stats.snoozed),
    pg_catalog.unnest(_gworker_record_stats.run_seconds),
    pg_catalog.unnest(_gworker_record_stats.wait_seconds),
    pg_catalog.unnest(_gworker_record_stats.runs),
    pg_catalog.unnest(_gworker_record_stats.waits)
  ) as r (task, completed, failed, permanently_failed, returned, snoozed, run_seconds, wait_seconds, runs, waits)
$gw$;

-- Adds statistics of a span up to those of a longer one.
create function graphile_worker._gworker_add_up(shorter text, longer text, since timestamptz, until timestamptz)
returns void language sql security definer set search_path = pg_catalog, pg_temp as $gw$
  with given as materialized (
    select pg_catalog.date_trunc(_gworker_add_up.longer, s.at at time zone 'UTC') at time zone 'UTC' as start, s.*
    from graphile_worker._gworker_stats s
    where s.span = _gworker_add_up.shorter and s.at >= _gworker_add_up.since and s.at < _gworker_add_up.until
  ), runs as (
    select b.start, b.task, pg_catalog.array_agg(b.n order by b.slot) as bins
    from (
      select g.start, g.task, u.slot, pg_catalog.sum(u.n)::bigint as n
      from given g cross join pg_catalog.unnest(g.runs) with ordinality as u (n, slot)
      group by 1, 2, 3
    ) b
    group by 1, 2
  ), waits as (
    select b.start, b.task, pg_catalog.array_agg(b.n order by b.slot) as bins
    from (
      select g.start, g.task, u.slot, pg_catalog.sum(u.n)::bigint as n
      from given g cross join pg_catalog.unnest(g.waits) with ordinality as u (n, slot)
      group by 1, 2, 3
    ) b
    group by 1, 2
  ), totals as (
    select g.start, g.task, pg_catalog.sum(g.completed) as completed, pg_catalog.sum(g.failed) as failed, pg_catalog.sum(g.permanently_failed) as permanently_failed,
      pg_catalog.sum(g.returned) as returned, pg_catalog.sum(g.snoozed) as snoozed, pg_catalog.sum(g.run_seconds) as run_seconds, pg_catalog.sum(g.wait_seconds) as wait_seconds
    from given g
    group by 1, 2
  )
  insert into graphile_worker._gworker_stats (span, at, task, worker, completed, failed, permanently_failed, returned, snoozed, run_seconds, wait_seconds, runs, waits)
  select _gworker_add_up.longer, t.start, t.task, '', t.completed, t.failed, t.permanently_failed, t.returned, t.snoozed, t.run_seconds, t.wait_seconds,
    coalesce(r.bins, '{}'), coalesce(w.bins, '{}')
  from totals t
  left join runs r on r.start = t.start and r.task = t.task
  left join waits w on w.start = t.start and w.task = t.task
$gw$;

-- Adds up and forgets statistics, makes the partitions of the coming days, and drops those
-- that are too old. One session does that at a time. It waits for locks shorter than
-- _gworker_record does, which waits behind it; and what locks the table of events comes
-- last, so that it is locked for a moment. Returns what could not be done, or null.
create function graphile_worker._gworker_upkeep(events_for interval, minutes_for interval, hours_for interval)
returns text language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' set timezone = 'UTC' as $gw$
declare
  home text;
  part text;
  problems text[];
  day timestamptz;
  hours_done timestamptz;
  days_done timestamptz;
  hours_end timestamptz := pg_catalog.date_trunc('hour', pg_catalog.now() - interval '5 minutes');
  days_end timestamptz := pg_catalog.date_trunc('day', pg_catalog.now() - interval '2 hours');
begin
  select n.nspname into home
  from graphile_worker._gworker_journal j
  join pg_catalog.pg_class c on c.oid = j.tableoid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace;
  if not pg_catalog.pg_try_advisory_xact_lock(1735878761, pg_catalog.hashtext(home)) then
    return null;
  end if;

  begin
    select j.hours_until, j.days_until into hours_done, days_done from graphile_worker._gworker_journal j for update;
    if hours_end > hours_done then
      perform graphile_worker._gworker_add_up('minute', 'hour', hours_done, hours_end);
      update graphile_worker._gworker_journal j set hours_until = hours_end;
    end if;
    if days_end > days_done then
      perform graphile_worker._gworker_add_up('hour', 'day', days_done, days_end);
      update graphile_worker._gworker_journal j set days_until = days_end;
    end if;
    delete from graphile_worker._gworker_stats s
    where s.span = 'minute' and s.at < least(pg_catalog.now() - _gworker_upkeep.minutes_for, hours_end);
    delete from graphile_worker._gworker_stats s
    where s.span = 'hour' and s.at < least(pg_catalog.now() - _gworker_upkeep.hours_for, days_end);
  exception when others then
    problems := problems || pg_catalog.format('adding up statistics: %s (%s)', sqlerrm, sqlstate);
  end;

  for day in
    select d from pg_catalog.generate_series(
      pg_catalog.date_trunc('day', pg_catalog.now()) - interval '1 day', pg_catalog.date_trunc('day', pg_catalog.now()) + interval '7 days', interval '1 day'
    ) as d
  loop
    part := '_gworker_events_' || pg_catalog.to_char(day, 'YYYYMMDD');
    if pg_catalog.to_regclass(pg_catalog.format('%I.%I', home, part)) is null then
      begin
        execute pg_catalog.format('create table %1$I.%2$I (like %1$I._gworker_events including all)', home, part);
        execute pg_catalog.format('alter table %1$I._gworker_events attach partition %1$I.%2$I for values from (%3$L) to (%4$L)',
          home, part, day, day + interval '1 day');
      exception when others then
        problems := problems || pg_catalog.format('making partition %s: %s (%s)', part, sqlerrm, sqlstate);
      end;
    end if;
  end loop;

  for part in
    select c.relname
    from graphile_worker._gworker_journal j
    join pg_catalog.pg_class this on this.oid = j.tableoid
    join pg_catalog.pg_class parent on parent.relnamespace = this.relnamespace and parent.relname = '_gworker_events'
    join pg_catalog.pg_inherits i on i.inhparent = parent.oid
    join pg_catalog.pg_class c on c.oid = i.inhrelid
    where c.relname::text ~ '^_gworker_events_[0-9]{8}$'
      and pg_catalog.to_timestamp(pg_catalog.right(c.relname, 8), 'YYYYMMDD') + interval '1 day' < pg_catalog.now() - _gworker_upkeep.events_for
    order by 1
  loop
    begin
      execute pg_catalog.format('drop table %I.%I', home, part);
    exception when others then
      problems := problems || pg_catalog.format('dropping partition %s: %s (%s)', part, sqlerrm, sqlstate);
    end;
  end loop;
  return pg_catalog.array_to_string(problems, '; ');
end $gw$;

-- They run with the rights of the schema's owner.
revoke all on function
  graphile_worker._gworker_record(text, boolean, text[], bigint[], text[], int[], float8[], float8[], text[], text[]),
  graphile_worker._gworker_record_action(text, bigint[], text),
  graphile_worker._gworker_record_stats(text, float8, text[], bigint[], bigint[], bigint[], bigint[], bigint[], float8[], float8[], text[], text[]),
  graphile_worker._gworker_add_up(text, text, timestamptz, timestamptz),
  graphile_worker._gworker_upkeep(interval, interval, interval)
from public;

do $gw$
begin
  perform graphile_worker._gworker_upkeep('7 days', '2 days', '90 days');
end $gw$;
-- +goose StatementEnd
