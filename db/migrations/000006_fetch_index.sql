-- +goose Up
-- The index for fetching covers the lock and leaves out failed jobs.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (6, false);

drop index if exists graphile_worker.jobs_priority_run_at_id_idx;
create index jobs_priority_run_at_id_locked_at_without_failures_idx
  on graphile_worker.jobs (priority, run_at, id, locked_at)
  where attempts < max_attempts;

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":6,"breaking":false}');
-- +goose StatementEnd
