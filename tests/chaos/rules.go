//go:build unix

package main

// A rule is a query that finds what breaks it, a line of evidence for each.
type rule struct{ name, sql string }

// rules are those that queries on the oracle can check.
var rules = []rule{
	{"no job is lost", `
		select 'job of n=' || j.n || ' was added, and has no run that ended well: runs ' ||
			coalesce((select string_agg(concat_ws(' ', r.worker, 'attempt', r.attempt, coalesce(r.outcome, 'no end')), ', ' order by r.id)
				from ran r where r.n = j.n), 'none')
		from jobs j
		where j.state = 'added' and j.expect = 'ok' and not j.replaced
			and not exists (select from ran r where r.n = j.n and r.outcome = 'ok')`},

	{"a job that fails for good has had its attempts and stays", `
		select 'job of n=' || j.n || ': ' || coalesce('attempts ' || l.attempts || ', error ' || coalesce(l.last_error, 'none'), 'its row is gone')
			|| ', runs: ' || coalesce((select string_agg(concat_ws(' ', r.worker, 'attempt', r.attempt, coalesce(r.outcome, 'no end')), ', ' order by r.id)
				from ran r where r.n = j.n), 'none')
			|| ', attempts of the dead that were unlocked: ' || (select count(*) from unlocked u where u.job_id = l.job_id)
		from jobs j
		left join leftovers l on l.n = j.n
		where j.state = 'added' and j.expect = 'failed' and (
			l.n is null or l.attempts <> j.attempts
			or (case j.stored when '' then l.last_error is not null else left(l.last_error, length(j.stored)) is distinct from j.stored end)
				and l.last_error is distinct from 'TaskError("' || j.stored || '")' -- as Rust's workers store it
				-- A worker that died in the last attempt has stored nothing.
				and not exists (select from unlocked u where u.job_id = l.job_id and u.attempt = l.attempts)
				and coalesce(l.last_error, '') not like 'Job recovered after worker interruption%'
			or (select count(*) from ran r where r.n = j.n) + (select count(*) from unlocked u where u.job_id = l.job_id)
				-- A Node worker that ends fails its jobs, those too whose runs are not recorded yet.
				+ (select count(*) from releases x where x.job_id = l.job_id and x.by_app like 'chaos-node%' and not x.deleted
					and not exists (select from ran r where r.job_id = x.job_id and 'chaos-' || r.worker = x.by_app and r.attempt = x.attempt)) < j.runs
				and coalesce(l.last_error, '') not like 'Job recovered after worker interruption%')`},

	{"nothing else is left in the queue", `
		select concat_ws(' ', 'job', l.job_id, 'of n=' || l.n, 'attempts', l.attempts, 'of', l.max_attempts,
			'key ' || l.key, 'locked by ' || l.locked_by, 'error ' || l.last_error)
		from leftovers l
		left join jobs j on j.n = l.n
		where l.locked_by is not null or j.n is null or not (
			j.expect = 'failed' and l.attempts = j.attempts
			-- Replaced while it ran, it is not tried again.
			or j.replaced and l.key is null and l.attempts >= l.max_attempts)`},

	{"a job whose transaction was rolled back never runs", `
		select 'job of n=' || r.n || ' was run by ' || r.worker
		from ran r join jobs j on j.n = r.n where j.state = 'rolledback'`},

	{"only jobs that were added run", `
		select 'job of n=' || r.n || ' was run by ' || r.worker
		from ran r left join jobs j on j.n = r.n where j.n is null`},

	{"runs of one job overlap only where a lock was taken, or a hold lost by a fault", `
		select concat_ws(' ', 'job', job_id, 'ran on', worker, 'from', started_at, 'while it ran on', before, 'until', until)
		from (
			select *, max(ended_at) over w as until, max(worker) over w as before
			from ran where not stale and id not in (select run_id from explained)
			window w as (partition by job_id order by started_at, id rows between unbounded preceding and 1 preceding)
		) a where started_at < until`},

	{"runs of one named queue overlap only where a lock was taken, or a hold lost by a fault", `
		select concat_ws(' ', queue, 'ran job', job_id, 'on', worker, 'from', started_at, 'while another job ran until', until)
		from (
			select *, max(ended_at) over w as until
			from ran where queue <> '' and not stale and id not in (select run_id from explained)
			window w as (partition by queue order by started_at, id rows between unbounded preceding and 1 preceding)
		) a where started_at < until`},

	{"a job that was done runs again only where its lock was taken, or its hold lost by a fault", `
		select concat_ws(' ', 'job', a.job_id, 'was done by', a.worker, 'at', a.ended_at, 'and ran again on', b.worker, 'at', b.started_at,
			'; its runs:', (select string_agg(concat_ws(' ', x.worker, 'attempt', x.attempt, x.started_at::time, x.outcome, x.ended_at::time), ', ' order by x.id)
				from ran x where x.job_id = a.job_id),
			'; released:', (select string_agg(concat_ws(' ', x.locked_by, 'attempt', x.attempt, 'by', x.by_app, x.at::time), ', ' order by x.at)
				from releases x where x.job_id = a.job_id))
		from ran a join ran b on b.job_id = a.job_id and b.started_at > a.started_at
		where a.outcome = 'ok' and a.taken_at is null
			and not exists (select from explained x where x.run_id = a.id)
			-- A process that was stopped between its claim and its run begins late, and
			-- so does a job that waits for a slot in a claim that is lost.
			and (b.taken_at is null or b.taken_at > a.ended_at)
			and not exists (select from explained x where x.run_id = b.id and b.locked_at < a.ended_at)`},

	{"a job is completed only by the holder of its lock", `
		select concat_ws(' ', 'job', r.job_id, 'was locked by', r.locked_by, 'of', i.process, 'and deleted by', r.by_app, 'at', r.at)
		from releases r
		left join ids i on i.worker_id = r.locked_by
		where r.deleted and r.by_app is distinct from 'chaos-' || i.process
			and r.by_app !~ '^chaos-(node|rust)' -- which delete by the id alone`},

	{"a failure uses up one attempt", `
		select concat_ws(' ', 'job', a.job_id, 'failed in attempt', a.attempt, 'on', a.worker, 'and went on with attempt', b.attempt)
		from ran a
		join lateral (
			select r.attempt from ran r where r.job_id = a.job_id and r.started_at > a.started_at
				and (r.taken_at is null or r.taken_at > a.ended_at)
				and not exists (select from explained x where x.run_id = r.id and r.locked_at < a.ended_at) order by r.started_at limit 1
		) b on true
		where a.outcome in ('failed', 'refused') and a.taken_at is null and not exists (select from explained x where x.run_id = a.id)
			and b.attempt not between a.attempt + 1
			and a.attempt + 1 + (select count(*) from unlocked u where u.job_id = a.job_id and u.at > a.ended_at)`},

	{"a run is cut short only when the worker stops or has lost the job", `
		select concat_ws(' ', 'job', job_id, 'on', worker, 'was told', outcome, 'at', ended_at)
		from ran where outcome = 'lost' and not stale and id not in (select run_id from explained)`},

	{"a run whose hold was lost is ended only if another worker has taken its job", `
		select concat_ws(' ', 'job', a.job_id, 'on', a.worker, 'claimed at', a.locked_at, 'was told', a.outcome, 'at', a.ended_at)
		from ran a where a.outcome = 'lost' and a.claim_lost
			and not exists (select from ran b where b.job_id = a.job_id and b.id <> a.id
				and b.started_at < a.ended_at and b.ended_at > a.locked_at)
			and not exists (select from locks l where l.job_id = a.job_id and l.locked_by <> a.worker_id
				and l.at between a.locked_at and a.ended_at)
			and not exists (select from jobs j where j.n = a.n and j.replaced)`},

	{"a held job is ended only by the process that ran it", `
		select concat_ws(' ', 'job', e.job_id, 'was', case when e.deleted then 'deleted' else 'failed' end, 'by', e.by_app, 'at', e.at)
		from endings e
		where e.by_app !~ '^chaos-(node|rust)' -- which delete by the id alone
			and not exists (select from ran r where r.job_id = e.job_id and 'chaos-' || r.worker = e.by_app
				and r.locked_at = e.claimed_at and (r.outcome = 'ok') = e.deleted and r.outcome in ('ok', 'failed', 'refused'))
			-- A payload that cannot be read fails without a run.
			and not exists (select from leftovers l join jobs j on j.n = l.n where l.job_id = e.job_id and j.runs = 0 and j.expect = 'failed')`},

	{"a SQL job is done exactly once", `
		select concat_ws(' ', 'SQL job of n=' || j.n, 'was done', count(d.n), 'times')
		from jobs j left join done d on d.n = j.n where j.expect = 'sql'
		group by j.n, j.state having count(d.n) > 1 or j.state = 'added' and count(d.n) = 0`},

	{"no job fails of what another has done to a session", `
		select concat_ws(' ', 'job', job_id, 'of', task, 'failed with', error) from failures`},

	{"jobs are held at all", `
		select 'none ended so' where not exists (select from ran where ended_held)`},
}
