-- Cron: the rows of _private_known_crontabs, which say what is scheduled.

-- name: RegisterCrontab :exec
-- One at a time: who inserts several can meet another worker, of any runtime, that
-- inserts the same ones in another order.
insert into graphile_worker._private_known_crontabs (identifier, known_since)
values (@identifier::text, @known_since::timestamp with time zone)
on conflict do nothing;

-- name: KnownCrontabs :many
select k.identifier, k.known_since, k.last_execution
from graphile_worker._private_known_crontabs k
where k.identifier = any (@identifiers::text[]);

-- name: ScheduleCrontabs :many
-- Takes a minute for each of the identifiers whose minute it still is, and adds
-- their jobs. Where add is false, the minute is taken and no job is added. Empty
-- texts and 0 stand for "not given", flags come as a JSON array.
--
-- Every runtime's workers lock the rows of all items that are due, each in the order of
-- its own crontab. So this waits for none while it holds others: an identifier whose row
-- another session holds comes back as busy, and is to be asked for again, alone and
-- with wait.
with due as (
  select pg_catalog.unnest(@identifiers::text[]) as identifier, pg_catalog.unnest(@adds::boolean[]) as add,
    pg_catalog.unnest(@tasks::text[]) as task, pg_catalog.unnest(@payloads::text[]) as payload, pg_catalog.unnest(@queues::text[]) as queue,
    pg_catalog.unnest(@run_ats::timestamptz[]) as run_at, pg_catalog.unnest(@max_attempts::int[]) as max_attempts,
    pg_catalog.unnest(@keys::text[]) as key, pg_catalog.unnest(@key_modes::text[]) as key_mode,
    pg_catalog.unnest(@priorities::int[]) as priority, pg_catalog.unnest(@flags::text[]) as flags,
    pg_catalog.generate_subscripts(@identifiers::text[], 1) as place
), known as materialized (
  select k.identifier
  from graphile_worker._private_known_crontabs k
  where k.identifier = any (@identifiers::text[]) and not @wait::boolean
), free as materialized (
  select k.identifier
  from graphile_worker._private_known_crontabs k
  where k.identifier = any (@identifiers::text[]) and not @wait::boolean
  for update skip locked
), busy as materialized (
  select k.identifier from known k where k.identifier not in (select f.identifier from free f)
), taken as (
  insert into graphile_worker._private_known_crontabs as k (identifier, known_since, last_execution)
  select d.identifier, @minute::timestamp with time zone, @minute::timestamp with time zone
  from due d
  where d.identifier not in (select b.identifier from busy b)
  order by d.identifier
  on conflict (identifier) do update set last_execution = excluded.last_execution
  where k.last_execution is null or k.last_execution < excluded.last_execution
  returning k.identifier
)
select s.identifier::text as identifier, j.id as job_id, false as busy
from (
  select d.identifier, d.task, d.payload, d.queue, d.run_at, d.max_attempts, d.key, d.key_mode, d.priority, d.flags
  from due d join taken t on t.identifier = d.identifier
  where d.add
  order by d.place
) s
cross join lateral graphile_worker.add_job(
  identifier => s.task::text,
  payload => cast(s.payload::text as json),
  queue_name => nullif(s.queue::text, ''),
  run_at => s.run_at::timestamptz,
  max_attempts => nullif(s.max_attempts::int, 0),
  job_key => nullif(s.key::text, ''),
  priority => s.priority::int,
  flags => case when s.flags::text <> '' then array(select pg_catalog.json_array_elements_text(cast(s.flags::text as json))) end,
  job_key_mode => nullif(s.key_mode::text, '')
) j
union all
select b.identifier, 0, true from busy b;
