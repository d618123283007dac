-- Releasing: the outcomes of runs. Every statement names the lock that the claim wrote
-- (worker, time, attempt) and returns the ids whose lock it still was; for the others
-- nothing is written. A row that is still locked afterwards, because a trigger has returned
-- null or the old row, is not among them. A job that was replaced or removed by its key
-- while it ran has lost its key and used up its attempts, but its lock is still the
-- claim's. A queue is freed only if its lock is of the same claim: it may have been freed
-- before, and be locked for another job by now. queue_kept says that it was not freed:
-- because of that, because a trigger refused it, or because keep_queues asked for that, so
-- that nothing that refuses a change of the queue's row keeps the outcome from being stored.
--
-- A cancelled job (see cancel.sql) is complete if its run completes; if the run ends
-- otherwise, the job stays failed, with the reason that its row has.

-- name: CompleteJobs :many
with outcome as (
  select pg_catalog.unnest(@ids::bigint[]) as id, pg_catalog.unnest(@attempts::int[]) as attempt, pg_catalog.unnest(@locked_ats::timestamp with time zone[]) as locked_at
), done as (
  delete from graphile_worker._private_jobs j
  using outcome o
  where j.id = o.id
    and j.locked_by = @worker_id::text
    and j.locked_at = o.locked_at
    and (j.attempts = o.attempt or (j.key is null and j.attempts >= j.max_attempts))
  returning j.id, j.job_queue_id, j.locked_at
), freed as (
  update graphile_worker._private_job_queues q
  set locked_by = null, locked_at = null
  from done d
  where not @keep_queues::boolean and q.id = d.job_queue_id and q.locked_by = @worker_id::text and q.locked_at = d.locked_at
  returning q.id, q.locked_at
)
select d.id,
  (d.job_queue_id is not null and d.job_queue_id not in (select u.id from freed u where u.locked_at is null))::boolean as queue_kept
from done d;

-- name: FailJobs :many
-- A negative delay stands for the shared backoff formula, '' for the payload as
-- it is, and final for a job that is not tried again whatever attempts it has
-- left; capped, where that is since its task allows no more, so that the row tells how
-- many it had. "at" is the present time if it is not the database's. A cancelled job has
-- no attempts left, and its error is the reason already: that one is kept.
with outcome as (
  select pg_catalog.unnest(@ids::bigint[]) as id, pg_catalog.unnest(@attempts::int[]) as attempt, pg_catalog.unnest(@locked_ats::timestamp with time zone[]) as locked_at,
    pg_catalog.unnest(@errors::text[]) as error, pg_catalog.unnest(@delays::float8[]) as delay, pg_catalog.unnest(@finals::boolean[]) as final,
    pg_catalog.unnest(@capped::boolean[]) as capped, pg_catalog.unnest(@payloads::text[]) as payload
), failed as (
  update graphile_worker._private_jobs j
  set last_error = case
      when j.flags ->> 'gworker:cancel'::text
        = j.locked_by || pg_catalog.to_char(j.locked_at at time zone 'UTC', ' YYYY-MM-DD"T"HH24:MI:SS.US"Z"') then j.last_error
      else o.error
    end,
    attempts = case when o.final and not o.capped then greatest(j.attempts, j.max_attempts) else j.attempts end,
    max_attempts = case when o.capped then least(j.attempts, j.max_attempts) else j.max_attempts end,
    payload = coalesce(nullif(o.payload, '')::json, j.payload),
    run_at = greatest(coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now()), j.run_at)
      + case when o.delay < 0::float8 then pg_catalog.exp(least(j.attempts, 10)::float8) else o.delay end * interval '1 second',
    flags = case
      when pg_catalog.jsonb_typeof(j.flags) = 'object' and j.flags ? 'gworker:cancel'::text then nullif(j.flags - 'gworker:cancel'::text, '{}')
      else j.flags
    end,
    locked_by = null,
    locked_at = null,
    updated_at = pg_catalog.now()
  from outcome o
  where j.id = o.id
    and j.locked_by = @worker_id::text
    and j.locked_at = o.locked_at
    and (j.attempts = o.attempt or (j.key is null and j.attempts >= j.max_attempts))
  returning j.id, j.job_queue_id, (o.locked_at)::timestamptz as locked_at, j.run_at, (j.attempts >= j.max_attempts)::boolean as permanent,
    (case when j.last_error <> o.error then j.last_error else '' end)::text as kept_error, (j.locked_at is null)::boolean as unlocked
), freed as (
  update graphile_worker._private_job_queues q
  set locked_by = null, locked_at = null
  from failed f
  where not @keep_queues::boolean and f.unlocked
    and q.id = f.job_queue_id and q.locked_by = @worker_id::text and q.locked_at = f.locked_at
  returning q.id, q.locked_at
)
select f.id, f.run_at, f.permanent, f.kept_error,
  (f.job_queue_id is not null and f.job_queue_id not in (select u.id from freed u where u.locked_at is null))::boolean as queue_kept
