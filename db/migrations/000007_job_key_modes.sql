-- +goose Up
-- Functions of their era only: nothing to do.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (7, false);

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":7,"breaking":false}');
-- +goose StatementEnd
