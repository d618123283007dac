-- What handlers write, as it happens.
create table runs (
  id bigint generated always as identity primary key,
  n bigint not null,        -- of the load, in the payload
  job_id bigint not null,
  queue text not null,
  attempt int not null,
  worker text not null,     -- the process: w1.2 is the second one of w1
  worker_id text not null,  -- what stands in locked_by
  locked_at timestamptz,    -- of the lock, or of the claim that holds the job; null: a run of Node's or Rust's
  started_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz,
  outcome text              -- ok, failed, refused (done, and the database refuses to
                            -- store that), lost (the job was taken away), cut (shutdown)
);
create index on runs (job_id);
create index on runs (n);
create index on runs (worker, started_at);
create index on runs (queue, started_at) where queue <> '';

-- What is filled in at the end, for the verdict.
create table jobs (
  n bigint primary key,
  state text not null,       -- added, unknown (the commit's answer was lost), rolledback
  expect text not null,      -- ok, failed, or sql: done in the queue's database
  attempts int not null,     -- the most
  replaced boolean not null, -- a later add with the same key may have taken its place
  runs int not null,         -- of a job that fails: the fewest that are recorded
  stored text not null       -- and what its last error begins with
);
create table leftovers (
  job_id bigint, n bigint, attempts int, max_attempts int, key text, locked_by text, last_error text
);
create table ids (worker_id text primary key, process text not null);
create table releases (
  job_id bigint, locked_by text, locked_at timestamptz, attempt int, by_app text, at timestamptz, deleted boolean
);
create index on releases (job_id);
create table locks (job_id bigint, locked_by text, locked_at timestamptz, at timestamptz, relocked boolean);
create index on locks (job_id);
create table endings (job_id bigint, by_app text, claimed_at timestamptz, at timestamptz, deleted boolean);
create index on endings (job_id);
create table done (n bigint, job_id bigint);
create table failures (job_id bigint, task text, error text, at timestamptz);
create table processes (
  name text primary key, runtime text not null, ended_at timestamptz not null, killed boolean not null
);

-- Runs whose claims were lost, and the fault that was the reason.
create table explained (run_id bigint primary key, fault int not null);
