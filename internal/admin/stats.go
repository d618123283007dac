package admin

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/elapsed"
)

// Counts are numbers of jobs by their states.
type Counts struct {
	Scheduled int64 `json:"scheduled"`
	Ready     int64 `json:"ready"`
	Blocked   int64 `json:"blocked"`
	Running   int64 `json:"running"`
	Retrying  int64 `json:"retrying"`
	Failed    int64 `json:"failed"`
}

// Total is the number of all jobs.
func (c Counts) Total() int64 {
	return c.Scheduled + c.Ready + c.Blocked + c.Running + c.Retrying + c.Failed
}

func (c Counts) plus(o Counts) Counts {
	c.Scheduled += o.Scheduled
	c.Ready += o.Ready
	c.Blocked += o.Blocked
	c.Running += o.Running
	c.Retrying += o.Retrying
	c.Failed += o.Failed
	return c
}

// Stats are the numbers of a queue's jobs at one moment.
type Stats struct {
	Counts
	// LongestWait is how long the oldest ready job has waited.
	LongestWait time.Duration `json:"longest_wait_ns"`
	// Tasks are the tasks that have jobs, by identifier.
	Tasks []TaskStats `json:"tasks"`
	// Queues are the named queues with the most jobs, those first.
	Queues []QueueStats `json:"queues"`
}

// TaskStats are the numbers of one task's jobs.
type TaskStats struct {
	Counts
	Task        string        `json:"task_identifier"`
	LongestWait time.Duration `json:"longest_wait_ns"`
}

// QueueStats are the numbers of one named queue's jobs.
type QueueStats struct {
	Counts
	Queue       string        `json:"queue_name"`
	LongestWait time.Duration `json:"longest_wait_ns"`
}

// CountJobs counts all jobs, with up to queues named queues.
func CountJobs(ctx context.Context, q *dbgen.Queries, queues int, held Held) (Stats, error) {
	tasks, err := q.AdminTaskCounts(ctx, dbgen.AdminTaskCountsParams{Held: array(held.ids), HeldQueues: array(held.names)})
	if err != nil {
		return Stats{}, err
	}
	var stats Stats
	for _, r := range tasks {
		t := TaskStats{
			Task: r.Task, LongestWait: elapsed.Seconds(r.LongestWait),
			Counts: Counts{Scheduled: r.Scheduled, Ready: r.Ready, Blocked: r.Blocked, Running: r.Running, Retrying: r.Retrying, Failed: r.Failed},
		}
		stats.Counts = stats.plus(t.Counts)
		stats.LongestWait = max(stats.LongestWait, t.LongestWait)
		stats.Tasks = append(stats.Tasks, t)
	}
	if queues == 0 {
		return stats, nil
	}
	busiest, err := q.AdminBusiestQueues(ctx, dbgen.AdminBusiestQueuesParams{
		Most: int32(queues), Held: array(held.ids), HeldQueues: array(held.names),
	})
	if err != nil {
		return Stats{}, err
	}
	for _, r := range busiest {
		stats.Queues = append(stats.Queues, QueueStats{
			Queue: r.Queue, LongestWait: elapsed.Seconds(r.LongestWait),
			Counts: Counts{Scheduled: r.Scheduled, Ready: r.Ready, Blocked: r.Blocked, Running: r.Running, Retrying: r.Retrying, Failed: r.Failed},
		})
	}
	return stats, nil
}

// Queue is a named queue.
type Queue struct {
	Counts
	Name string `json:"queue_name"`
	// LockedBy is the worker that has locked the queue, or "".
	LockedBy string `json:"locked_by,omitempty"`
	// LockedAt is when it did, or the zero time, and LockedFor is how long ago that was
	// by the database's clock.
	LockedAt  time.Time     `json:"locked_at,omitzero"`
	LockedFor time.Duration `json:"locked_for_ns"`
	// LongestWait is how long its oldest ready job has waited.
	LongestWait time.Duration `json:"longest_wait_ns"`
}

// QueuePage is one page of queues, by name.
type QueuePage struct {
	Queues []Queue `json:"queues"`
	// NextCursor asks for the next page; it is "" on the last one.
	NextCursor string `json:"next_cursor,omitempty"`
}

// QueueFilter says which queues to list.
type QueueFilter struct {
	Names      []string
	LockedOnly bool
	Limit      int
	After      *string
	Held       Held
}

// ListQueues reads one page of queues.
func ListQueues(ctx context.Context, q *dbgen.Queries, f QueueFilter) (QueuePage, error) {
	args := dbgen.AdminQueuesParams{
		Names: array(f.Names), LockedOnly: f.LockedOnly, PageSize: int32(f.Limit + 1), Holder: f.Held.worker,
		Held: array(f.Held.ids), HeldQueues: array(f.Held.names), HeldQueueAts: array(f.Held.queueAts),
	}
	if f.After != nil {
		args.Paged, args.AfterName = true, *f.After
	}
	rows, err := q.AdminQueues(ctx, args)
	if err != nil {
		return QueuePage{}, err
	}
	var page QueuePage
	if len(rows) > f.Limit {
		rows = rows[:f.Limit]
		page.NextCursor = encodeCursor(queuePosition{Queue: &rows[f.Limit-1].Queue})
	}
	for _, r := range rows {
		page.Queues = append(page.Queues, Queue{
			Name: r.Queue, LockedBy: r.LockedBy, LockedAt: r.LockedAt.Time, LockedFor: elapsed.Seconds(r.LockedFor), LongestWait: elapsed.Seconds(r.LongestWait),
			Counts: Counts{Scheduled: r.Scheduled, Ready: r.Ready, Blocked: r.Blocked, Running: r.Running, Retrying: r.Retrying, Failed: r.Failed},
		})
	}
	return page, nil
}

type queuePosition struct {
	Queue *string `json:"q"`
}

// ParseQueueCursor reads the NextCursor of a page of queues.
func ParseQueueCursor(cursor string) (*string, error) {
	var p queuePosition
	if err := decodeCursor(cursor, &p); err != nil || p.Queue == nil || strings.ContainsRune(*p.Queue, 0) {
		return nil, errors.New("is not the cursor of a page of queues")
	}
	return p.Queue, nil
}
