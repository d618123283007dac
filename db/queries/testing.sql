-- What gworkertest looks at.

-- name: ListTestJobs :many
-- The jobs of a task, or with '' and 0 all jobs, as the session sees them.
select
  j.id, j.payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at,
  j.updated_at, j.key, j.locked_at, j.locked_by, j.revision, j.flags, j.task_id, j.job_queue_id,
  t.identifier as task, q.queue_name as queue
from graphile_worker._private_jobs j
left join graphile_worker._private_tasks t on t.id = j.task_id
left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
where (@task::text = '' or t.identifier = @task::text)
  and (@id::bigint = 0 or j.id = @id::bigint)
order by j.id;
