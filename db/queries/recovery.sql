-- Recovery: the heartbeats of workers, and the jobs of workers whose heartbeats stop.
-- Times may be infinite, see admin.sql on ages.

-- name: RegisterWorker :exec
select graphile_worker.worker_heartbeat(@worker_id::text, cast(@metadata::text as json));

-- name: Heartbeat :many
-- No row means that the worker was declared dead, or that a trigger refuses the heartbeat.
-- Otherwise the row says how long ago the previous heartbeat was, and whether this one is
-- written: a trigger may have kept the row as it was. "alike" are the workers that look for
-- the same jobs, and have been heard of lately. Anything may stand in the metadata of others.
with before as (
  select w.id, w.last_heartbeat_at from graphile_worker._private_workers w where w.id = @worker_id::text for update
)
update graphile_worker._private_workers w set last_heartbeat_at = pg_catalog.now()
from before b
where w.id = b.id
returning (extract(epoch from pg_catalog.now()) - extract(epoch from b.last_heartbeat_at))::float8 as silent_for,
  (w.last_heartbeat_at <> b.last_heartbeat_at)::boolean as written,
  array(
    select o.id from graphile_worker._private_workers o
    where o.metadata ->> 'looks_for'::text = @looks_for::text
      and o.last_heartbeat_at >= pg_catalog.now() - pg_catalog.make_interval(secs => @heard_within::float8)
  )::text[] as alike;

-- name: IsRegistered :one
select exists (select from graphile_worker._private_workers w where w.id = @worker_id::text)::boolean as registered;

-- name: DeregisterWorker :exec
select graphile_worker.worker_deregister(@worker_id::text);

-- name: LostJobs :many
-- Those of the given claims, by their places, that the worker no longer holds.
with mine as (
  select pg_catalog.unnest(@ids::bigint[]) as id, pg_catalog.unnest(@locked_ats::timestamp with time zone[]) as locked_at,
    pg_catalog.generate_subscripts(@ids::bigint[], 1) as place
)
select m.place::int as place from mine m
where not exists (
  select from graphile_worker._private_jobs j
  where j.id = m.id and j.locked_by = @worker_id::text and j.locked_at = m.locked_at
);

-- name: TrySweepLock :one
-- Rust's sweepers take the same lock.
select pg_catalog.pg_try_advisory_xact_lock(1196905043, 1398228304)::boolean as held;

-- name: LiveWorkers :many
-- Who has been heard of within the threshold.
select w.id from graphile_worker._private_workers w
where w.last_heartbeat_at >= pg_catalog.now() - pg_catalog.make_interval(secs => @threshold::float8);

-- name: AnySilentWorker :one
select exists (
  select from graphile_worker._private_workers w
  where w.last_heartbeat_at < pg_catalog.now() - pg_catalog.make_interval(secs => @threshold::float8)
);

-- name: StaleWorkers :many
-- "seen" is how long ago NoteSilence noted the silence that still lasts, or -1: a
-- note of another heartbeat, from before the server was started or promoted, or from
-- the future says nothing. Anything may stand in the metadata. A heartbeat from before 1970
-- is noted as 0, as JSON has no number for -infinity.
select w.id, (extract(epoch from pg_catalog.now()) - extract(epoch from w.last_heartbeat_at))::float8 as silent_for,
  coalesce(w.metadata, '{}')::text as metadata,
  (case
    when n.heartbeat = greatest(extract(epoch from w.last_heartbeat_at)::float8, 0::float8)
      and n.seen > extract(epoch from greatest(pg_catalog.pg_postmaster_start_time(), pg_catalog.pg_last_xact_replay_timestamp()))::float8
      and n.seen <= extract(epoch from pg_catalog.now())::float8
      then extract(epoch from pg_catalog.now())::float8 - n.seen
    else -1
  end)::float8 as seen
