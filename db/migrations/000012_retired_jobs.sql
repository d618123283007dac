-- +goose Up
-- The functions of revision 11 are as they should be here: nothing to do.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (12, false);

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":12,"breaking":false}');
-- +goose StatementEnd
