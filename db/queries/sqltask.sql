-- Tasks that are SQL files: the frame around a file's own statements.

-- name: EnterSQLTask :one
-- What tells this transaction and this session from others, and the role of the
-- session, which hooks of the pool may have set.
select pg_catalog.pg_backend_pid() as pid, pg_catalog.now()::timestamp with time zone as began, pg_catalog.txid_current()::bigint as transaction_id,
  pg_catalog.current_setting('role')::text as session_role,
  pg_catalog.cardinality(array[
    pg_catalog.set_config('gworker.payload', @payload::text, true),
    pg_catalog.set_config('gworker.job_id', @job_id::text, true),
    pg_catalog.set_config('gworker.task', @task::text, true),
    pg_catalog.set_config('gworker.attempt', @attempt::text, true),
    pg_catalog.set_config('gworker.max_attempts', @max_attempts::text, true),
    pg_catalog.set_config('gworker.queue', @queue::text, true),
    pg_catalog.set_config('gworker.key', @key::text, true),
    pg_catalog.set_config('gworker.priority', @priority::text, true),
    pg_catalog.set_config('gworker.run_at', @run_at::text, true)
  ]) as settings;

-- name: CurrentTransaction :one
-- Another one than at the start: the file's statements have left it.
select pg_catalog.txid_current()::bigint as transaction_id;

-- name: HoldsJob :one
-- Whether the row is still locked by this claim, as everybody else sees it.
select exists (
  select from graphile_worker._private_jobs j
  where j.id = @id::bigint
    and j.locked_by = @worker_id::text
    and j.locked_at = @locked_at::timestamp with time zone
    and (j.attempts = @attempt::int or (j.key is null and j.attempts >= j.max_attempts))
)::boolean as holds;

-- name: PutOffUnlockedJob :exec
-- A file that unlocked its job and committed that: the failed attempt is stored as any
-- other is, unless the job was claimed again.
update graphile_worker._private_jobs j
set last_error = @error::text, updated_at = pg_catalog.now(),
  run_at = greatest(pg_catalog.now(), j.run_at) + pg_catalog.exp(least(@attempt::int, 10)::float8) * interval '1 second'
where j.id = @id::bigint and j.locked_at is null and j.attempts <= @attempt::int;

-- name: EndSession :exec
-- Ends what is left of a file whose statements could not be stopped. The server
-- process is known by its transaction, or by the file that it is still in.
select pg_catalog.pg_terminate_backend(a.pid)
from pg_catalog.pg_stat_activity a
where a.pid = @pid::int
  and (a.xact_start = @began::timestamp with time zone or a.query <> '' and pg_catalog.starts_with(@statements::text, a.query));

-- name: SetRole :exec
select pg_catalog.set_config('role', @role::text, false);

-- name: ResetSettings :exec
-- A file may have said "set" where it meant "set local".
reset all;

-- name: ResetRole :exec
reset session authorization;

-- name: CheckConstraintsNow :exec
-- What was deferred to the commit sees the settings of the file.
set constraints all immediate;
