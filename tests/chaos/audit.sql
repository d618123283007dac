-- Who let go of whose lock: the queue's own account of it, which no worker can
-- tell otherwise.
create schema chaos;

create table chaos.releases (
  job_id bigint not null,
  locked_by text not null,
  attempt int not null,
  by_app text not null,
  at timestamptz not null,
  deleted boolean not null -- the job was done, or so somebody said
);

create function chaos.released() returns trigger language plpgsql as $$
begin
  insert into chaos.releases
  values (old.id, old.locked_by, old.attempts, current_setting('application_name'), clock_timestamp(), tg_op = 'DELETE');
  return null;
end
$$;

create trigger chaos_released after update of locked_by on graphile_worker._private_jobs
  for each row when (old.locked_by is not null and new.locked_by is distinct from old.locked_by)
  execute function chaos.released();

create trigger chaos_deleted after delete on graphile_worker._private_jobs
  for each row when (old.locked_by is not null)
  execute function chaos.released();
