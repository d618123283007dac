//go:build unix

package main

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// Faults of the server, which hit every worker.

// terminate ends server processes of the workers and of the load: all, or some.
func (c *chaos) terminate(ctx context.Context, d choice) error {
	f := c.log.begin(d.number, d.kind, everybody, "pg_terminate_backend for %d%% of the sessions", 20+int(80*d.roll))
	defer c.log.end(f)
	n, err := value[int](ctx, c.cluster.now(), `
		select count(pg_terminate_backend(pid)) from pg_stat_activity
		where application_name like $1 and application_name <> $2 and random() * 100 < $3`,
		appPrefix+"%", harnessApp, 20+int(80*d.roll))
	if err != nil {
		return fmt.Errorf("pg_terminate_backend: %w", err)
	}
	c.log.say("#%d %d sessions ended", d.number, n)
	return nil
}

func (c *chaos) restartFast(ctx context.Context, d choice) error {
	return c.restart(ctx, d, syscall.SIGINT)
}

func (c *chaos) restartImmediate(ctx context.Context, d choice) error {
	return c.restart(ctx, d, syscall.SIGQUIT)
}

// restart stops the primary, orderly or not, and starts it again: at once, or
// after so long that every heartbeat is stale.
func (c *chaos) restart(ctx context.Context, d choice, how syscall.Signal) error {
	length := time.Duration(0)
	if d.roll < 0.4 {
		length = d.between(0, 2*staleAfter)
	}
	f := c.log.begin(d.number, d.kind, everybody, "%s to PostgreSQL, away for %s more", how, length)
	defer c.log.end(f)
	primary := c.cluster.now()
	if err := primary.stop(how); err != nil {
		return err
	}
	last(ctx, length)
	if err := primary.start(ctx); err != nil {
		return err
	}
	return c.cluster.awaitStandby(ctx)
}

// stall holds a lock that every claim and outcome waits for, longer than their
// time-out.
func (c *chaos) stall(ctx context.Context, d choice) error {
	length := d.between(statementTimeout/2, statementTimeout*3/2)
	f := c.log.begin(d.number, d.kind, everybody, "the jobs table locked for %s", length)
	defer c.log.end(f)
	return c.lockJobs(ctx, length)
}

// timeouts lets the server cancel what waits, which it does not do by itself.
func (c *chaos) timeouts(ctx context.Context, d choice) error {
	length := d.between(time.Second, 3*time.Second)
	f := c.log.begin(d.number, d.kind, everybody, "statement_timeout of 100ms, the jobs table locked for %s", length)
	defer c.log.end(f)
	err := c.cluster.now().exec(ctx, "alter system set statement_timeout = '100ms'", "select pg_reload_conf()")
	if err != nil {
		return err
	}
	if err := c.lockJobs(ctx, length); err != nil {
		return err
	}
	return c.cluster.now().exec(ctx, "set statement_timeout = 0", "alter system reset statement_timeout",
		"select pg_reload_conf()")
}

func (c *chaos) lockJobs(ctx context.Context, length time.Duration) error {
	return c.cluster.now().exec(ctx, "set statement_timeout = 0", "begin",
		"lock table graphile_worker._private_jobs in access exclusive mode",
		fmt.Sprintf("select pg_sleep(%f)", length.Seconds()), "rollback")
}

// movePatience is how long a worker may take to find the new primary: a few of
// the waits between two tries.
const movePatience = 25 * time.Second

// failover promotes the standby and switches the proxies to it. The old primary
// still answers on existing connections, but takes no writes: the worker has to
// find out.
func (c *chaos) failover(ctx context.Context, d choice) error {
	f := c.log.begin(d.number, d.kind, everybody, "the old primary becomes read-only and goes on answering")
	defer c.log.end(f)
	if err := c.cluster.awaitStandby(ctx); err != nil {
		return err
	}
	old := c.cluster.now()
	if err := c.quiesce(ctx, old); err != nil {
		return err
	}
	old, err := c.cluster.promote(ctx)
	if err != nil {
		return err
	}
	fresh := c.cluster.now()
	c.fleet.switchTo(fresh.address())
	c.loadProxy.switchTo(fresh.address())
	c.log.say("#%d %s is the primary now, and %s read-only", d.number, fresh.name, old.name)
	if err := c.awaitMove(ctx, d, time.Now()); err != nil {
		return err
	}
	if err := c.reportStayed(ctx, d, old); err != nil {
		return err
	}
	if err := c.cluster.replace(ctx, old); err != nil {
		return err
	}
	c.log.say("#%d %s follows as the standby", d.number, c.cluster.standby.name)
	return nil
}

// quiesce makes a server refuse writes, and waits for those in progress: the new primary
// has every commit that the old one has acknowledged.
func (c *chaos) quiesce(ctx context.Context, s *server) error {
	err := s.exec(ctx, "alter system set default_transaction_read_only = on", "select pg_reload_conf()")
	if err != nil {
		return err
	}
	return await(ctx, serverPatience, "the last writes", func() (bool, error) {
		n, err := value[int](ctx, s, "select count(*) from pg_stat_activity where backend_xid is not null")
		return n == 0, err
	})
}
