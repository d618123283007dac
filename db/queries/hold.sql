-- Held claims: jobs that a worker holds by the row locks of an open transaction
-- instead of by writing locked_by. All of these but RelockJobs run inside of such
-- a transaction, whose rows nobody else can change: so they name no lock. What
-- the transaction writes becomes true with its commit, and where it never
-- commits, nothing has happened to the jobs at all.

-- name: BeginHold :one
-- The first statement of a held claim's transaction. Should this process be stopped,
-- the server ends the session after idle_timeout, and the jobs are free again. The
-- other settings keep one plan for every claim, whatever the statistics say at the
-- moment: the walk of the index in its order. Planning HoldJobs each time would cost
-- as much as carrying it out, and its costs, estimated for a claim of unknown size,
-- would have it compiled. locked_at is when the jobs count as locked: now() stays
-- the same until the transaction ends.
select
  pg_catalog.set_config('idle_in_transaction_session_timeout', @idle_timeout::text, true) as idle_timeout,
  pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true) as plan_cache_mode,
  pg_catalog.set_config('enable_seqscan', 'off', true) as enable_seqscan,
  pg_catalog.set_config('enable_bitmapscan', 'off', true) as enable_bitmapscan,
  pg_catalog.set_config('jit', 'off', true) as jit,
  pg_catalog.now()::timestamptz as locked_at;

-- name: HoldJobs :many
-- The walk and its order are those of ClaimJobs. Jobs of slow tasks get their lock
-- written at once; the others will get the same if it is written later. Its rows are
-- as those of ClaimJobs, but that attempts is without this one, whether it is written
-- or not, and that BeginHold tells locked_at. Where "seen" is -1 there are jobs whose lock
-- is not written although it should be, among the others.
with looked as materialized (
  select w.id, w.job_queue_id, pg_catalog.row_number() over (order by w.priority, w.run_at rows unbounded preceding) as position
  from graphile_worker._private_jobs w
  where w.is_available
    and w.run_at <= pg_catalog.now()
    and (w.priority, w.run_at) >= (
      coalesce(sqlc.narg(from_priority)::int2, '-32768'::int2), coalesce(sqlc.narg(from_run_at)::timestamptz, '-infinity')
    )
    and w.task_id = any (array(
      select t.id from graphile_worker._private_tasks t where t.identifier = any (@tasks::text[])
    ))
    and (w.job_queue_id is null or w.job_queue_id <> all (coalesce(sqlc.narg(blocked)::int[], '{}')))
  order by w.priority, w.run_at
  limit 1000
), firsts as materialized (
  select distinct on (l.job_queue_id) l.job_queue_id, l.id
  from looked l
  where l.job_queue_id is not null
  order by l.job_queue_id, l.position
), runnable as materialized (
  select j.*
  from graphile_worker._private_jobs j
  where j.is_available
    and j.run_at <= pg_catalog.now()
    and (j.priority, j.run_at) >= (
      coalesce(sqlc.narg(from_priority)::int2, '-32768'::int2), coalesce(sqlc.narg(from_run_at)::timestamptz, '-infinity')
    )
    and j.task_id = any (array(
      select t.id from graphile_worker._private_tasks t where t.identifier = any (@tasks::text[])
    ))
    and (
      j.job_queue_id is null
      or j.job_queue_id <> all (coalesce(sqlc.narg(blocked)::int[], '{}'))
      and j.id in (select f.id from firsts f)
      and (
        select q.is_available
        from graphile_worker._private_job_queues q
        where q.id = j.job_queue_id and q.is_available
        for update skip locked
      )
    )
  order by j.priority, j.run_at
  limit @max_jobs::int
  for update of j skip locked
), fits as materialized (
  select s.chosen,
    case
      when s.stored * 256 <= @max_bytes::bigint then s.chosen
      else (
        select greatest(pg_catalog.count(*) filter (where w.bytes <= @max_bytes::bigint), 1)
        from (select pg_catalog.sum(pg_catalog.octet_length(r.payload::text)) over (rows unbounded preceding) as bytes from runnable r) w
      )
    end as jobs
  from (select pg_catalog.count(*) as chosen, pg_catalog.sum(pg_catalog.pg_column_size(r.payload)) as stored from runnable r) s
), kept as not materialized (
  select r.* from runnable r limit (select f.jobs from fits f)
), summary as materialized (
  select s.chosen,
    case
      when s.chosen = 0 then (
        select pg_catalog.count(*) from firsts f
        where (select q.is_available from graphile_worker._private_job_queues q where q.id = f.job_queue_id)
      )
      when s.chosen > (select f.jobs from fits f) then 1
      else 0
    end as seen,
    case
      when s.chosen < @max_jobs::int then (select pg_catalog.count(*) from looked l where l.job_queue_id is not null)
      else 0
    end as looked
  from (select f.chosen from fits f) s
), slow as (
  select r.id, r.job_queue_id
  from kept r
  where pg_catalog.cardinality(@slow_tasks::text[]) > 0
    and r.task_id = any (array(
      select t.id from graphile_worker._private_tasks t where t.identifier = any (@slow_tasks::text[])
    ))
), written_queues as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = pg_catalog.now()
  where q.id = any (array(select s.job_queue_id from slow s))
  returning q.id, q.locked_at
), written_jobs as (
  update graphile_worker._private_jobs j
  set locked_by = @worker_id::text, locked_at = pg_catalog.now(), attempts = j.attempts + 1
  where j.id = any (array(
    select s.id from slow s
    where s.job_queue_id is null or s.job_queue_id in (select w.id from written_queues w where w.locked_at is not null)
  ))
  returning j.locked_at
)
select
  r.id, r.payload, r.priority, r.run_at, r.attempts, r.max_attempts, r.last_error,
  case when r.created_at <> r.run_at then r.created_at end as created_at,
  case when r.updated_at <> r.created_at then r.updated_at end as updated_at,
  r.key, case when r.revision <> 0 then r.revision end as revision, r.flags, r.task_id,
  case
    when r.job_queue_id is not null
    then (select q.queue_name from graphile_worker._private_job_queues q where q.id = r.job_queue_id)
  end as queue,
  case
    when (select pg_catalog.count(*) from written_jobs w where w.locked_at is not null) < (select pg_catalog.count(*) from slow) then -1
    when s.seen > 0 then s.seen::int
  end as seen, case when s.looked > 0 then s.looked::int end as looked,
  case when false then 0 end as reached
