-- The doctor: what the server, the schema and the queue look like. Everything
-- here reads, and no more: it runs in read-only transactions. Ages are seconds,
-- as numbers, so that neither clocks nor formats of times come between, and an infinite time
-- fails none (see admin.sql).

-- name: DoctorServer :one
select
  pg_catalog.current_setting('server_version_num')::int as version_num,
  pg_catalog.current_setting('server_version')::text as version,
  (extract(epoch from pg_catalog.clock_timestamp())::float8 * 1000000::float8)::bigint as now_us,
  pg_catalog.pg_is_in_recovery()::boolean as standby,
  (pg_catalog.current_setting('default_transaction_read_only') = 'on')::boolean as read_only,
  pg_catalog.pg_backend_pid()::int as pid,
  current_user::text as role,
  pg_catalog.current_database()::text as database;

-- name: DoctorClock :one
select (extract(epoch from pg_catalog.clock_timestamp())::float8 * 1000000::float8)::bigint as now_us, pg_catalog.pg_backend_pid()::int as pid;

-- name: DoctorSettings :many
-- As they are for this session: what was set for the role or the database is in
-- them, and a time has its unit apart.
select s.name::text as name, coalesce(s.setting, '')::text as setting, coalesce(s.unit, '')::text as unit, s.source::text as source
from pg_catalog.pg_settings s
where s.name in (
  'autovacuum', 'track_counts', 'max_connections', 'superuser_reserved_connections', 'reserved_connections',
  'client_encoding', 'server_encoding', 'default_transaction_isolation',
  'statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout'
);

-- name: DoctorRoleSettings :many
-- What is set for this database, for the session's role, and for others that can use
-- the schema; "role" is empty where it is set for all of them. What is set for the
-- role in this database comes before what is set for it in all.
select distinct on (1, 4)
  coalesce(r.rolname::text, '')::text as role,
  coalesce(r.rolname = session_user, false)::boolean as own,
  (s.setdatabase <> 0::oid)::boolean as in_database,
  pg_catalog.split_part(c.line, '=', 1)::text as name,
  pg_catalog.substr(c.line, pg_catalog.strpos(c.line, '=') + 1)::text as value
from pg_catalog.pg_db_role_setting s
left join pg_catalog.pg_roles r on r.oid = s.setrole
cross join lateral pg_catalog.unnest(s.setconfig) c (line)
where (s.setdatabase = 0::oid or s.setdatabase = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()))
  and pg_catalog.split_part(c.line, '=', 1) in ('client_encoding', 'default_transaction_isolation', 'search_path')
  and (s.setrole = 0::oid or r.rolname = session_user or r.rolcanlogin and exists (
    select from pg_catalog.pg_namespace n
    where n.nspname = @schema::text and pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage')
  ))
order by 1, 4, 3 desc;

-- name: DoctorSearchPath :one
select pg_catalog.current_schemas(false)::text[] as schemas;

-- name: DoctorCreators :many
-- Who may create in which schema, other than its owner, superusers and the owner of
-- the queue; "role" is empty where everybody may.
select n.nspname::text as schema_name, coalesce(r.rolname::text, '')::text as role
from pg_catalog.pg_namespace n
cross join lateral pg_catalog.aclexplode(n.nspacl) a (grantor, grantee, privilege_type, is_grantable)
left join pg_catalog.pg_roles r on r.oid = a.grantee
where a.privilege_type = 'CREATE'
  and a.grantee <> n.nspowner
  and not coalesce(r.rolsuper, false)
  and not exists (select from pg_catalog.pg_namespace q where q.nspname = @schema::text and q.nspowner = a.grantee)
order by 1, 2;

-- name: DoctorConnections :one
-- Sessions of clients, as the server, the database and the role count them. Of
-- other roles' sessions one may not see the type.
select
  (
    select pg_catalog.count(*) from pg_catalog.pg_stat_activity a
    where coalesce(a.backend_type, 'client backend') = 'client backend' and a.datid is not null
  )::bigint as server_used,
  (
    select pg_catalog.count(*) from pg_catalog.pg_stat_activity a
    where coalesce(a.backend_type, 'client backend') = 'client backend' and a.datname = pg_catalog.current_database()
  )::bigint as database_used,
  (
    select pg_catalog.count(*) from pg_catalog.pg_stat_activity a
    where coalesce(a.backend_type, 'client backend') = 'client backend' and a.usename = session_user
  )::bigint as role_used,
  coalesce((select d.datconnlimit from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()), -1)::bigint as database_limit,
  coalesce((select r.rolconnlimit from pg_catalog.pg_roles r where r.rolname = session_user), -1)::bigint as role_limit;

