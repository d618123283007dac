//go:build unix

package main

import (
	"context"
	"fmt"
	"time"
)

// Checks for the time in which two servers answer, one of them read-only.

// awaitMove waits until every gworker runs jobs that only the new primary can have given
// it.
func (c *chaos) awaitMove(ctx context.Context, d choice, since time.Time) error {
	since = since.Add(time.Second) // what was claimed before has begun by then
	waiting := make(map[string]bool)
	for _, s := range c.fleet.slots {
		waiting[s.name] = true
	}
	err := await(ctx, movePatience, "the workers to move", func() (bool, error) {
		left := 0
		for _, s := range c.fleet.slots {
			if !waiting[s.name] {
				continue
			}
			var moved bool
			err := c.oracle.pool.QueryRow(ctx,
				"select exists (select from runs where worker = $1 and started_at > $2)", s.now().name, since).Scan(&moved)
			if err != nil {
				return false, err
			}
			if moved {
				delete(waiting, s.name)
				took := time.Since(since.Add(-time.Second))
				c.log.say("#%d %s works on the new primary after %.1fs", d.number, s.now().name, took.Seconds())
				if !s.runtime.foreign() {
					c.figures.moved(took)
				}
			} else if !s.runtime.foreign() {
				left++
			}
		}
		return left == 0, nil
	})
	if ctx.Err() != nil {
		return err
	}
	for _, s := range c.fleet.slots {
		switch {
		case !waiting[s.name]:
		case s.runtime.foreign():
			c.log.say("#%d %s has not moved yet", d.number, s.now().name)
		default:
			c.log.breaks("a worker leaves a server that has become read-only",
				"#%d: %s ran no job of the new primary within %s", d.number, s.now().name, movePatience)
		}
	}
	return nil
}

// reportStayed tells who is still connected to the old primary. Only sessions
// that write must have gone; the rest is a figure.
func (c *chaos) reportStayed(ctx context.Context, d choice, old *server) error {
	stayed, err := value[string](ctx, old, `
		select coalesce(string_agg(line, ', ' order by line), 'nobody') from (
			select application_name || ' ' || count(*) || ' (' || min(left(translate(query, E'\n\t', '  '), 30)) || ')' as line
			from pg_stat_activity where application_name like $1 and application_name <> $2
			group by application_name) a`, appPrefix+"%", harnessApp)
	if err != nil {
		return fmt.Errorf("looking at the old primary: %w", err)
	}
	c.log.say("#%d still on the old primary: %s", d.number, stayed)
	return nil
}
