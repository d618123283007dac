-- What a worker asks on its way to a listener.

-- name: ServerIdentity :one
-- The same for two connections exactly if they lead to one database, whatever
-- names they used. The time is in microseconds since 1970.
select
  (extract(epoch from pg_catalog.pg_postmaster_start_time())::float8 * 1000000::float8)::bigint as started_at,
  (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())::bigint as database_oid,
  pg_catalog.pg_backend_pid()::int as pid;