from graphile_worker._private_workers w
cross join lateral (
  select
    case when pg_catalog.jsonb_typeof(w.metadata #> '{gworker:silence,heartbeat}'::text[]) = 'number'
      then (w.metadata #>> '{gworker:silence,heartbeat}'::text[])::float8 end as heartbeat,
    case when pg_catalog.jsonb_typeof(w.metadata #> '{gworker:silence,seen}'::text[]) = 'number'
      then (w.metadata #>> '{gworker:silence,seen}'::text[])::float8 end as seen
) n
where w.last_heartbeat_at < pg_catalog.now() - pg_catalog.make_interval(secs => @threshold::float8)
order by w.last_heartbeat_at;

-- name: NoteSilence :exec
-- Notes on the registrations of silent workers since when they were seen to be
-- silent, for sweepers that do not live long enough to see it themselves.
with silent as (
  select w.id
  from graphile_worker._private_workers w
  where w.id = any (@ids::text[])
    and w.last_heartbeat_at < pg_catalog.now() - pg_catalog.make_interval(secs => @threshold::float8)
    and coalesce(pg_catalog.jsonb_typeof(w.metadata), 'object') = 'object'
  for update skip locked
)
update graphile_worker._private_workers w
set metadata = coalesce(w.metadata, '{}') || pg_catalog.jsonb_build_object('gworker:silence', pg_catalog.jsonb_build_object(
  'heartbeat', greatest(extract(epoch from w.last_heartbeat_at)::float8, 0::float8), 'seen', extract(epoch from pg_catalog.now())::float8
))
from silent s
where w.id = s.id;

-- name: StillStaleWorkers :many
-- Those of whom nothing was heard since the transaction began, which may have
-- waited for the jobs. A heartbeat that comes from now on waits for its end, and
-- then finds that its row is gone.
select w.id
from graphile_worker._private_workers w
where w.id = any (@ids::text[]) and w.last_heartbeat_at < pg_catalog.now() - pg_catalog.make_interval(secs => @threshold::float8)
for update skip locked;

-- name: UnregisteredHolders :many
-- Holders of locks who are not registered, with the age of their oldest lock.
select h.locked_by::text as id, (extract(epoch from pg_catalog.now()) - extract(epoch from pg_catalog.min(h.locked_at)))::float8 as oldest
from (
  select j.locked_by, j.locked_at from graphile_worker._private_jobs j where j.locked_by is not null
  union all
  select q.locked_by, q.locked_at from graphile_worker._private_job_queues q where q.locked_by is not null
) h
where h.locked_at < pg_catalog.now() - pg_catalog.make_interval(secs => @threshold::float8)
  and not exists (select from graphile_worker._private_workers w where w.id = h.locked_by)
group by h.locked_by
order by pg_catalog.min(h.locked_at);

-- name: JobsLockedBy :many
-- The jobs that dead holders hold, each lock at least as old as its holder's
-- bound. A lock from the future was written by another clock than the database's
-- and says nothing about its age: there the holder's registration alone counts.
-- A job whose end is being written at this moment is left out. The mark of a cancelled job
-- is that of LockJobToCancel.
with holders as (
  select pg_catalog.unnest(@holders::text[]) as id, pg_catalog.unnest(@bounds::float8[]) as bound,
    pg_catalog.unnest(@registered::boolean[]) as registered
)
select j.id, t.identifier as task, coalesce(q.queue_name, '')::text as queue, coalesce(j.key, '')::text as key,
  j.locked_by::text as holder, j.locked_at, (extract(epoch from pg_catalog.now()) - extract(epoch from j.locked_at))::float8 as locked_for, j.run_at, j.attempts, j.max_attempts,
  coalesce(j.last_error, '')::text as last_error, j.flags,
  (coalesce(j.flags ->> 'gworker:cancel'::text, '')
    = j.locked_by || coalesce(pg_catalog.to_char(j.locked_at at time zone 'UTC', ' YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), ' '::text || j.locked_at::text))::boolean as cancelled
from graphile_worker._private_jobs j
join holders h on h.id = j.locked_by
join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
where (j.locked_at <= pg_catalog.now() - pg_catalog.make_interval(secs => h.bound)
    or (h.registered and j.locked_at > pg_catalog.clock_timestamp()))
order by j.id
for update of j skip locked;

-- name: PassToSweep :exec
-- Passes jobs, and the queues that they lock, to the sweep: the function that recovers
-- them selects by the holder, and differs between revisions.
with jobs as (
  update graphile_worker._private_jobs j set locked_by = @sweep_id::text
  where j.id = any (@ids::bigint[])
  returning j.id, j.job_queue_id
)
update graphile_worker._private_job_queues q set locked_by = @sweep_id::text
from jobs
where q.id = jobs.job_queue_id and q.locked_by = any (@holders::text[]);

-- name: RecoverJobs :one
select graphile_worker.recover_dead_worker_jobs(
  array[@sweep_id::text], pg_catalog.make_interval(secs => @delay::float8)
)::int as recovered;

-- name: AdjustRecoveredJobs :exec
-- Applies decisions about single jobs after their recovery. A run_at of null leaves it as
-- it is; with backoff it becomes that of a failed attempt.
with decided as (
  select pg_catalog.unnest(@ids::bigint[]) as id, pg_catalog.unnest(@attempts::int[]) as attempts,
    pg_catalog.unnest(@run_ats::timestamptz[]) as run_at, pg_catalog.unnest(@backoffs::boolean[]) as backoff,
    pg_catalog.unnest(@errors::text[]) as error, pg_catalog.unnest(@cancelled::boolean[]) as cancelled
)
update graphile_worker._private_jobs j
set attempts = d.attempts::smallint,
  run_at = case
    when d.backoff then greatest(pg_catalog.now(), j.run_at) + pg_catalog.exp(least(d.attempts, 10)::float8) * interval '1 second'
    else coalesce(d.run_at, j.run_at)
  end,
  flags = case when d.cancelled then nullif(j.flags - 'gworker:cancel'::text, '{}') else j.flags end,
  last_error = d.error
from decided d
where j.id = d.id;

-- name: UnlockQueuesWithoutJob :many
-- Queues that dead holders still lock although they have no job of them.
update graphile_worker._private_job_queues q
set locked_at = null, locked_by = null
where q.locked_by = any (@holders::text[])
  and not exists (
    select from graphile_worker._private_jobs j where j.job_queue_id = q.id and j.locked_by = q.locked_by
  )
returning q.queue_name;

-- name: ForgetWorkers :many
-- A worker that still holds something is kept, for the next sweep.
delete from graphile_worker._private_workers w
where w.id = any (@ids::text[])
  and not exists (select from graphile_worker._private_jobs j where j.locked_by = w.id)
returning w.id;

-- name: AnnounceJobs :exec
select pg_catalog.pg_notify('jobs:insert', pg_catalog.json_build_object('r', pg_catalog.random(), 'count', @jobs::int)::text);

-- name: ResetOldJobLocks :many
-- "at" is the present time if it is not the database's.
update graphile_worker._private_jobs j
set locked_at = null, locked_by = null, run_at = greatest(j.run_at, coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now()))
where j.locked_at < coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now()) - interval '4 hours'
returning j.id;

-- name: ResetOldQueueLocks :many
update graphile_worker._private_job_queues q
set locked_at = null, locked_by = null
where q.locked_at < coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now()) - interval '4 hours'
returning q.queue_name;

-- name: OldJobLocks :many
-- What ResetOldJobLocks would reset.
select j.id from graphile_worker._private_jobs j
where j.locked_at < coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now()) - interval '4 hours';

-- name: ResetSomeOldJobLocks :many
update graphile_worker._private_jobs j
set locked_at = null, locked_by = null, run_at = greatest(j.run_at, coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now()))
where j.id = any (@ids::bigint[])
  and j.locked_at < coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now()) - interval '4 hours'
returning j.id;

-- name: OldQueueLocks :many
-- What ResetOldQueueLocks would reset.
select q.queue_name from graphile_worker._private_job_queues q
where q.locked_at < coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now()) - interval '4 hours';

-- name: ResetSomeOldQueueLocks :many
update graphile_worker._private_job_queues q
set locked_at = null, locked_by = null
where q.queue_name = any (@names::text[])
  and q.locked_at < coalesce(sqlc.narg(at)::timestamp with time zone, pg_catalog.now()) - interval '4 hours'
returning q.queue_name;

-- name: CheckConstraintsLater :exec
-- After CheckConstraintsNow: each part of a sweep is checked by itself.
set constraints all deferred;
