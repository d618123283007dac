-- What the tests' own tasks write, whichever runtime runs them.
create schema interop;

create table interop.runs (
  id bigint generated always as identity primary key,
  job_id bigint not null,
  queue text not null,
  worker text not null,
  job jsonb not null, -- as the handler saw it
  started_at timestamptz not null,
  ended_at timestamptz
);

create function interop.start(worker text, job jsonb) returns bigint language sql as $$
  insert into interop.runs (job_id, queue, worker, job, started_at)
  values ((job ->> 'id')::bigint, job ->> 'queue', worker, job, clock_timestamp())
  returning id;
$$;

-- A test that holds the gate (an advisory lock, exclusively) keeps every run
-- from ending. The shared lock goes with the statement's transaction.
create function interop.finish(run bigint) returns void language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared(hashtext('interop.gate'));
  -- Jobs of a queue take a moment, so that two of them at once would be seen.
  perform pg_sleep(0.01) from interop.runs where id = run and queue <> '';
  update interop.runs set ended_at = clock_timestamp() where id = run;
end
$$;
