//go:build unix

package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gworker/gworker"
)

// A soak is about many jobs rather than many faults: memory and connections of
// the workers must stay flat.
const (
	soakGroup   = 100  // jobs of one add
	soakBacklog = 4000 // jobs in the queue at which the adders wait
	soakLook    = 50 * time.Millisecond
)

// soak adds the jobs as fast as they are done, until all are added or ctx ends.
func (c *chaos) soak(ctx context.Context) {
	var full atomic.Bool
	ctx, done := context.WithCancel(ctx)
	var watching, adding sync.WaitGroup
	watching.Go(func() { c.watchBacklog(ctx, &full) })
	var left atomic.Int64
	left.Store(int64(c.options.Jobs))
	for range adders {
		adding.Go(func() {
			ticker := time.NewTicker(soakLook)
			defer ticker.Stop()
			for ctx.Err() == nil && left.Load() > 0 {
				if !full.Load() {
					size := min(int64(soakGroup), left.Add(-soakGroup)+soakGroup)
					if size > 0 && !c.load.soak(context.WithoutCancel(ctx), int(size)) {
						c.load.errors.Add(1)
					}
					continue
				}
				select {
				case <-ctx.Done():
				case <-ticker.C:
				}
			}
		})
	}
	adding.Wait()
	done()
	watching.Wait()
}

// watchBacklog keeps full true while enough jobs wait, and while that cannot be
// told.
func (c *chaos) watchBacklog(ctx context.Context, full *atomic.Bool) {
	ticker := time.NewTicker(soakLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		var n int
		err := c.load.pool.QueryRow(ctx,
			"select count(*) from (select from graphile_worker._private_jobs limit $1) a", soakBacklog).Scan(&n)
		full.Store(err != nil || n >= soakBacklog)
	}
}

// soak adds a group of jobs that take next to no time.
func (l *load) soak(ctx context.Context, size int) bool {
	specs, entries := make([]gworker.JobSpec, size), make([]*entry, size)
	for i := range specs {
		n := l.next.Add(1)
		specs[i] = gworker.JobSpec{Task: "plain", Payload: payload{N: n}}
		entries[i] = &entry{n: n, expect: "ok", attempts: 25}
	}
	_, err := l.client.AddJobs(ctx, specs)
	return l.remember(err, entries...)
}
