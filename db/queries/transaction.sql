-- Completion inside a transaction of the handler's.

-- name: CompleteInTransaction :one
-- As CompleteJobs, for one job. The transaction's id lets the worker ask later
-- what became of it. Where something of the user's may be against unlocking the job's
-- queue, at once or at the commit, that is left to the worker (queue_kept): it must not
-- break the transaction.
with done as (
  delete from graphile_worker._private_jobs j
  where j.id = @id::bigint
    and j.locked_by = @worker_id::text
    and j.locked_at = @locked_at::timestamp with time zone
    and (j.attempts = @attempt::int or (j.key is null and j.attempts >= j.max_attempts))
  returning j.job_queue_id
), freed as (
  update graphile_worker._private_job_queues q
  set locked_by = null, locked_at = null
  from done d
  where q.id = d.job_queue_id and q.locked_by = @worker_id::text
    and not exists (
      select from pg_catalog.pg_trigger t
      where t.tgrelid = q.tableoid and (t.tgtype & '16'::int2) <> '0'::int2 and not t.tgisinternal and t.tgenabled <> 'D'::"char"
    )
    and (select pg_catalog.count(*) from pg_catalog.pg_constraint k where k.conrelid = q.tableoid and k.contype in ('c', 'x')) < 2
  returning q.id, q.locked_at
)
select (select pg_catalog.count(*) from done)::int as completed, pg_catalog.txid_current()::bigint as transaction,
  exists (
    select from done d
    where d.job_queue_id is not null and d.job_queue_id not in (select f.id from freed f where f.locked_at is null)
  )::boolean as queue_kept;

-- name: TransactionFates :many
-- "committed", "aborted" or "in progress" for each transaction, by its place;
-- "unknown" if it is too long ago.
select t.place::int as place, coalesce(pg_catalog.txid_status(t.id), 'unknown')::text as fate
from pg_catalog.unnest(@transactions::bigint[]) with ordinality as t (id, place);
