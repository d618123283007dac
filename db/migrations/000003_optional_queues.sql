-- +goose Up
-- A job need not be in a queue.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (3, true);

alter table graphile_worker.jobs alter column queue_name drop not null;

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":3,"breaking":true}');
-- +goose StatementEnd