from summary s
left join kept r on true
order by r.priority, r.run_at, r.id;

-- name: HoldQueuedJobs :many
-- To HoldJobs what ClaimQueuedJobs is to ClaimJobs.
with looked as materialized (
  select w.id, w.job_queue_id, w.task_id, pg_catalog.row_number() over (order by w.priority, w.run_at rows unbounded preceding) as position
  from graphile_worker._private_jobs w
  where w.is_available
    and w.run_at <= pg_catalog.now()
    and (w.priority, w.run_at) >= (
      coalesce(sqlc.narg(from_priority)::int2, '-32768'::int2), coalesce(sqlc.narg(from_run_at)::timestamptz, '-infinity')
    )
    and w.task_id = any (array(
      select t.id from graphile_worker._private_tasks t where t.identifier = any (@tasks::text[])
    ))
    and (w.job_queue_id is null or w.job_queue_id <> all (coalesce(sqlc.narg(blocked)::int[], '{}')))
  order by w.priority, w.run_at
  limit @look_at::int
), firsts as (
  select distinct on (coalesce(l.job_queue_id::bigint, -l.id)) l.id, l.job_queue_id, l.task_id, l.position
  from looked l
  order by coalesce(l.job_queue_id::bigint, -l.id), l.position
), runnable as materialized (
  select j.*, f.position, q.queue_name
  from (select f.id, f.job_queue_id, f.task_id, f.position from firsts f order by f.position) f
  left join lateral (
    select q.queue_name
    from graphile_worker._private_job_queues q
    where q.id = f.job_queue_id and q.is_available
    for update skip locked
  ) q on true
  cross join lateral (
    select j.*
    from graphile_worker._private_jobs j
    where j.id = f.id
      and (f.job_queue_id is null or q.queue_name is not null)
      and j.job_queue_id is not distinct from f.job_queue_id
      and j.task_id = f.task_id
      and j.is_available
      and j.run_at <= pg_catalog.now()
    for update skip locked
  ) j
  order by f.position
  limit @max_jobs::int
), fits as materialized (
  select s.chosen,
    case
      when s.stored * 256 <= @max_bytes::bigint then s.chosen
      else (
        select greatest(pg_catalog.count(*) filter (where w.bytes <= @max_bytes::bigint), 1)
        from (select pg_catalog.sum(pg_catalog.octet_length(r.payload::text)) over (rows unbounded preceding) as bytes from runnable r) w
      )
    end as jobs
  from (select pg_catalog.count(*) as chosen, pg_catalog.sum(pg_catalog.pg_column_size(r.payload)) as stored from runnable r) s
), kept as not materialized (
  select r.* from runnable r limit (select f.jobs from fits f)
), summary as materialized (
  select s.chosen, s.reached,
    case
      when s.chosen = 0 then (
        select pg_catalog.count(*) from firsts f
        where (select q.is_available from graphile_worker._private_job_queues q where q.id = f.job_queue_id)
      )
      when s.chosen > (select f.jobs from fits f) then 1
      else 0
    end as seen,
    (select pg_catalog.count(*) from looked) as looked
  from (select pg_catalog.count(*) as chosen, pg_catalog.percentile_disc(0.75) within group (order by r.position) as reached from runnable r) s
), slow as (
  select r.id, r.job_queue_id
  from kept r
  where pg_catalog.cardinality(@slow_tasks::text[]) > 0
    and r.task_id = any (array(
      select t.id from graphile_worker._private_tasks t where t.identifier = any (@slow_tasks::text[])
    ))
), written_queues as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = pg_catalog.now()
  where q.id = any (array(select s.job_queue_id from slow s))
  returning q.id, q.locked_at
), written_jobs as (
  update graphile_worker._private_jobs j
  set locked_by = @worker_id::text, locked_at = pg_catalog.now(), attempts = j.attempts + 1
  where j.id = any (array(
    select s.id from slow s
    where s.job_queue_id is null or s.job_queue_id in (select w.id from written_queues w where w.locked_at is not null)
  ))
  returning j.locked_at
)
select
  r.id, r.payload, r.priority, r.run_at, r.attempts, r.max_attempts, r.last_error,
  case when r.created_at <> r.run_at then r.created_at end as created_at,
  case when r.updated_at <> r.created_at then r.updated_at end as updated_at,
  r.key, case when r.revision <> 0 then r.revision end as revision, r.flags, r.task_id,
  r.queue_name as queue,
  case
    when (select pg_catalog.count(*) from written_jobs w where w.locked_at is not null) < (select pg_catalog.count(*) from slow) then -1
    when s.seen > 0 then s.seen::int
  end as seen, case when s.looked > 0 then s.looked::int end as looked,
  case when s.reached > 0 then s.reached::int end as reached
