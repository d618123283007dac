-- An example task. Its job's payload is {"name": "..."}; the greeting and the
-- job's completion commit together, so each job greets exactly once.
create table if not exists greetings (
  job_id bigint primary key,
  text text not null,
  at timestamptz not null default now()
);

insert into greetings (job_id, text)
values (
  current_setting('gworker.job_id')::bigint,
  format('Hello, %s!', coalesce(current_setting('gworker.payload')::json ->> 'name', 'stranger'))
);
