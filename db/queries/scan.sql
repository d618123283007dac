-- Where claims begin, if much that cannot run lies ahead of what can.

-- name: ListBlockedQueues :many
-- The queues that have been locked for the longest, and for so long that they are
-- not just between two jobs.
select q.id
from graphile_worker._private_job_queues q
where not q.is_available and q.locked_at < pg_catalog.now() - @min_age::interval
order by q.locked_at
limit @max_queues::int;

-- name: FindCursor :many
-- The position of the first job from a position on that is due, of these tasks and not
-- in one of these queues. It does not matter who holds its row: what is locked at
-- this moment may be free at the next. It is the order of ClaimJobs, so that the
-- same index serves it.
select j.priority, j.run_at
from graphile_worker._private_jobs j
where j.is_available
  and j.run_at <= pg_catalog.now()
  and (j.priority, j.run_at) >= (
    coalesce(sqlc.narg(from_priority)::int2, '-32768'::int2), coalesce(sqlc.narg(from_run_at)::timestamptz, '-infinity')
  )
  and j.task_id = any (array(
    select t.id from graphile_worker._private_tasks t where t.identifier = any (@tasks::text[])
  ))
  and (j.job_queue_id is null or j.job_queue_id <> all (@blocked::int[]))
order by j.priority, j.run_at
limit 1;
