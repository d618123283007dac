//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Faults of the tables, and of who may use them.

// changes are what an administrator does to the tables while the queue works. They excuse
// nothing.
var changes = [][]string{
	{"vacuum full graphile_worker._private_jobs"},
	{"vacuum full graphile_worker._private_job_queues"},
	{"vacuum full graphile_worker._private_tasks"},
	{"vacuum full analyze graphile_worker._private_workers"},
	{"reindex table graphile_worker._private_jobs"},
	{"alter table graphile_worker._private_jobs set (fillfactor = 80)", "alter table graphile_worker._private_jobs reset (fillfactor)"},
	{"alter table graphile_worker._private_jobs add column chaos int", "alter table graphile_worker._private_jobs drop column chaos"},
	{"alter table graphile_worker._private_job_queues add column chaos int", "alter table graphile_worker._private_job_queues drop column chaos"},
	{"create index chaos_index on graphile_worker._private_jobs (created_at)", "drop index graphile_worker.chaos_index"},
	{"alter table graphile_worker._private_jobs alter column last_error set statistics 50", "analyze"},
}

// changePatience is how long one of them may wait for its lock, behind claims that are
// held for a second and whatever a busy machine adds.
const changePatience = 20 * time.Second

// ddl does all of the changes, in an order of its own.
func (c *chaos) ddl(ctx context.Context, d choice) error {
	f := c.log.begin(d.number, d.kind, everybody, "vacuum full, reindex, alter table and so on")
	defer c.log.end(f)
	random := rand.New(rand.NewPCG(uint64(d.number), uint64(d.roll*1e9)))
	longest, what := time.Duration(0), ""
	for _, i := range random.Perm(len(changes)) {
		for _, sql := range changes[i] {
			began := time.Now()
			err := c.cluster.now().exec(ctx, fmt.Sprintf("set lock_timeout = %d", changePatience.Milliseconds()), sql)
			if err != nil {
				return err
			}
			if took := time.Since(began); took > longest {
				longest, what = took, sql
			}
		}
		last(ctx, time.Duration(random.IntN(200))*time.Millisecond)
	}
	c.log.say("#%d the longest took %s: %s", d.number, seconds(longest), what)
	return nil
}

// revocations are rights without which workers can do nothing, or not all.
var revocations = []struct{ revoke, grant string }{
	{"revoke select, update, delete on graphile_worker._private_jobs from " + role, "grant select, update, delete on graphile_worker._private_jobs to " + role},
	{"revoke usage on schema graphile_worker from " + role, "grant usage on schema graphile_worker to " + role},
	{"revoke delete on graphile_worker._private_jobs from " + role, "grant delete on graphile_worker._private_jobs to " + role},
	{"revoke update on graphile_worker._private_job_queues from " + role, "grant update on graphile_worker._private_job_queues to " + role},
	{"alter role " + role + " nologin", "alter role " + role + " login"},
}

// rights takes a right from the workers' role and gives it back. A worker may end because
// of that, and then says so: retrying does not bring a right back.
func (c *chaos) rights(ctx context.Context, d choice) error {
	r := revocations[int(d.roll*float64(len(revocations)))]
	length := d.between(500*time.Millisecond, 6*time.Second)
	f := c.log.begin(d.number, d.kind, everybody, "%s, for %s", r.revoke, length)
	defer c.log.end(f)
	primary := c.cluster.now()
	if err := primary.exec(ctx, r.revoke); err != nil {
		return err
	}
	last(ctx, length)
	return primary.exec(context.WithoutCancel(ctx), r.grant)
}

// limits bounds the connections of the workers' role, or of the database, and ends some of
// those that exist.
func (c *chaos) limits(ctx context.Context, d choice) error {
	limit, length := int(d.roll*40), d.between(time.Second, 2*staleAfter)
	what := "role " + role
	if int(d.roll*1000)%2 == 0 {
		what = "database " + database
	}
	f := c.log.begin(d.number, d.kind, everybody, "connection limit of %d for the %s, most sessions ended, for %s", limit, what, length)
	defer c.log.end(f)
	primary := c.cluster.now()
	err := primary.exec(ctx, fmt.Sprintf("alter %s connection limit %d", what, limit), fmt.Sprintf(`
		select pg_terminate_backend(pid) from pg_stat_activity where usename = '%s' and random() < 0.8`, role))
	if err != nil {
		return err
	}
	last(ctx, length)
	return primary.exec(context.WithoutCancel(ctx), "alter "+what+" connection limit -1")
}

// idle has the server end sessions that do nothing, within and outside of transactions.
func (c *chaos) idle(ctx context.Context, d choice) error {
	outside, within := 30+int(d.roll*400), 30+int(d.length*400)
	length := d.between(2*time.Second, 6*time.Second)
	f := c.log.begin(d.number, d.kind, everybody, "idle_session_timeout of %d ms and idle_in_transaction_session_timeout of %d ms, for %s",
		outside, within, length)
	defer c.log.end(f)
	primary := c.cluster.now()
	err := primary.exec(ctx, fmt.Sprintf("alter system set idle_session_timeout = %d", outside),
		fmt.Sprintf("alter system set idle_in_transaction_session_timeout = %d", within), "select pg_reload_conf()")
	if err != nil {
		return err
	}
	last(ctx, length)
	return primary.exec(context.WithoutCancel(ctx), "alter system reset idle_session_timeout",
		"alter system reset idle_in_transaction_session_timeout", "select pg_reload_conf()")
}