-- name: DoctorOldTransactions :many
-- Those of this database that have a snapshot or have written. Of other roles'
-- one may not see since when: "seconds" is -1 then.
select
  a.pid::int as pid,
  coalesce(a.usename::text, '')::text as role,
  coalesce(a.application_name, '')::text as application,
  coalesce(a.state, '')::text as state,
  coalesce(extract(epoch from pg_catalog.clock_timestamp() - a.xact_start), -1)::float8 as seconds,
  coalesce(greatest(pg_catalog.age(a.backend_xmin), pg_catalog.age(a.backend_xid)), 0)::bigint as horizon
from pg_catalog.pg_stat_activity a
where a.datname = pg_catalog.current_database()
  and coalesce(a.backend_type, '') not in ('walsender', 'autovacuum worker')
  and (a.backend_xmin is not null or a.backend_xid is not null)
  and a.pid <> pg_catalog.pg_backend_pid()
order by a.xact_start, 6 desc;

-- name: DoctorHiddenSessions :one
-- Sessions of this database that the role may not look into.
select pg_catalog.count(*)::bigint as hidden
from pg_catalog.pg_stat_activity a
where a.datname = pg_catalog.current_database() and a.query = '<insufficient privilege>';

-- name: DoctorPreparedTransactions :many
select
  p.gid::text as gid,
  p.owner::text as role,
  coalesce(extract(epoch from pg_catalog.clock_timestamp() - p.prepared), 0)::float8 as seconds
from pg_catalog.pg_prepared_xacts p
where p.database = pg_catalog.current_database()
order by p.prepared;

-- name: DoctorReplicationSlots :many
select
  s.slot_name::text as name,
  s.slot_type::text as type,
  s.active::boolean as active,
  pg_catalog.age(s.xmin)::bigint as horizon
from pg_catalog.pg_replication_slots s
where s.xmin is not null
order by 4 desc;

-- name: DoctorStandbys :many
select
  r.pid::int as pid,
  coalesce(r.application_name, '')::text as application,
  pg_catalog.age(r.backend_xmin)::bigint as horizon
from pg_catalog.pg_stat_replication r
where r.backend_xmin is not null
order by 3 desc;

-- name: DoctorTables :many
-- The tables of the schema, whatever made them.
select
  c.relname::text as name,
  (c.relpersistence = 'u')::boolean as unlogged,
  (pg_catalog.row_security_active(c.oid) and not exists (
    select from pg_catalog.pg_policy p
    where p.polrelid = c.oid and p.polpermissive and p.polcmd in ('r', '*')
      and not pg_catalog.starts_with(p.polname::text, 'gworker_producer_')
      and exists (select from pg_catalog.unnest(p.polroles) r (oid) where r.oid = 0::oid or pg_catalog.pg_has_role(r.oid, 'usage'))
  ))::boolean as secured,
  (coalesce(pg_catalog.array_to_string(c.reloptions, ','), '') like '%autovacuum_enabled=%'
    and coalesce(pg_catalog.array_to_string(c.reloptions, ','), '') !~ 'autovacuum_enabled=(on|true|yes|1)')::boolean as unvacuumed,
  pg_catalog.has_any_column_privilege(c.oid, 'select')::boolean as may_select,
  pg_catalog.has_table_privilege(c.oid, 'insert')::boolean as may_insert,
  pg_catalog.has_table_privilege(c.oid, 'update')::boolean as may_update,
  pg_catalog.has_table_privilege(c.oid, 'delete')::boolean as may_delete,
  coalesce(pg_catalog.pg_relation_size(c.oid), 0)::bigint as bytes,
  greatest(c.reltuples, 0)::bigint as counted,
  coalesce(s.n_live_tup, 0)::bigint as live,
  coalesce(s.n_dead_tup, 0)::bigint as dead,
  coalesce(extract(epoch from pg_catalog.clock_timestamp() - greatest(s.last_autovacuum, s.last_vacuum)), -1)::float8 as vacuumed
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_stat_all_tables s on s.relid = c.oid
where n.nspname = @schema::text and c.relkind in ('r', 'p')
order by c.relname;

