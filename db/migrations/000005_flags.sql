-- +goose Up
-- Jobs count their revisions and carry flags.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (5, false);

alter table graphile_worker.jobs
  add column revision int not null default 0,
  add column flags jsonb;

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":5,"breaking":false}');
-- +goose StatementEnd
