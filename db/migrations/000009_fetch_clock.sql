-- +goose Up
-- Functions of their era only: nothing to do.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (9, false);

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":9,"breaking":false}');
-- +goose StatementEnd
