-- Held claims: jobs that a worker holds by the row locks of an open transaction
-- instead of by writing locked_by. All of these but RelockJobs run inside of such
-- a transaction, whose rows nobody else can change: so they name no lock. What
-- the transaction writes becomes true with its commit, and where it never
-- commits, nothing has happened to the jobs at all.

-- name: BeginHold :one
-- The first statement of a held claim's transaction. Should this process be stopped,
-- the server ends the session after idle_timeout, and the jobs are free again. The
-- other settings keep one plan for every claim, whatever the statistics say at the
-- moment: the walk of the index in its order. Planning ClaimJobs each time would cost
-- as much as carrying it out, and its costs, estimated for a claim of unknown size,
-- would have it compiled. locked_at is when the jobs count as locked: now() stays
-- the same until the transaction ends.
select
  pg_catalog.set_config('idle_in_transaction_session_timeout', @idle_timeout::text, true) as idle_timeout,
  pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true) as plan_cache_mode,
  pg_catalog.set_config('enable_seqscan', 'off', true) as enable_seqscan,
  pg_catalog.set_config('enable_bitmapscan', 'off', true) as enable_bitmapscan,
  pg_catalog.set_config('jit', 'off', true) as jit,
  pg_catalog.now()::timestamp with time zone as locked_at;

-- name: NameTasks :many
-- The names of the tasks of jobs that are held.
select t.id, t.identifier from graphile_worker._private_tasks t where t.id = any (@ids::int[]);

-- name: CompleteHeldJobs :exec
delete from graphile_worker._private_jobs j where j.id = any (@ids::bigint[]);

-- name: FailHeldJobs :many
-- As FailJobs. Waits are counted from now on, and now() is when the jobs were claimed.
-- Where a trigger keeps the old row, written is false.
with outcome as (
  select pg_catalog.unnest(@ids::bigint[]) as id, pg_catalog.unnest(@held_attempts::int[]) as attempt, pg_catalog.unnest(@errors::text[]) as error, pg_catalog.unnest(@delays::float8[]) as delay,
    pg_catalog.unnest(@finals::boolean[]) as final, pg_catalog.unnest(@capped::boolean[]) as capped, pg_catalog.unnest(@payloads::text[]) as payload
)
update graphile_worker._private_jobs j
set last_error = o.error,
  attempts = case when o.final and not o.capped then greatest(j.attempts + 1, j.max_attempts) else j.attempts + 1 end,
  max_attempts = case when o.capped then least(j.attempts + 1, j.max_attempts) else j.max_attempts end,
  payload = coalesce(nullif(o.payload, '')::json, j.payload),
  run_at = greatest(coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.statement_timestamp()), j.run_at)
    + case when o.delay < 0::float8 then pg_catalog.exp(least(j.attempts + 1, 10)::float8) else o.delay end * interval '1 second',
  updated_at = pg_catalog.statement_timestamp()
from outcome o
where j.id = o.id
returning j.id, j.run_at, (j.attempts >= j.max_attempts)::boolean as permanent, (j.attempts >= o.attempt)::boolean as written;

-- name: PutBackHeldJobs :many
-- As ReturnJobs. The attempt was never counted. Where a trigger keeps the old
-- row, written is false.
with outcome as (
  select pg_catalog.unnest(@ids::bigint[]) as id, pg_catalog.unnest(@delays::float8[]) as delay, pg_catalog.unnest(@payloads::text[]) as payload
)
update graphile_worker._private_jobs j
set payload = coalesce(nullif(o.payload, '')::json, j.payload),
  run_at = case
    when o.delay > 0::float8
    then greatest(j.run_at, coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.statement_timestamp()) + o.delay * interval '1 second')
    else j.run_at
  end,
  updated_at = pg_catalog.statement_timestamp()
from outcome o
where j.id = o.id
returning j.id, (
  o.delay <= 0::float8 or j.run_at > coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.statement_timestamp())
)::boolean as written;

-- name: SpillJobs :many
-- From held to locked: what the claim would have written otherwise. Tells which are.
-- Where a trigger keeps a row as it was the job is not locked; its queue may be then.
with locked_queues as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = coalesce(sqlc.narg(lock_at)::timestamp with time zone, pg_catalog.now())
  where q.id = any (array(select h.job_queue_id from graphile_worker._private_jobs h where h.id = any (@ids::bigint[])))
  returning q.id, q.locked_at
), spilled as (
  update graphile_worker._private_jobs j
  set locked_by = @worker_id::text, locked_at = coalesce(sqlc.narg(lock_at)::timestamp with time zone, pg_catalog.now()), attempts = j.attempts + 1
  where j.id = any (@ids::bigint[])
    and (j.job_queue_id is null or j.job_queue_id in (select q.id from locked_queues q where q.locked_at is not null))
  returning j.id, j.locked_at
)
select s.id from spilled s where s.locked_at is not null;

