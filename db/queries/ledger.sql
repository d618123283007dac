-- The migrator: what is recorded, what is there, and one run at a time. It runs
-- these texts through database/sql, since goose does, so they take no more than
-- what any driver can pass.

-- name: ServerVersion :one
select pg_catalog.current_setting('server_version_num')::int as version;

-- name: TryLockMigrations :one
-- Held until the transaction ends, and not until the session does: a session is
-- not the caller's own behind a transaction pooler.
select pg_catalog.pg_try_advisory_xact_lock(@space::int, pg_catalog.hashtext(@schema::text)) as locked;

-- name: LedgerShape :one
select
  exists (select from pg_catalog.pg_namespace n where n.nspname = @schema::text) as has_schema,
  exists (
    select from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = @schema::text and c.relname = 'migrations' and c.relkind in ('r', 'p')
  ) as has_ledger,
  exists (
    select from pg_catalog.pg_attribute a
    join pg_catalog.pg_class c on c.oid = a.attrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = @schema::text and c.relname = 'migrations' and c.relkind in ('r', 'p')
      and a.attname = 'breaking' and not a.attisdropped
  ) as has_breaking,
  coalesce((
    select pg_catalog.string_agg(a.attname::text || ' '::text || pg_catalog.format_type(a.atttypid, null), ', ' order by a.attnum)
    from pg_catalog.pg_attribute a
    join pg_catalog.pg_class c on c.oid = a.attrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = @schema::text and c.relname = 'migrations' and c.relkind in ('r', 'p')
      and a.attnum > 0 and not a.attisdropped
  ), '')::text as columns;

-- name: LedgerRows :many
-- Times are microseconds since 1970: as text, which is how they come without
-- prepared statements, they would depend on the session's datestyle. An infinite time, which
-- no bigint can be, is the year 1: the zero time of Go, as infinite times of jobs are.
select m.id, (case when pg_catalog.isfinite(m.ts) then extract(epoch from m.ts)::float8 * 1000000::float8 else -62135596800000000::float8 end)::bigint as applied_at, m.breaking from graphile_worker.migrations m order by m.id;

-- name: EarlyLedgerRows :many
-- For a ledger from before there was a column "breaking".
select m.id, (case when pg_catalog.isfinite(m.ts) then extract(epoch from m.ts)::float8 * 1000000::float8 else -62135596800000000::float8 end)::bigint as applied_at from graphile_worker.migrations m order by m.id;

-- name: MarkBreaking :exec
update graphile_worker.migrations m set breaking = true where m.id = any (@ids::int[]);

-- name: InsertLedgerRow :exec
-- The row is there already, as every migration file inserts its own first.
insert into graphile_worker.migrations (id, breaking) values (@id::int, @breaking::boolean)
on conflict (id) do nothing;

-- name: LockedJobs :one
-- What keeps revision 11 from running; before it, the view is a table.
select exists (
  select from graphile_worker.jobs j where j.locked_at >= pg_catalog.now() - interval '4 hours'
) as found;

-- name: SchemaMarks :one
-- Which runtime's functions are installed, as far as their texts tell.
select
  coalesce(pg_catalog.bool_or(p.proname = 'add_job' and position('GWNOR' in p.prosrc) > 0), false)::boolean as key_locks,
  coalesce(pg_catalog.bool_or(p.proname = 'add_jobs' and position('-- made by gworker' in p.prosrc) > 0), false)::boolean
    as own_adding,
  coalesce(pg_catalog.bool_or(position('-- made by gworker' in p.prosrc) > 0), false)::boolean as own
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = @schema::text;

-- name: SchemaObjects :many
-- A line an object, of names and types only: what else the catalog prints
-- differs from one PostgreSQL to the next. Those of gworker's own (history.sql) are left out.
select o.line::text as line
from (
  select c.relnamespace as home,
    case c.relkind when 'v' then 'view ' when 'c' then 'type ' else 'table ' end || c.relname::text as line
  from pg_catalog.pg_class c
  where c.relkind in ('r', 'p', 'v', 'c')
  union all
  select c.relnamespace,
    'column ' || c.relname::text || '.' || a.attname::text || ' ' || t.typname::text
  from pg_catalog.pg_attribute a
  join pg_catalog.pg_class c on c.oid = a.attrelid
  join pg_catalog.pg_type t on t.oid = a.atttypid
  where c.relkind in ('r', 'p', 'v', 'c') and a.attnum > 0 and not a.attisdropped
  union all
  select k.connamespace, 'constraint ' || c.relname::text || '.' || k.conname::text
  from pg_catalog.pg_constraint k
  join pg_catalog.pg_class c on c.oid = k.conrelid
  union all
  select c.relnamespace, 'index ' || c.relname::text || '.' || x.relname::text
  from pg_catalog.pg_index i
  join pg_catalog.pg_class c on c.oid = i.indrelid
  join pg_catalog.pg_class x on x.oid = i.indexrelid
  union all
  select p.pronamespace, 'function ' || p.proname::text || '(' || coalesce((
      select pg_catalog.string_agg(t.typname::text, ', ' order by a.place)
      from pg_catalog.unnest(p.proargtypes::oid[]) with ordinality a (type, place)
      join pg_catalog.pg_type t on t.oid = a.type
    ), '') || ')'
  from pg_catalog.pg_proc p
) o
join pg_catalog.pg_namespace n on n.oid = o.home
where n.nspname = @schema::text and o.line !~ '^[a-z]+ _?gworker_'::text
order by 1;
