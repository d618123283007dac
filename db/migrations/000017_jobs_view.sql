-- +goose Up
-- A view for people: jobs with the names of their tasks and queues, without payloads.
-- +goose StatementBegin
insert into graphile_worker.migrations (id, breaking) values (17, false);

create or replace view graphile_worker.jobs as
select
  jobs.id,
  job_queues.queue_name,
  tasks.identifier as task_identifier,
  jobs.priority,
  jobs.run_at,
  jobs.attempts,
  jobs.max_attempts,
  jobs.last_error,
  jobs.created_at,
  jobs.updated_at,
  jobs.key,
  jobs.locked_at,
  jobs.locked_by,
  jobs.revision,
  jobs.flags
from graphile_worker._private_jobs as jobs
join graphile_worker._private_tasks as tasks on tasks.id = jobs.task_id
left join graphile_worker._private_job_queues as job_queues on job_queues.id = jobs.job_queue_id;

select pg_catalog.pg_notify('worker:migrate', '{"migrationNumber":17,"breaking":false}');
-- +goose StatementEnd
