-- History: what happened to jobs, in tables of gworker's own (db/history). The functions
-- that write are of that schema too, since who runs jobs need not own the tables.

-- name: HistoryReach :one
-- What is there, and what this role may do with it. It is read from the catalogs alone, so
-- that nothing is refused. "due" says that the partition of a coming day is missing, so that
-- the tables were not seen to for a day.
select
  coalesce((
    select pg_catalog.substring(pg_catalog.obj_description(c.oid, 'pg_class'), '^gworker history ([0-9]{1,9})$')::int
    from pg_catalog.pg_class c
    where c.relnamespace = n.oid and c.relname = '_gworker_journal'
  ), 0)::int as version,
  coalesce((
    select pg_catalog.bool_and(pg_catalog.has_function_privilege(p.oid, 'execute'))
    from pg_catalog.pg_proc p
    where p.pronamespace = n.oid and p.proname in ('_gworker_record', '_gworker_record_stats', '_gworker_upkeep')
    having pg_catalog.count(*) = 3
  ), false)::boolean as records,
  coalesce((
    select pg_catalog.bool_and(pg_catalog.has_table_privilege(c.oid, 'select'))
    from pg_catalog.pg_class c
    where c.relnamespace = n.oid and c.relname in ('_gworker_journal', '_gworker_events', '_gworker_stats')
    having pg_catalog.count(*) = 3
  ), false)::boolean as reads,
  (not exists (
    select from pg_catalog.pg_class c
    where c.relnamespace = n.oid
      and c.relname = '_gworker_events_'::text || pg_catalog.to_char(pg_catalog.now() at time zone 'UTC' + interval '6 days', 'YYYYMMDD')
  ))::boolean as due,
  pg_catalog.has_schema_privilege(n.oid, 'create')::boolean as creates,
  current_user::text as role
from pg_catalog.pg_namespace n
where n.nspname = @schema::text;

-- name: InsertHistoryRow :exec
insert into graphile_worker._gworker_migrations (id) values (@id::int);

-- name: HistoryRows :many
select m.id from graphile_worker._gworker_migrations m order by m.id desc;

-- name: RecordRuns :one
-- The ends of runs, in the transaction that has changed their jobs. The answer is why they
-- are not recorded, or ''.
select coalesce(graphile_worker._gworker_record(
  @worker_id::text, @changed::boolean, @kinds::text[], @ids::bigint[], @tasks::text[], @attempts::int[], @waits::float8[], @runs::float8[],
  @errors::text[], @details::text[]
), '')::text as problem;

-- name: RecordAction :one
-- What an administrator did.
select coalesce(graphile_worker._gworker_record_action(@kind::text, @jobs::bigint[], @details::text), '')::text as problem;

-- name: RecordStats :exec
select graphile_worker._gworker_record_stats(
  @worker_id::text, @age::float8, @tasks::text[], @completed::bigint[], @failed::bigint[], @permanently_failed::bigint[], @returned::bigint[],
  @snoozed::bigint[], @run_seconds::float8[], @wait_seconds::float8[], @runs::text[], @waits::text[]
);

-- name: KeepHistory :one
-- The answer is what could not be done, or ''.
select coalesce(graphile_worker._gworker_upkeep(
  pg_catalog.make_interval(secs => @events_for::float8), pg_catalog.make_interval(secs => @minutes_for::float8),
  pg_catalog.make_interval(secs => @hours_for::float8)
), '')::text as problem;

-- name: JobEvents :many
-- The latest events about one job.
select e.at, e.seq, e.kind, e.job_id, e.jobs, e.task, e.queue, e.key, e.attempt, e.max_attempts, e.worker, e.wait_ms, e.run_ms, e.error, e.details
from graphile_worker._gworker_events e
where e.job_id = @id::bigint or e.jobs operator(pg_catalog.@>) array[@id::bigint]
order by e.at desc, e.seq desc
limit @most::int;

-- name: Events :many
-- Newest first, from before a place. Empty arguments are no condition.
select e.at, e.seq, e.kind, e.job_id, e.jobs, e.task, e.queue, e.key, e.attempt, e.max_attempts, e.worker, e.wait_ms, e.run_ms, e.error, e.details
from graphile_worker._gworker_events e
where (sqlc.narg(since)::timestamp with time zone is null or e.at >= sqlc.narg(since)::timestamp with time zone)
  and (sqlc.narg(until)::timestamp with time zone is null or e.at < sqlc.narg(until)::timestamp with time zone)
  and (sqlc.narg(before)::timestamp with time zone is null or (e.at, e.seq) < (sqlc.narg(before)::timestamp with time zone, @before_seq::bigint))
  and (pg_catalog.cardinality(@kinds::text[]) = 0 or e.kind = any (@kinds::text[]))
  and (pg_catalog.cardinality(@tasks::text[]) = 0 or e.task = any (@tasks::text[]))
  and (@queue::text = '' or e.queue = @queue::text)
  and (@key::text = '' or e.key = @key::text)
  and (@worker::text = '' or e.worker = @worker::text)
  and (@error::text = '' or pg_catalog.strpos(pg_catalog.lower(e.error), pg_catalog.lower(@error::text)) > 0)
order by e.at desc, e.seq desc
limit @most::int;

-- name: StatsReach :one
-- Up to when statistics were added up, by the database's clock.
select j.id, j.hours_until::timestamp with time zone as hours_until, j.days_until::timestamp with time zone as days_until,
  pg_catalog.now()::timestamp with time zone as now
from graphile_worker._gworker_journal j;

-- name: TaskStats :many
-- Statistics of the given spans and times.
with wanted as (
  select pg_catalog.unnest(@spans::text[]) as span, pg_catalog.unnest(@sinces::timestamp with time zone[]) as since,
    pg_catalog.unnest(@untils::timestamp with time zone[]) as until
)
select s.at::timestamp with time zone as at, s.task, s.completed, s.failed, s.permanently_failed, s.returned, s.snoozed, s.run_seconds, s.wait_seconds, s.runs, s.waits
from wanted w
join graphile_worker._gworker_stats s on s.span = w.span and s.at >= w.since and s.at < w.until
where (pg_catalog.cardinality(@tasks::text[]) = 0 or s.task = any (@tasks::text[]));

-- name: HistorySize :many
-- The tables of history, partitions apart, with their estimated rows.
select c.relname::text as name, greatest(c.reltuples::bigint, pg_catalog.pg_stat_get_live_tuples(c.oid), 0)::bigint as rows, pg_catalog.pg_total_relation_size(c.oid)::bigint as bytes
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = @schema::text and c.relkind = 'r' and c.relname::text like '\_gworker\_%'
order by 1;
