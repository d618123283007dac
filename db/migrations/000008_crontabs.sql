-- +goose Up
-- What cron has scheduled.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (8, false);

create table graphile_worker.known_crontabs (
  identifier text not null primary key,
  known_since timestamptz not null,
  last_execution timestamptz
);
alter table graphile_worker.known_crontabs enable row level security;

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":8,"breaking":false}');
-- +goose StatementEnd