from failed f
where f.unlocked;

-- name: ReturnJobs :many
-- The attempt goes back only where the row's key is still the one it was
-- claimed with: a retired job must not come back, and neither a cancelled one,
-- whose mark is read under the row's lock. A delay of 0 leaves run_at, and '' the
-- payload. What has to wait is not announced: it is found in its time.
with outcome as (
  select pg_catalog.unnest(@ids::bigint[]) as id, pg_catalog.unnest(@attempts::int[]) as attempt, pg_catalog.unnest(@locked_ats::timestamp with time zone[]) as locked_at,
    pg_catalog.unnest(@keys::text[]) as key, pg_catalog.unnest(@delays::float8[]) as delay,
    pg_catalog.unnest(@payloads::text[]) as payload
), held as materialized (
  select j.id, o.key, o.delay, o.payload, o.locked_at,
    coalesce(j.flags ->> 'gworker:cancel'::text, '')
      = j.locked_by || pg_catalog.to_char(j.locked_at at time zone 'UTC', ' YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as cancelled
  from graphile_worker._private_jobs j
  join outcome o on o.id = j.id
  where j.locked_by = @worker_id::text
    and j.locked_at = o.locked_at
    and (j.attempts = o.attempt or (j.key is null and j.attempts >= j.max_attempts))
  for update of j
), returned as (
  update graphile_worker._private_jobs j
  set attempts = case
      when h.cancelled then greatest(j.attempts, j.max_attempts)
      when j.key is not distinct from nullif(h.key, '') then greatest(0, j.attempts - 1)
      else j.attempts
    end,
    payload = coalesce(nullif(h.payload, '')::json, j.payload),
    run_at = case
      when h.delay > 0::float8 then greatest(j.run_at, coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now()) + h.delay * interval '1 second')
      else j.run_at
    end,
    flags = case
      when pg_catalog.jsonb_typeof(j.flags) = 'object' and j.flags ? 'gworker:cancel'::text then nullif(j.flags - 'gworker:cancel'::text, '{}')
      else j.flags
    end,
    locked_by = null,
    locked_at = null,
    updated_at = pg_catalog.now()
  from held h
  where j.id = h.id
  returning j.id, j.job_queue_id, (h.locked_at)::timestamptz as locked_at, (j.locked_at is null)::boolean as unlocked,
    (h.delay <= 0::float8 and j.attempts < j.max_attempts) as runnable,
    (j.attempts >= j.max_attempts)::boolean as retired, h.cancelled::boolean as cancelled,
    (case when h.cancelled then coalesce(j.last_error, '') else '' end)::text as reason
), freed as (
  update graphile_worker._private_job_queues q
  set locked_by = null, locked_at = null
  from returned r
  where not @keep_queues::boolean and r.unlocked
    and q.id = r.job_queue_id and q.locked_by = @worker_id::text and q.locked_at = r.locked_at
  returning q.id, q.locked_at
), announced as (
  select pg_catalog.pg_notify('jobs:insert', pg_catalog.json_build_object('r', pg_catalog.random(), 'count', pg_catalog.count(*))::text)
  from returned r
  where r.runnable and r.unlocked
  having pg_catalog.count(*) > 0
)
select r.id, r.retired, r.cancelled, r.reason,
  (r.job_queue_id is not null and r.job_queue_id not in (select u.id from freed u where u.locked_at is null))::boolean as queue_kept
