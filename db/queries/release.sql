-- Releasing: the outcomes of runs. Every statement names the lock that the
-- claim wrote (worker, time, attempt) and returns the ids for which it still
-- held; for the others nothing is written. A job that was replaced or removed
-- by its key while it ran has lost its key and used up its attempts, but its
-- lock is still the claim's.

-- name: CompleteJobs :many
with outcome as (
  select unnest(@ids::bigint[]) as id, unnest(@attempts::int[]) as attempt, unnest(@locked_ats::timestamptz[]) as locked_at
), done as (
  delete from graphile_worker._private_jobs j
  using outcome o
  where j.id = o.id
    and j.locked_by = @worker_id::text
    and j.locked_at = o.locked_at
    and (j.attempts = o.attempt or (j.key is null and j.attempts >= j.max_attempts))
  returning j.id, j.job_queue_id
), freed as (
  update graphile_worker._private_job_queues q
  set locked_by = null, locked_at = null
  from done d
  where q.id = d.job_queue_id and q.locked_by = @worker_id::text
)
select d.id from done d;

-- name: FailJobs :many
-- A negative delay stands for the shared backoff formula, '' for the payload as
-- it is, and final for a job that is not tried again whatever attempts it has
-- left. "at" is the present time if it is not the database's.
with outcome as (
  select unnest(@ids::bigint[]) as id, unnest(@attempts::int[]) as attempt, unnest(@locked_ats::timestamptz[]) as locked_at,
    unnest(@errors::text[]) as error, unnest(@delays::float8[]) as delay, unnest(@finals::boolean[]) as final,
    unnest(@payloads::text[]) as payload
), failed as (
  update graphile_worker._private_jobs j
  set last_error = o.error,
    attempts = case when o.final then greatest(j.attempts, j.max_attempts) else j.attempts end,
    payload = coalesce(nullif(o.payload, '')::json, j.payload),
    run_at = greatest(coalesce(sqlc.narg(at)::timestamptz, now()), j.run_at)
      + case when o.delay < 0 then exp(least(j.attempts, 10)) else o.delay end * interval '1 second',
    locked_by = null,
    locked_at = null,
    updated_at = now()
  from outcome o
  where j.id = o.id
    and j.locked_by = @worker_id::text
    and j.locked_at = o.locked_at
    and (j.attempts = o.attempt or (j.key is null and j.attempts >= j.max_attempts))
  returning j.id, j.job_queue_id, j.run_at, (j.attempts >= j.max_attempts)::boolean as permanent
), freed as (
  update graphile_worker._private_job_queues q
  set locked_by = null, locked_at = null
  from failed f
  where q.id = f.job_queue_id and q.locked_by = @worker_id::text
)
select f.id, f.run_at, f.permanent from failed f;

-- name: ReturnJobs :many
-- The attempt goes back only where the row's key is still the one it was
-- claimed with: a retired job must not come back. A delay of 0 leaves run_at.
with outcome as (
  select unnest(@ids::bigint[]) as id, unnest(@attempts::int[]) as attempt, unnest(@locked_ats::timestamptz[]) as locked_at,
    unnest(@keys::text[]) as key, unnest(@delays::float8[]) as delay
), returned as (
  update graphile_worker._private_jobs j
  set attempts = case
      when j.key is not distinct from nullif(o.key, '') then greatest(0, j.attempts - 1)
      else j.attempts
    end,
    run_at = case
      when o.delay > 0 then greatest(j.run_at, coalesce(sqlc.narg(at)::timestamptz, now()) + o.delay * interval '1 second')
      else j.run_at
    end,
    locked_by = null,
    locked_at = null,
    updated_at = now()
  from outcome o
  where j.id = o.id
    and j.locked_by = @worker_id::text
    and j.locked_at = o.locked_at
    and (j.attempts = o.attempt or (j.key is null and j.attempts >= j.max_attempts))
  returning j.id, j.job_queue_id
), freed as (
  update graphile_worker._private_job_queues q
  set locked_by = null, locked_at = null
  from returned r
  where q.id = r.job_queue_id and q.locked_by = @worker_id::text
), announced as (
  select pg_notify('jobs:insert', json_build_object('r', random(), 'count', count(*))::text)
  from returned r
  having count(*) > 0
)
select r.id from returned r left join announced a on true;
