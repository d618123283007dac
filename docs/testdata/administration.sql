-- What docs/administration.md speaks of, before each of its commands.
begin;
lock table graphile_worker._private_jobs;
delete from graphile_worker._private_jobs;
insert into graphile_worker._private_tasks (identifier) values ('send_email') on conflict do nothing;
insert into graphile_worker._private_jobs (id, task_id, key, attempts, last_error, locked_at, locked_by)
overriding system value
select j.id, t.id, j.key, j.attempts, j.last_error, case when j.locked_by is not null then now() end, j.locked_by
from graphile_worker._private_tasks t,
  (values
    (17, 'reminder of user 7', 0, null, null),
    (18, null, 25, 'timeout: the mail server does not answer', null),
    (19, null, 1, null, 'pool-3f2a77c1d0e94b5a86')
  ) j (id, key, attempts, last_error, locked_by)
where t.identifier = 'send_email';
commit;
