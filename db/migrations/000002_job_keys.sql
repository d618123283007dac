-- +goose Up
-- A job can have a key, and a lock of its own.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (2, false);

alter table graphile_worker.jobs
  add column key text constraint jobs_key_key unique constraint jobs_key_check check (length(key) > 0),
  add column locked_at timestamptz,
  add column locked_by text;

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":2,"breaking":false}');
-- +goose StatementEnd
