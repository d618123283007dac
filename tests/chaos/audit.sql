-- Who released whose lock, who wrote one, and who ended a job without one: the
-- queue's own account, which no worker can falsify.
create schema chaos;
grant usage on schema chaos to chaos_app;

create table chaos.releases (
  job_id bigint not null,
  locked_by text not null,
  locked_at timestamptz not null,
  attempt int not null,
  by_app text not null,
  at timestamptz not null,
  deleted boolean not null -- the job was completed
);

create function chaos.released() returns trigger language plpgsql security definer as $$
begin
  insert into chaos.releases
  values (old.id, old.locked_by, old.locked_at, old.attempts, current_setting('application_name'), clock_timestamp(), tg_op = 'DELETE');
  return null;
end
$$;

create trigger chaos_released after update of locked_by on graphile_worker._private_jobs
  for each row when (old.locked_by is not null and new.locked_by is distinct from old.locked_by)
  execute function chaos.released();

create trigger chaos_deleted after delete on graphile_worker._private_jobs
  for each row when (old.locked_by is not null)
  execute function chaos.released();

-- A claim's transaction and its locks have one time, also where the lock is
-- written at the end of it. Where a claim was lost and its jobs are locked again,
-- the lock is older than the transaction that writes it.
create table chaos.locks (
  job_id bigint not null,
  locked_by text not null,
  locked_at timestamptz not null,
  at timestamptz not null,
  relocked boolean not null
);

create function chaos.locked() returns trigger language plpgsql security definer as $$
begin
  insert into chaos.locks values (new.id, new.locked_by, new.locked_at, clock_timestamp(), new.locked_at < now());
  return null;
end
$$;

create trigger chaos_locked after update of locked_by on graphile_worker._private_jobs
  for each row when (old.locked_by is null and new.locked_by is not null)
  execute function chaos.locked();

-- Jobs that were completed, or failed, while a transaction held them. Its start is the
-- time of the claim.
create table chaos.endings (
  job_id bigint not null,
  by_app text not null,
  claimed_at timestamptz not null,
  at timestamptz not null,
  deleted boolean not null
);

create function chaos.ended() returns trigger language plpgsql security definer as $$
begin
  insert into chaos.endings
  values (old.id, current_setting('application_name'), now(), clock_timestamp(), tg_op = 'DELETE');
  return null;
end
$$;

create trigger chaos_ended after delete on graphile_worker._private_jobs
  for each row when (old.locked_by is null)
  execute function chaos.ended();

create trigger chaos_failed after update of attempts on graphile_worker._private_jobs
  for each row when (old.locked_by is null and new.locked_by is null and new.attempts > old.attempts
    and new.last_error not like 'Job recovered after worker interruption%') -- a sweep that gives up
  execute function chaos.ended();

-- What SQL jobs have done.
create table chaos.done (n bigint not null, job_id bigint not null);
grant insert on chaos.done to chaos_app;

-- Failures that the state of a session has caused, and not the job.
create table chaos.failures (job_id bigint not null, task text not null, error text not null, at timestamptz not null);

create function chaos.failed() returns trigger language plpgsql security definer as $$
begin
  insert into chaos.failures
  select new.id, t.identifier, new.last_error, clock_timestamp() from graphile_worker._private_tasks t where t.id = new.task_id;
  return null;
end
$$;

create trigger chaos_failures after update of last_error on graphile_worker._private_jobs
  for each row when (new.last_error is distinct from old.last_error
    and (new.last_error like '%prepared statement%' or new.last_error like '%cached plan%' or new.last_error like '%SQLSTATE 42703%'))
  execute function chaos.failed();

-- Refuses the outcomes of some jobs, in their first attempts. Their recovery passes.
create function chaos.refuse() returns trigger language plpgsql as $$
declare
  how text := old.payload ->> 'refuse';
begin
  if old.attempts + (old.locked_by is null)::int > (old.payload ->> 'until')::int then
    null;
  elsif tg_op = 'UPDATE' then
    if how = 'failure' and new.last_error is distinct from old.last_error and new.last_error not like 'Job recovered%' then
      raise check_violation using message = 'no failure of this job is to be stored';
    end if;
  elsif how = 'raise' then
    raise exception 'this job is not to be deleted';
  elsif how = 'check' then
    raise check_violation using message = 'this job is not to be deleted';
  elsif how = 'encoding' then
    raise untranslatable_character using message = 'this job is not to be deleted';
  elsif how = 'null' then
    return null;
  end if;
  if tg_op = 'DELETE' then
    return old;
  end if;
  return new;
end
$$;

create trigger chaos_refuse before update or delete on graphile_worker._private_jobs
  for each row when (old.payload ->> 'refuse' is not null)
  execute function chaos.refuse();
