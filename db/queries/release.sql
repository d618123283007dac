-- Releasing: the outcomes of runs. Every statement names the lock that the
-- claim wrote (worker, time, attempt) and returns the ids for which it still
-- held; for the others nothing is written. A job that was replaced or removed
-- by its key while it ran has lost its key and used up its attempts, but its
-- lock is still the claim's.
--
-- A job that somebody has cancelled (see cancel.sql) is complete if its run is;
-- however else the run ends, the job stays failed, with the reason that stands
-- on the row.

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
-- left. "at" is the present time if it is not the database's. A cancelled job has
-- no attempts left, and its error is the reason already: that one is kept.
with outcome as (
  select unnest(@ids::bigint[]) as id, unnest(@attempts::int[]) as attempt, unnest(@locked_ats::timestamptz[]) as locked_at,
    unnest(@errors::text[]) as error, unnest(@delays::float8[]) as delay, unnest(@finals::boolean[]) as final,
    unnest(@payloads::text[]) as payload
), failed as (
  update graphile_worker._private_jobs j
  set last_error = case
      when j.flags ->> 'gworker:cancel'
        = j.locked_by || to_char(j.locked_at at time zone 'UTC', ' YYYY-MM-DD"T"HH24:MI:SS.US"Z"') then j.last_error
      else o.error
    end,
    attempts = case when o.final then greatest(j.attempts, j.max_attempts) else j.attempts end,
    payload = coalesce(nullif(o.payload, '')::json, j.payload),
    run_at = greatest(coalesce(sqlc.narg(at)::timestamptz, now()), j.run_at)
      + case when o.delay < 0 then exp(least(j.attempts, 10)) else o.delay end * interval '1 second',
    flags = case
      when jsonb_typeof(j.flags) = 'object' and j.flags ? 'gworker:cancel' then nullif(j.flags - 'gworker:cancel', '{}')
      else j.flags
    end,
    locked_by = null,
    locked_at = null,
    updated_at = now()
  from outcome o
  where j.id = o.id
    and j.locked_by = @worker_id::text
    and j.locked_at = o.locked_at
    and (j.attempts = o.attempt or (j.key is null and j.attempts >= j.max_attempts))
  returning j.id, j.job_queue_id, j.run_at, (j.attempts >= j.max_attempts)::boolean as permanent,
    (case when j.last_error <> o.error then j.last_error else '' end)::text as kept_error
), freed as (
  update graphile_worker._private_job_queues q
  set locked_by = null, locked_at = null
  from failed f
  where q.id = f.job_queue_id and q.locked_by = @worker_id::text
)
select f.id, f.run_at, f.permanent, f.kept_error from failed f;

-- name: ReturnJobs :many
-- The attempt goes back only where the row's key is still the one it was
-- claimed with: a retired job must not come back, and neither a cancelled one,
-- whose mark is read under the row's lock. A delay of 0 leaves run_at, and '' the
-- payload. What has to wait is not announced: it is found in its time.
with outcome as (
  select unnest(@ids::bigint[]) as id, unnest(@attempts::int[]) as attempt, unnest(@locked_ats::timestamptz[]) as locked_at,
    unnest(@keys::text[]) as key, unnest(@delays::float8[]) as delay,
    unnest(@payloads::text[]) as payload
), held as materialized (
  select j.id, o.key, o.delay, o.payload,
    coalesce(j.flags ->> 'gworker:cancel', '')
      = j.locked_by || to_char(j.locked_at at time zone 'UTC', ' YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as cancelled
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
      when h.delay > 0 then greatest(j.run_at, coalesce(sqlc.narg(at)::timestamptz, now()) + h.delay * interval '1 second')
      else j.run_at
    end,
    flags = case
      when jsonb_typeof(j.flags) = 'object' and j.flags ? 'gworker:cancel' then nullif(j.flags - 'gworker:cancel', '{}')
      else j.flags
    end,
    locked_by = null,
    locked_at = null,
    updated_at = now()
  from held h
  where j.id = h.id
  returning j.id, j.job_queue_id, (h.delay <= 0 and j.attempts < j.max_attempts) as runnable,
    (j.attempts >= j.max_attempts)::boolean as retired, h.cancelled::boolean as cancelled,
    (case when h.cancelled then coalesce(j.last_error, '') else '' end)::text as reason
), freed as (
  update graphile_worker._private_job_queues q
  set locked_by = null, locked_at = null
  from returned r
  where q.id = r.job_queue_id and q.locked_by = @worker_id::text
), announced as (
  select pg_notify('jobs:insert', json_build_object('r', random(), 'count', count(*))::text)
  from returned r
  where r.runnable
  having count(*) > 0
)
select r.id, r.retired, r.cancelled, r.reason from returned r left join announced a on true;
