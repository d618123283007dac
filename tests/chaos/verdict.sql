-- What the rules are written in. Everything that ran is in runs by now.
analyze;

-- Locks that another process than their holder released. A job that was replaced by its
-- key while it ran has used up all its attempts by then: "attempt" is that of the run.
create table taken as
select *, row_number() over (partition by job_id, locked_by, attempt order by at) as nth
from (
  select r.job_id, r.locked_by, r.locked_at, r.by_app, r.at, coalesce(i.process, '?') as process, coalesce(
    case when not exists (
      select from runs x where x.job_id = r.job_id and x.worker_id = r.locked_by and x.attempt = r.attempt
    ) then (
      select x.attempt from runs x where x.job_id = r.job_id and x.worker_id = r.locked_by and x.started_at <= r.at
      order by x.started_at desc limit 1
    ) end, r.attempt) as attempt
  from releases r
  left join ids i on i.worker_id = r.locked_by
  where not r.deleted and (i.process is null or r.by_app <> 'chaos-' || i.process)
    and r.locked_by not like 'gworker\_sweep\_%' -- a sweep passes on what it gives back
) a;
create index on taken (job_id);

-- Those of dead Node and Rust workers, which this program has unlocked: the attempt stays
-- used up even if the process died before its run was recorded.
create view unlocked as
select * from taken where by_app = 'chaos-harness';

-- Each run with its end, or that of its process if the run has none. A run is stale if
-- its lock had been taken when it ended. Node's and Rust's workers do not say which lock
-- they have: if one has run an attempt several times, its locks were taken in that order.
--
-- The claim of a gworker's run is a transaction that
--   wrote the job's lock, when it began or when it ended (lock_at, not relocked), or
--   ended the job (ended_held), or
--   was lost. Then the job was free from some moment on, and the worker locked it again
--   (relocked) or not (claim_lost).
create table ran as
select r.id, r.n, r.job_id, r.queue, r.attempt, r.worker, r.worker_id, r.locked_at, r.started_at, r.outcome,
  coalesce(r.ended_at, p.ended_at) as ended_at, p.runtime, p.killed,
  t.at as taken_at, coalesce(t.at < coalesce(r.ended_at, p.ended_at), false) as stale,
  l.at as lock_at, coalesce(l.relocked, false) as relocked, e.at is not null as ended_held,
  p.runtime = 'gworker' and l.at is null and e.at is null as claim_lost
from (
  select *, row_number() over (partition by job_id, worker_id, attempt order by started_at) as nth from runs
) r
join processes p on p.name = r.worker
left join taken t on t.job_id = r.job_id and t.locked_by = r.worker_id
  and case p.runtime when 'gworker' then t.locked_at = r.locked_at else t.attempt = r.attempt and t.nth = r.nth end
left join locks l on l.job_id = r.job_id and l.locked_by = r.worker_id and l.locked_at = r.locked_at
left join endings e on e.job_id = r.job_id and e.by_app = 'chaos-' || r.worker and e.claimed_at = r.locked_at;
create index on ran (job_id);
create index on ran (n);
create index on ran (queue, started_at);
analyze;
