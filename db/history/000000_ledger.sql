-- +goose Up
-- The ledger of history's own migrations, so that the shared one has none of them. goose
-- passes over this file, since its version is 0.
create table if not exists graphile_worker._gworker_migrations (
  id int not null primary key,
  ts timestamptz not null default pg_catalog.now()
);