-- name: DoctorRights :one
select
  coalesce(pg_catalog.has_schema_privilege(n.oid, 'usage'), false)::boolean as usage,
  coalesce((select r.rolsuper or r.rolbypassrls from pg_catalog.pg_roles r where r.rolname = current_user), false)::boolean as bypass
from pg_catalog.pg_namespace n
where n.nspname = @schema::text;

-- name: DoctorFunctions :many
-- Those that all Graphile Workers share, and any of others: what gworker has of its own
-- (history.sql) is not part of what they may do.
select p.proname::text as name, p.prosrc::text as body, pg_catalog.has_function_privilege(p.oid, 'execute')::boolean as may_execute
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = @schema::text and p.proname::text !~ '^_?gworker_'
order by 1, 2;

-- name: DoctorTriggers :many
-- Triggers that were created on the tables, except those of foreign keys.
select c.relname::text as table_name, t.tgname::text as name
from pg_catalog.pg_trigger t
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = @schema::text and not t.tgisinternal
order by 1, 2;

-- name: DoctorInvalidIndexes :many
select c.relname::text as name
from pg_catalog.pg_index i
join pg_catalog.pg_class c on c.oid = i.indexrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = @schema::text and not (i.indisvalid and i.indisready)
order by 1;

-- name: DoctorForeignKeys :many
-- Those that point at the schema's jobs: each delete of a job looks them up.
select
  n.nspname::text as schema_name,
  c.relname::text as table_name,
  k.conname::text as name,
  exists (
    select from pg_catalog.pg_index i
    where i.indrelid = k.conrelid and i.indkey[0] = k.conkey[1] and i.indisvalid and i.indpred is null
  )::boolean as indexed
from pg_catalog.pg_constraint k
join pg_catalog.pg_class c on c.oid = k.conrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_class target on target.oid = k.confrelid
join pg_catalog.pg_namespace home on home.oid = target.relnamespace
where k.contype = 'f' and home.nspname = @schema::text and target.relname = '_private_jobs'
order by 1, 2, 3;

-- name: DoctorIdentities :many
-- "used" is null where nothing was handed out yet, or the role may not look.
select
  c.relname::text as table_name,
  a.attname::text as column_name,
  coalesce(s.last_value, 0)::bigint as used,
  least(s.max_value, case t.typname when 'int2' then 32767 when 'int4' then 2147483647 else s.max_value end)::bigint as last
from pg_catalog.pg_depend d
join pg_catalog.pg_class q on q.oid = d.objid and q.relkind = 'S'
join pg_catalog.pg_class c on c.oid = d.refobjid
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = d.refobjsubid
join pg_catalog.pg_type t on t.oid = a.atttypid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_namespace qn on qn.oid = q.relnamespace
join pg_catalog.pg_sequences s on s.schemaname = qn.nspname and s.sequencename = q.relname
where d.classid = 'pg_catalog.pg_class'::regclass::oid
  and d.refclassid = 'pg_catalog.pg_class'::regclass::oid
  and d.deptype in ('a', 'i')
  and n.nspname = @schema::text
order by 1, 2;

-- name: DoctorJobs :one
-- One walk over all jobs. A job is runnable unless its queue is locked by another;
-- it waits since its time came, or since it was added if that was later.
select
  pg_catalog.count(*)::bigint as total,
  (pg_catalog.count(*) filter (where j.locked_at is not null))::bigint as running,
  (pg_catalog.count(*) filter (where j.is_available and j.run_at <= pg_catalog.now()))::bigint as due,
  (pg_catalog.count(*) filter (where j.is_available and j.run_at > pg_catalog.now()))::bigint as later,
  (pg_catalog.count(*) filter (where j.locked_at is null and j.attempts >= j.max_attempts))::bigint as failed,
  coalesce(extract(epoch from pg_catalog.now()) - extract(epoch from pg_catalog.min(j.updated_at) filter (where j.locked_at is null and j.attempts >= j.max_attempts)), 0)::float8
    as oldest_failure,
  coalesce(extract(epoch from pg_catalog.now()) - extract(epoch from pg_catalog.max(j.updated_at) filter (where j.locked_at is null and j.attempts >= j.max_attempts)), 0)::float8
    as newest_failure
