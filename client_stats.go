package gworker

import (
	"context"
	"fmt"
	"math"

	"github.com/gworker/gworker/internal/admin"
)

// JobCounts are numbers of jobs by their states.
type JobCounts = admin.Counts

// Stats are the numbers of all jobs: by state, and by task and queue.
type Stats = admin.Stats

// TaskStats are the numbers of one task's jobs.
type TaskStats = admin.TaskStats

// QueueStats are the numbers of one named queue's jobs.
type QueueStats = admin.QueueStats

// StatsOptions say how much to count. The zero value is the default.
type StatsOptions struct {
	// MaxQueues is how many named queues to list, those with the most jobs: 1 to
	// 10,000. 0 means 20, and -1 none, which saves a scan of the jobs.
	MaxQueues int
}

// Stats counts the jobs. It scans all of them, which takes about a second for a million.
func (c *Client) Stats(ctx context.Context, options StatsOptions) (Stats, error) {
	const field, defaultQueues = "StatsOptions.MaxQueues", 20
	queues := options.MaxQueues
	switch {
	case queues < -1 || queues > MaxPageSize:
		return Stats{}, fmt.Errorf("counting jobs: %w",
			problem(field, "is %d: it can be 1 to %d, 0 for %d, or -1 for none", queues, MaxPageSize, defaultQueues))
	case queues == 0:
		queues = defaultQueues
	}
	stats, err := admin.CountJobs(ctx, c.reads.list(false), max(queues, 0), c.held())
	if err != nil {
		return Stats{}, fmt.Errorf("counting jobs: %w", err)
	}
	return stats, nil
}

// QueueInfo is a named queue: who has locked it, and its jobs by state.
type QueueInfo = admin.Queue

// QueuePage is a page of Client.Queues.
type QueuePage = admin.QueuePage

// QueueFilter says which queues Client.Queues returns. The zero value is the
// first 100 queues by name.
type QueueFilter struct {
	// Names are the queues to list. Empty means all.
	Names []string
	// LockedOnly leaves out queues that are not locked.
	LockedOnly bool
	// Limit is how many queues a page has: 1 to 10,000. 0 means 100.
	Limit int
	// Cursor is the NextCursor of the previous page. "" means the first page.
	Cursor string
}

// Queues returns one page of the named queues, by name. Queues whose jobs are gone
// are listed until a cleanup deletes them.
func (c *Client) Queues(ctx context.Context, filter QueueFilter) (QueuePage, error) {
	page, err := c.queuePage(ctx, filter)
	if err != nil {
		return QueuePage{}, fmt.Errorf("listing queues: %w", err)
	}
	return page, nil
}

func (c *Client) queuePage(ctx context.Context, filter QueueFilter) (QueuePage, error) {
	f := admin.QueueFilter{Names: filter.Names, LockedOnly: filter.LockedOnly}
	for i, name := range f.Names {
		if err := checkText(fmt.Sprintf("QueueFilter.Names[%d]", i), name, math.MaxInt); err != nil {
			return QueuePage{}, err
		}
	}
	var err error
	if f.Limit, err = pageSize("QueueFilter.Limit", filter.Limit); err != nil {
		return QueuePage{}, err
	}
	if filter.Cursor != "" {
		if f.After, err = admin.ParseQueueCursor(filter.Cursor); err != nil {
			return QueuePage{}, problem("QueueFilter.Cursor", "%v", err)
		}
	}
	f.Held = c.held()
	return admin.ListQueues(ctx, c.reads.list(false), f)
}

// WorkerInfo is a worker of any runtime that is registered or has locks.
type WorkerInfo = admin.Worker

// Workers returns the workers that are registered and those that have locks, of every
// runtime, by id. Node's workers do not register, so an idle one is not listed. On a schema
// that is older than the recovery tables, that is true of all workers.
func (c *Client) Workers(ctx context.Context) ([]WorkerInfo, error) {
	workers, err := admin.ListWorkers(ctx, c.queries, c.held())
	if err != nil {
		return nil, fmt.Errorf("listing workers: %w", err)
	}
	return workers, nil
}
