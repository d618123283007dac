//go:build unix

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// drainPatience is for what waits when the last fault is over: retries,
	// recoveries, back-offs.
	drainPatience = 2 * time.Minute
	// foreignPatience is how long a Node or Rust worker may keep jobs then.
	foreignPatience = 30 * time.Second
	// sessionPatience is how long the server may take to notice that a session
	// has ended.
	sessionPatience = 15 * time.Second
)

// settle heals everything, waits until all jobs have ended and dead workers were swept,
// and stops the workers.
func (c *chaos) settle(ctx context.Context) error {
	c.heal()
	c.log.say("the last fault is over; %d jobs were added", c.load.count())
	began := time.Now()
	left := ""
	err := await(ctx, drainPatience, "the queue to drain", func() (done bool, err error) {
		conn, err := connectTo(ctx, c.cluster.now().url())
		if err != nil {
			return false, err
		}
		defer conn.Close(ctx)
		if err := c.freeDeadForeign(ctx, conn, time.Since(began) > foreignPatience); err != nil {
			return false, err
		}
		if c.cluster.clock != nil {
			if err := c.cluster.now().exec(ctx, afterStep...); err != nil {
				return false, err
			}
		}
		left, err = c.left(ctx, conn)
		return left == "", err
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		c.log.breaks("everything ends", "%s after the last fault there are: %s (%v)", drainPatience, left, err)
	}
	c.figures.drained = time.Since(began)
	c.log.say("drained after %s; stopping the workers", seconds(c.figures.drained))
	c.fleet.stop()
	c.load.pool.Close()
	c.log.say("all workers have ended")
	return c.checkSessions(ctx)
}

// left tells what is not in its final state; "" if all is.
func (c *chaos) left(ctx context.Context, conn *pgx.Conn) (text string, err error) {
	var live []string
	for _, s := range c.fleet.slots {
		live = append(live, s.now().workerIDs()...)
	}
	err = conn.QueryRow(ctx, `
		select concat_ws(', ',
			(select count(*) || ' jobs to run, such as ' || min(id) from graphile_worker._private_jobs
				where attempts < max_attempts having count(*) > 0),
			(select count(*) || ' locked jobs, such as ' || min(id) || ' by ' || min(locked_by)
				from graphile_worker._private_jobs where locked_at is not null having count(*) > 0),
			(select count(*) || ' locked queues, such as one by ' || min(locked_by)
				from graphile_worker._private_job_queues where locked_at is not null having count(*) > 0),
			(select count(*) || ' registrations of dead workers, such as ' || min(id)
				from graphile_worker._private_workers where id <> all ($1) having count(*) > 0))`, live).Scan(&text)
	return text, err
}

// freeDeadForeign unlocks the jobs of dead Node and Rust processes: a black hole may have
// delivered a claim after its process had died. If impatient, it also ends a process that
// lives but makes no progress.
func (c *chaos) freeDeadForeign(ctx context.Context, conn *pgx.Conn, impatient bool) error {
	live := []string{}
	for _, s := range c.fleet.slots {
		if !s.runtime.foreign() {
			continue
		}
		p := s.now()
		live = append(live, p.workerIDs()...)
		var stuck int
		if !impatient || !p.running() {
			continue
		}
		err := conn.QueryRow(ctx, `select count(*) from graphile_worker._private_jobs
			where locked_by = any ($1) and locked_at < now() - interval '15 s'`, p.workerIDs()).Scan(&stuck)
		if err != nil {
			return err
		}
		if stuck > 0 {
			c.log.say("%s makes no progress with %d jobs and is ended", p.name, stuck)
			p.kill()
		}
	}
	_, err := conn.Exec(ctx, `
		select graphile_worker.force_unlock_workers(array(
			select locked_by from graphile_worker._private_jobs
			where locked_by ~ '^(pool-|otpool-|worker-|graphile_worker_)' and locked_by <> all ($1)
			union
			select locked_by from graphile_worker._private_job_queues
			where locked_by ~ '^(pool-|otpool-|worker-|graphile_worker_)' and locked_by <> all ($1)))`, live)
	return err
}

// checkSessions looks for connections of workers that have ended.
func (c *chaos) checkSessions(ctx context.Context) error {
	var left string
	err := await(ctx, sessionPatience, "the sessions to end", func() (bool, error) {
		var err error
		left, err = value[string](ctx, c.cluster.now(), `
			select coalesce(string_agg(distinct application_name, ', '), '') from pg_stat_activity
			where application_name like $1 and application_name <> $2`, appPrefix+"%", harnessApp)
		return left == "", err
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		c.log.breaks("no connection is left behind", "sessions of %s: %v", left, err)
	}
	for _, s := range c.fleet.slots {
		if n := s.proxy.connections(); n > 0 {
			c.log.breaks("no connection is left behind", "%d through the proxy of %s", n, s.name)
		}
	}
	if left, err := value[string](ctx, c.cluster.now(),
		"select coalesce(string_agg(id, ', '), '') from graphile_worker._private_workers"); err != nil {
		return fmt.Errorf("looking for registrations: %w", err)
	} else if left != "" {
		c.log.breaks("no registration is left behind", "%s", left)
	}
	return nil
}
