-- Rights: what a role is to be given, and what it has been.

-- name: RightsTarget :one
select
  exists (select from pg_catalog.pg_roles r where r.rolname = @role::text) as role_exists,
  exists (
    select from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = @schema::text and c.relname::text like '\_private\_%'
      and pg_catalog.pg_get_userbyid(c.relowner) = @role::text
  ) as is_owner;

-- name: RightsTables :many
select c.relname::text as name, c.relrowsecurity as secured
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = @schema::text and c.relkind in ('r', 'p') and c.relname::text like '\_private\_%'
order by 1;

-- name: RightsFunctions :many
-- Those by which unique jobs are added. There are none without the tables of history.
select distinct p.proname::text as name
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = @schema::text and p.proname in (
  'gworker_add_unique', '_gworker_unique_text', '_gworker_unique_key', '_gworker_unique_take', '_gworker_unique_settle', '_gworker_unique_job'
)
order by 1;

-- name: RightsPolicies :many
-- Those that were made for this role alone.
select c.relname::text as table_name, p.polname::text as name
from pg_catalog.pg_policy p
join pg_catalog.pg_class c on c.oid = p.polrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_roles r on p.polroles = array[r.oid]
where n.nspname = @schema::text and r.rolname = @role::text and pg_catalog.starts_with(p.polname::text, 'gworker_')
order by 1, 2;
