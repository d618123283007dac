-- +goose Up
-- The first tables. The functions and triggers of revisions 1 to 10 are left out:
-- 11 and 15 remove them again.
-- +goose StatementBegin
create table if not exists graphile_worker.migrations (
  id int primary key,
  ts timestamptz not null default now(),
  breaking boolean not null default false
);

insert into graphile_worker.migrations (id, breaking) values (1, true);

create table graphile_worker.job_queues (
  queue_name text not null primary key,
  job_count int not null,
  locked_at timestamptz,
  locked_by text
);
alter table graphile_worker.job_queues enable row level security;

create table graphile_worker.jobs (
  id bigserial primary key,
  queue_name text not null,
  task_identifier text not null,
  payload json not null default '{}'::json,
  priority int not null default 0,
  run_at timestamptz not null default now(),
  attempts int not null default 0,
  max_attempts int not null default 25,
  last_error text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
alter table graphile_worker.jobs enable row level security;

create index jobs_priority_run_at_id_idx on graphile_worker.jobs (priority, run_at, id);

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":1,"breaking":true}');
-- +goose StatementEnd
