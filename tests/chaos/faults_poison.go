//go:build unix

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gworker/gworker"
)

// Faults that come with the jobs themselves. They excuse nothing: every other job goes on
// as if they were not there.

// poisonPatience is how long such jobs may take, with their waits between attempts.
const poisonPatience = time.Minute

// poison adds a job for each poison.
func (c *chaos) poison(ctx context.Context, d choice) error {
	f := c.log.begin(d.number, d.kind, everybody, "a job of each of %d kinds", len(poisons))
	defer c.log.end(f)
	for _, name := range slices.Sorted(maps.Keys(poisons)) {
		spec, e := c.load.poison(name)
		if err := c.addMarked(ctx, spec, e); err != nil {
			return err
		}
	}
	return nil
}

// refuse adds jobs whose outcomes a trigger refuses, and waits for their ends.
func (c *chaos) refuse(ctx context.Context, d choice) error {
	f := c.log.begin(d.number, d.kind, everybody, "a trigger refuses the outcomes of some jobs")
	defer c.log.end(f)
	var ns []int64
	for i, name := range slices.Sorted(maps.Keys(refusals)) {
		for _, always := range []bool{false, true} {
			queue := ""
			if (d.roll < 0.5) == always {
				queue = fmt.Sprintf("queue %d", i%queues)
			}
			spec, e := c.load.refused(name, always, queue)
			if err := c.addMarked(ctx, spec, e); err != nil {
				return err
			}
			ns = append(ns, e.n)
		}
	}
	return await(ctx, poisonPatience, "the refused jobs to end", func() (bool, error) {
		n, err := value[int](ctx, c.cluster.now(), `
			select count(*) from graphile_worker._private_jobs
			where (payload ->> 'n')::bigint = any ($1) and (attempts < max_attempts or locked_at is not null)`, ns)
		return n == 0, err
	})
}

// deallocate adds SQL jobs that remove the prepared statements of the sessions that
// they get, and others that get those sessions afterwards.
func (c *chaos) deallocate(ctx context.Context, d choice) error {
	f := c.log.begin(d.number, d.kind, everybody, "SQL tasks with deallocate all and discard plans")
	defer c.log.end(f)
	for range 10 {
		for _, task := range sqlTasks {
			spec := gworker.JobSpec{Task: task, Payload: payload{N: c.load.next.Add(1)}}
			if err := c.addMarked(ctx, spec, &entry{n: spec.Payload.(payload).N, expect: "sql", attempts: 25}); err != nil {
				return err
			}
		}
	}
	return nil
}

// addMarked adds a job of a fault as the load does, so that it is judged with the others. An
// add whose answer is lost counts as one of the load's.
func (c *chaos) addMarked(ctx context.Context, spec gworker.JobSpec, e *entry) error {
	_, err := c.load.client.AddJob(ctx, spec)
	if !c.load.remember(err, e) {
		c.load.errors.Add(1)
	}
	return context.Cause(ctx)
}
