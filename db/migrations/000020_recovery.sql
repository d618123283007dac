-- +goose Up
-- Workers say that they live, and the jobs of dead ones come back. Safe to run
-- again, and over what Node and Rust call revision 20.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (20, false)
on conflict (id) do nothing;

create table if not exists graphile_worker._private_workers (
  id text not null,
  last_heartbeat_at timestamptz not null,
  started_at timestamptz not null default now(),
  metadata jsonb,
  constraint _private_workers_pkey primary key (id)
);
create index if not exists _private_workers_last_heartbeat_at_idx
  on graphile_worker._private_workers (last_heartbeat_at);

create or replace function graphile_worker.worker_heartbeat(worker_id text, metadata json default null)
returns void language sql as $gw$
  -- made by gworker
  insert into graphile_worker._private_workers as w (id, last_heartbeat_at, metadata)
  values (worker_heartbeat.worker_id, pg_catalog.now(), worker_heartbeat.metadata::jsonb)
  on conflict (id) do update set
    last_heartbeat_at = excluded.last_heartbeat_at,
    metadata = coalesce(excluded.metadata, w.metadata);
$gw$;

create or replace function graphile_worker.worker_deregister(worker_id text)
returns void language sql as $gw$
  -- made by gworker
  delete from graphile_worker._private_workers w where w.id = worker_deregister.worker_id;
$gw$;

create or replace function graphile_worker.list_stale_workers(stale_threshold interval)
returns table (worker_id text) language sql as $gw$
  -- made by gworker
  select w.id
  from graphile_worker._private_workers w
  where w.last_heartbeat_at < pg_catalog.now() - list_stale_workers.stale_threshold;
$gw$;

create or replace function graphile_worker.list_orphan_locked_workers(stale_threshold interval)
returns table (worker_id text) language sql as $gw$
  -- made by gworker
  select held.locked_by
  from (
    select j.locked_by, j.locked_at from graphile_worker._private_jobs j
    union all
    select q.locked_by, q.locked_at from graphile_worker._private_job_queues q
  ) held
  where held.locked_at < pg_catalog.now() - list_orphan_locked_workers.stale_threshold
    and held.locked_by is not null
    and not exists (select from graphile_worker._private_workers w where w.id = held.locked_by)
  group by held.locked_by;
$gw$;

-- A keyless job on its last attempt may have been retired: it stays failed, so
-- that what replaced it is not followed by what it replaced.
create or replace function graphile_worker.recover_dead_worker_jobs(
  worker_ids text[],
  recovery_delay interval default '00:00:00'
) returns int language plpgsql as $gw$
-- made by gworker
declare
  recovered int;
begin
  update graphile_worker._private_jobs j
  set attempts = case
      when j.key is null and j.attempts >= j.max_attempts then j.attempts
      else greatest(0, j.attempts - 1)
    end,
    locked_at = null,
    locked_by = null,
    run_at = greatest(j.run_at, pg_catalog.now() + coalesce(recovery_delay, '00:00:00')),
    last_error = 'Job recovered after worker interruption',
    updated_at = pg_catalog.now()
  where j.locked_by = any (worker_ids);
  get diagnostics recovered = row_count;

  update graphile_worker._private_job_queues q
  set locked_at = null, locked_by = null
  where q.locked_by = any (worker_ids);

  return recovered;
end
$gw$;

create or replace function graphile_worker.delete_stale_workers(worker_ids text[])
returns void language sql as $gw$
  -- made by gworker
  delete from graphile_worker._private_workers w where w.id = any (delete_stale_workers.worker_ids);
$gw$;

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":20,"breaking":false}');
-- +goose StatementEnd