from returned r
left join announced a on true
where r.unlocked;

-- name: DeleteJob :execrows
-- CompleteJobs for one job, without its queue, where a rule of the user's is against
-- deletes that return something.
delete from graphile_worker._private_jobs j
where j.id = @id::bigint
  and j.locked_by = @worker_id::text
  and j.locked_at = @locked_at::timestamp with time zone
  and (j.attempts = @attempt::int or (j.key is null and j.attempts >= j.max_attempts));

-- name: UnlockJob :many
-- For a run whose outcome the database refuses in every form: the lock of its job and
-- nothing else, but for run_at if it is to wait. The attempt counts.
update graphile_worker._private_jobs j
set locked_by = null,
  locked_at = null,
  run_at = case
    when @waits::boolean
      then greatest(coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now()), j.run_at) + pg_catalog.exp(least(j.attempts, 10)::float8) * interval '1 second'
    else j.run_at
  end
where j.id = @id::bigint and j.locked_by = @worker_id::text and j.locked_at = @locked_at::timestamp with time zone
returning j.run_at, (j.attempts >= j.max_attempts)::boolean as permanent, (j.locked_at is null)::boolean as unlocked;

-- name: FreeQueue :many
-- The lock that a claim has put on the queue of its job, whatever has become of the
-- job's own.
update graphile_worker._private_job_queues q
set locked_by = null, locked_at = null
from graphile_worker._private_jobs j
where j.id = @id::bigint and q.id = j.job_queue_id
  and q.locked_by = @worker_id::text and q.locked_at = @locked_at::timestamp with time zone
returning (q.locked_at is null)::boolean as freed;

-- name: FreeQueuesOfLostJobs :many
-- A claim whose job is gone, or free, may still lock the job's queue. Tells which of these
-- there were, and whether they are free now: a trigger may keep them as they were.
with lost as (
  select pg_catalog.unnest(@queues::text[]) as queue, pg_catalog.unnest(@locked_ats::timestamp with time zone[]) as locked_at
), locked as materialized (
  select q.id, q.queue_name, q.locked_at
  from graphile_worker._private_job_queues q
  join lost l on q.queue_name = l.queue and q.locked_at = l.locked_at
  where q.locked_by = @worker_id::text
    and not exists (
      select from graphile_worker._private_jobs j
      where j.job_queue_id = q.id and j.locked_by = q.locked_by and j.locked_at = q.locked_at
    )
  order by q.id
  for update of q
), freed as (
  update graphile_worker._private_job_queues q
  set locked_by = null, locked_at = null
  from locked k
  where q.id = k.id
  returning q.id, q.locked_at
)
select k.queue_name as queue, k.locked_at, (k.id in (select f.id from freed f where f.locked_at is null))::boolean as freed
from locked k;

-- name: FreeIdleQueues :execrows
-- The locks of this worker's claims on queues of whose jobs they lock none. They are found
-- beforehand: one that was written meanwhile is a later one.
with idle as materialized (
  select i.id, i.locked_at
  from graphile_worker._private_job_queues i
  where i.locked_by = @worker_id::text
    and not exists (
      select from graphile_worker._private_jobs j
      where j.job_queue_id = i.id and j.locked_by = i.locked_by and j.locked_at = i.locked_at
    )
)
update graphile_worker._private_job_queues q
set locked_by = null, locked_at = null
from idle i
where q.id = i.id and q.locked_by = @worker_id::text and q.locked_at = i.locked_at;

-- name: LockedRuns :many
-- Those of runs that the statements above should have found.
with outcome as (
  select pg_catalog.unnest(@ids::bigint[]) as id, pg_catalog.unnest(@attempts::int[]) as attempt, pg_catalog.unnest(@locked_ats::timestamp with time zone[]) as locked_at
)
select j.id
from graphile_worker._private_jobs j
join outcome o on o.id = j.id
where j.locked_by = @worker_id::text
  and j.locked_at = o.locked_at
  and (j.attempts = o.attempt or (j.key is null and j.attempts >= j.max_attempts));
