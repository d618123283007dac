-- What docs/cancelling.md speaks of, before each of its commands.
begin;
lock table graphile_worker._private_jobs;
delete from graphile_worker._private_jobs;
insert into graphile_worker._private_tasks (identifier) values ('send_email') on conflict do nothing;
insert into graphile_worker._private_jobs (id, task_id)
overriding system value
select 42, t.id from graphile_worker._private_tasks t where t.identifier = 'send_email';
commit;
