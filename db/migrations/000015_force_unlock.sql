-- +goose Up
-- Locks can be taken from workers that are gone.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (15, false);

-- Leftovers from before revision 11.
do $gw$
declare
  routine regprocedure;
begin
  for routine in
    select p.oid
    from pg_catalog.pg_proc p
    join pg_catalog.pg_class ledger on ledger.relnamespace = p.pronamespace
    where ledger.oid = (select m.tableoid from graphile_worker.migrations m limit 1)
      and p.proname in (
      'jobs__increase_job_queue_count',
      'jobs__decrease_job_queue_count',
      'tg__update_timestamp'
      )
  loop
    execute 'drop function ' || routine::text;
  end loop;
end
$gw$;

create or replace function graphile_worker.force_unlock_workers(worker_ids text[])
returns void language sql as $gw$
  update graphile_worker.jobs j
  set locked_at = null, locked_by = null
  where j.locked_by = any (force_unlock_workers.worker_ids);

  update graphile_worker.job_queues q
  set locked_at = null, locked_by = null
  where q.locked_by = any (force_unlock_workers.worker_ids);
$gw$;

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":15,"breaking":false}');
-- +goose StatementEnd