from summary s
left join kept r on true
order by r.priority, r.run_at, r.id;

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
  run_at = greatest(pg_catalog.statement_timestamp(), j.run_at)
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
    when o.delay > 0::float8 then greatest(j.run_at, pg_catalog.statement_timestamp() + o.delay * interval '1 second')
    else j.run_at
  end,
  updated_at = pg_catalog.statement_timestamp()
from outcome o
where j.id = o.id
returning j.id, (o.delay <= 0::float8 or j.run_at > pg_catalog.statement_timestamp())::boolean as written;

-- name: SpillJobs :many
-- From held to locked: what the claim would have written otherwise. Tells which are.
-- Where a trigger keeps a row as it was the job is not locked; its queue may be then.
with locked_queues as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = pg_catalog.now()
  where q.id = any (array(select h.job_queue_id from graphile_worker._private_jobs h where h.id = any (@ids::bigint[])))
  returning q.id, q.locked_at
), spilled as (
  update graphile_worker._private_jobs j
  set locked_by = @worker_id::text, locked_at = pg_catalog.now(), attempts = j.attempts + 1
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
  select pg_catalog.unnest(@ids::bigint[]) as id, pg_catalog.unnest(@attempts::int[]) as attempt, pg_catalog.unnest(@run_ats::timestamptz[]) as run_at
), spilled as (
  update graphile_worker._private_jobs j
  set locked_by = @worker_id::text, locked_at = pg_catalog.now(), attempts = j.attempts + 1
  from mine m
  where j.id = m.id and j.attempts = m.attempt - 1 and j.run_at <= m.run_at
  returning j.id, j.job_queue_id, j.locked_at
), locked_queues as (
  update graphile_worker._private_job_queues q
  set locked_by = @worker_id::text, locked_at = pg_catalog.now()
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
    pg_catalog.unnest(@run_ats::timestamptz[]) as run_at, pg_catalog.unnest(@locked_ats::timestamptz[]) as locked_at
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
