-- What a client asks once, before its first statement: whether it may work on the
-- schema, and sees what is there.

-- name: SchemaReach :one
-- Reads the catalog only, so it cannot fail for want of a right or of the schema. A
-- table is hidden if row level security is on for this role and no policy lets it read
-- the table's rows, and read_only if none lets it change them as a worker does. (A
-- producer's policies do not: they show it what it adds.) What restrictive policies leave
-- of that cannot be said. policies_fail: statements that a policy concerns are errors.
-- ruled: rules of the user's rewrite statements on the jobs or queues.
select
  current_user::text as role,
  coalesce(pg_catalog.bool_or(c.relname = 'migrations'), false)::boolean as installed,
  coalesce(pg_catalog.bool_or(
    c.relname = 'migrations' and pg_catalog.has_schema_privilege(n.oid, 'usage')
    and (
      select pg_catalog.count(*) = 2
      from pg_catalog.pg_attribute a
      where a.attrelid = c.oid and a.attname in ('id', 'breaking') and not a.attisdropped
        and a.atttypid in ('int'::regtype, 'boolean'::regtype)
        and pg_catalog.has_column_privilege(c.oid, a.attnum, 'select')
    )
  ), false)::boolean as readable,
  coalesce(pg_catalog.bool_or(c.relname = '_private_jobs' and exists (
    select from pg_catalog.pg_attribute a
    where a.attrelid = c.oid and a.attname = 'payload' and not pg_catalog.has_column_privilege(c.oid, a.attnum, 'select')
  )), false)::boolean as payloads_hidden,
  coalesce(pg_catalog.min(pg_catalog.pg_get_userbyid(c.relowner)::text) filter (where c.relname = '_private_jobs'), '')::text as owner,
  coalesce(pg_catalog.string_agg(c.relname::text, ',' order by c.relname::text) filter (
    where c.relname <> 'migrations' and pg_catalog.row_security_active(c.oid)
      and not exists (
        select from pg_catalog.pg_policy p
        where p.polrelid = c.oid and p.polpermissive and p.polcmd in ('r', '*')
          and not pg_catalog.starts_with(p.polname::text, 'gworker_producer_')
          and exists (
            select from pg_catalog.unnest(p.polroles) r (oid)
            where r.oid = 0::oid or pg_catalog.pg_has_role(r.oid, 'usage')
          )
      )
  ), '')::text as hidden,
  coalesce(pg_catalog.string_agg(c.relname::text, ',' order by c.relname::text) filter (
    where c.relname in ('_private_jobs', '_private_job_queues') and pg_catalog.row_security_active(c.oid)
      and exists (
        select from pg_catalog.unnest(array['w', 'd']::"char"[]) need (command)
        where (need.command = 'w'::"char" or c.relname = '_private_jobs')
          and not exists (
            select from pg_catalog.pg_policy p
            where p.polrelid = c.oid and p.polpermissive and p.polcmd in (need.command, '*')
              and not pg_catalog.starts_with(p.polname::text, 'gworker_producer_')
              and exists (
                select from pg_catalog.unnest(p.polroles) r (oid)
                where r.oid = 0::oid or pg_catalog.pg_has_role(r.oid, 'usage')
              )
          )
      )
  ), '')::text as read_only,
  coalesce(pg_catalog.bool_or(
    c.relname <> 'migrations' and pg_catalog.current_setting('row_security') = 'off' and pg_catalog.row_security_active(c.oid)
  ), false)::boolean as policies_fail,
  coalesce(pg_catalog.bool_or(
    c.relname in ('_private_jobs', '_private_job_queues') and exists (select from pg_catalog.pg_rewrite r where r.ev_class = c.oid)
  ), false)::boolean as ruled
from pg_catalog.pg_namespace n
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relkind in ('r', 'p')
  and c.relname in ('migrations', '_private_jobs', '_private_tasks', '_private_job_queues')
where n.nspname = @schema::text;

-- name: NewestRevisions :one
select
  coalesce(pg_catalog.max(m.id), 0)::int as newest,
  coalesce(pg_catalog.max(m.id) filter (where m.breaking), 0)::int as breaking
from graphile_worker.migrations m;

-- name: SessionSettings :one
-- Settings of this session that decide what statements and their results mean.
select
  pg_catalog.current_setting('client_encoding')::text as client_encoding,
  pg_catalog.current_setting('server_encoding')::text as server_encoding,
  pg_catalog.current_setting('datestyle')::text as datestyle,
  pg_catalog.current_setting('array_nulls')::text as array_nulls;