-- name: AwaitedJobs :many
-- Those of jobs whose rows another session waits for, until this transaction ends. Who
-- waits for a row has its lock among the heavyweight ones meanwhile, by its place. Where
-- several do, it is the first of them.
select j.id
from graphile_worker._private_jobs j
where j.id = any (@ids::bigint[])
  and exists (
    select
    from pg_catalog.pg_locks w
    join pg_catalog.pg_locks r on r.pid = w.pid and r.locktype = 'tuple' and r.granted
    where w.locktype = 'transactionid' and not w.granted
      and w.transactionid::text = (pg_catalog.txid_current_if_assigned() % 4294967296::bigint)::text
      and r.relation = j.tableoid
      and r.page::text = pg_catalog.split_part(pg_catalog.btrim(j.ctid::text, '()'), ',', 1)
      and r.tuple::text = pg_catalog.split_part(pg_catalog.btrim(j.ctid::text, '()'), ',', 2)
  );

-- name: MaySeeLocks :one
-- Whether this role may run AwaitedJobs, whose failure would end the transaction.
select (
  pg_catalog.has_table_privilege('pg_catalog.pg_locks', 'select') and pg_catalog.has_function_privilege('pg_catalog.pg_lock_status()', 'execute')
)::boolean as may_see_locks;

-- name: LockUnchangedJobs :many
-- SpillJobs for those of jobs that were to be deleted, to fail or to wait whose rows are
-- still as they were when they were held, because a trigger has kept them so.
with mine as (
  select pg_catalog.unnest(@ids::bigint[]) as id, pg_catalog.unnest(@attempts::int[]) as attempt, pg_catalog.unnest(@run_ats::timestamp with time zone[]) as run_at
), spilled as (
  update graphile_worker._private_jobs j
  set locked_by = @worker_id::text, locked_at = coalesce(sqlc.narg(lock_at)::timestamp with time zone, pg_catalog.now()), attempts = j.attempts + 1
  from mine m
  where j.id = m.id and j.attempts = m.attempt - 1 and j.run_at <= m.run_at
  returning j.id, j.job_queue_id, j.locked_at
), locked_queues as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = coalesce(sqlc.narg(lock_at)::timestamp with time zone, pg_catalog.now())
  from spilled s
  where q.id = s.job_queue_id and s.locked_at is not null
)
select s.id from spilled s where s.locked_at is not null;

-- name: OutcomesMayBeRefused :one
-- Whether there is something of the user's that may refuse what the end of a held claim
-- writes: triggers of updates and deletes (foreign keys have some), rules, policies that
-- this role is under, more constraints and indexes than the schema's own, or an encoding
-- that cannot hold every text. The flags of pg_class would not do: relhastriggers stays
-- after a schema's own triggers of old are gone, and every schema has row level security.
select (
  pg_catalog.current_setting('server_encoding') <> 'UTF8'
  or exists (
    select from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = @schema::text and c.relname in ('_private_jobs', '_private_job_queues')
      and (
        pg_catalog.row_security_active(c.oid)
        or exists (
          select from pg_catalog.pg_trigger t where t.tgrelid = c.oid and (t.tgtype & '24'::int2) <> '0'::int2
        )
        or exists (select from pg_catalog.pg_rewrite r where r.ev_class = c.oid)
        or (select pg_catalog.count(*) from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype in ('c', 'x')) > 2
        or (select pg_catalog.count(*) from pg_catalog.pg_index i where i.indrelid = c.oid) > 4
      )
  )
)::boolean as may_be_refused;

-- name: RemainingJobs :many
-- Those of jobs that were deleted that are still there.
select j.id from graphile_worker._private_jobs j where j.id = any (@ids::bigint[]);

-- name: AnnounceHeldJobs :exec
-- For jobs that go back and could run at once.
select pg_catalog.pg_notify('jobs:insert', pg_catalog.json_build_object('r', pg_catalog.random(), 'count', @count::int)::text);

-- name: RelockJobs :many
-- After a held claim was lost with its connection: locks those of its jobs that
-- are as they were when they were held, in the name of that claim, and finds those
-- whose lock was written after all. It waits for whoever holds such a row at this
-- moment, which may be the lost session, until the server notices its end.
with mine as (
  select pg_catalog.unnest(@ids::bigint[]) as id, pg_catalog.unnest(@attempts::int[]) as attempt, pg_catalog.unnest(@revisions::int[]) as revision,
    pg_catalog.unnest(@run_ats::timestamp with time zone[]) as run_at, pg_catalog.unnest(@locked_ats::timestamp with time zone[]) as locked_at
), found as materialized (
  select j.id, j.job_queue_id, m.locked_at, m.attempt
  from graphile_worker._private_jobs j
  join mine m on m.id = j.id
  where (
      j.locked_at is null and j.attempts = m.attempt - 1 and j.revision = m.revision and j.run_at = m.run_at
      or j.locked_by = @worker_id::text and j.locked_at = m.locked_at
    )
    and (
      j.job_queue_id is null
      or (
        select q.locked_at is null or q.locked_by = @worker_id::text and q.locked_at = m.locked_at
        from graphile_worker._private_job_queues q
        where q.id = j.job_queue_id
        for update
      )
    )
  order by j.id
  for update of j
), relocked as (
  update graphile_worker._private_jobs j
  set locked_by = @worker_id::text, locked_at = f.locked_at,
    attempts = case when j.locked_at is null then f.attempt else j.attempts end
  from found f
  where j.id = f.id
  returning j.id, f.job_queue_id, f.locked_at, (j.locked_at is not null)::boolean as locked
), locked_queues as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = r.locked_at
  from relocked r
  where q.id = r.job_queue_id and r.locked
)
select f.id, coalesce((select r.locked from relocked r where r.id = f.id), false)::boolean as locked from found f;