from graphile_worker._private_jobs j;

-- name: DoctorFailedTasks :many
select t.identifier::text as task, pg_catalog.count(*)::bigint as jobs
from graphile_worker._private_jobs j
join graphile_worker._private_tasks t on t.id = j.task_id
where j.locked_at is null and j.attempts >= j.max_attempts
group by t.identifier
order by 2 desc, 1
limit @most::int;

-- name: DoctorWaitingTasks :many
-- What could run now, by task, the longest wait first.
select
  t.identifier::text as task,
  pg_catalog.count(*)::bigint as jobs,
  (extract(epoch from pg_catalog.now()) - extract(epoch from pg_catalog.min(greatest(j.run_at, j.created_at))))::float8 as seconds
from graphile_worker._private_jobs j
join graphile_worker._private_tasks t on t.id = j.task_id
where j.is_available
  and j.run_at <= pg_catalog.now()
  and (
    j.job_queue_id is null
    or exists (select from graphile_worker._private_job_queues q where q.id = j.job_queue_id and q.is_available)
  )
group by t.identifier
order by 3 desc, 1;

-- name: DoctorWorkers :many
-- Who is registered, and what they say of themselves, if they do.
select
  w.id::text as id,
  (extract(epoch from pg_catalog.now()) - extract(epoch from w.last_heartbeat_at))::float8 as seconds,
  coalesce(w.metadata ->> 'host'::text, w.metadata ->> 'hostname'::text, '')::text as host,
  coalesce(w.metadata ->> 'pid'::text, '')::text as pid,
  coalesce(case when pg_catalog.jsonb_typeof(w.metadata -> 'stale_after_seconds'::text) = 'number'
    then (w.metadata ->> 'stale_after_seconds'::text)::float8 end, 0)::float8 as stale_after,
  (pg_catalog.jsonb_typeof(w.metadata -> 'tasks'::text) is not distinct from 'array')::boolean as tells_tasks,
  case when pg_catalog.jsonb_typeof(w.metadata -> 'tasks'::text) = 'array'
    then array(select pg_catalog.jsonb_array_elements_text(w.metadata -> 'tasks'::text)) else '{}' end::text[] as tasks
from graphile_worker._private_workers w
order by w.last_heartbeat_at;

-- name: DoctorLocks :many
-- Who holds what, for how long at most, and how much of that is old.
select
  coalesce(h.locked_by, '')::text as worker,
  (pg_catalog.count(*) filter (where h.job))::bigint as jobs,
  (pg_catalog.count(*) filter (where not h.job))::bigint as queues,
  (pg_catalog.count(*) filter (where h.job and h.locked_at < pg_catalog.now() - pg_catalog.make_interval(secs => @old::float8)))::bigint as old_jobs,
  (pg_catalog.count(*) filter (where not h.job and h.locked_at < pg_catalog.now() - pg_catalog.make_interval(secs => @old::float8)))::bigint as old_queues,
  coalesce(extract(epoch from pg_catalog.now()) - extract(epoch from pg_catalog.min(h.locked_at)), 0)::float8 as seconds
from (
  select j.locked_by, j.locked_at, true as job from graphile_worker._private_jobs j where j.locked_at is not null
  union all
  select q.locked_by, q.locked_at, false from graphile_worker._private_job_queues q where q.locked_at is not null
) h
group by h.locked_by
order by 4 desc, 1;

-- name: DoctorIdleQueues :many
-- Queues that are locked for longer than a statement takes, and no job of them is.
select
  q.id::int as id,
  q.queue_name::text as name,
  coalesce(q.locked_by, '')::text as worker,
  (extract(epoch from pg_catalog.now()) - extract(epoch from q.locked_at))::float8 as seconds
from graphile_worker._private_job_queues q
where q.locked_at < pg_catalog.now() - pg_catalog.make_interval(secs => @seconds::float8)
  and not exists (
    select from graphile_worker._private_jobs j where j.job_queue_id = q.id and j.locked_at is not null
  )
order by q.locked_at;
