package scheduler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// claimer takes jobs from the database, one claim at a time.
type claimer struct {
	queries  *dbgen.Queries
	workerID string
	tasks    []string
	timeout  time.Duration
	events   *event.Stream

	// doubtUntil is when a claim whose answer was lost can no longer take
	// effect; until then each claim first looks for what it may have taken.
	doubtUntil time.Time
}

func newClaimer(c Config) *claimer {
	tasks := make([]string, 0, len(c.Handlers))
	for task := range c.Handlers {
		tasks = append(tasks, task)
	}
	slices.Sort(tasks)
	return &claimer{
		queries: c.Queries, workerID: c.WorkerID, tasks: tasks,
		timeout: c.StatementTimeout, events: c.Events,
	}
}

// claim takes up to limit jobs. more says that further jobs may be runnable now.
// known lists the jobs that this worker has; it is asked only in doubt.
func (c *claimer) claim(ctx context.Context, limit int, known func() []int64) (jobs []*job.Claimed, more bool, err error) {
	if time.Now().Before(c.doubtUntil) {
		jobs, err = c.adopt(ctx, known())
		if err != nil {
			return nil, false, err
		}
		if limit -= len(jobs); limit <= 0 {
			return jobs, true, nil
		}
	}
	rows, err := c.queries.ClaimJobs(ctx, dbgen.ClaimJobsParams{
		Tasks: c.tasks, MaxJobs: int32(limit), WorkerID: c.workerID,
	})
	if err != nil {
		if !retry.Refused(err) {
			c.doubtUntil = time.Now().Add(2 * c.timeout)
		}
		if len(jobs) > 0 {
			return jobs, true, nil // the next claim meets the error again
		}
		return nil, false, fmt.Errorf("claiming up to %d jobs: %w", limit, err)
	}
	for _, row := range rows {
		jobs = append(jobs, c.held(dbgen.ListHeldJobsRow{
			ID: row.ID, Payload: row.Payload, Priority: row.Priority, RunAt: row.RunAt,
			Attempts: row.Attempts, MaxAttempts: row.MaxAttempts, LastError: row.LastError,
			CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt, Key: row.Key, LockedAt: row.LockedAt,
			Revision: row.Revision, Flags: row.Flags, Task: row.Task, Queue: row.Queue,
		}))
		more = more || int(row.Seen) >= limit
	}
	return jobs, more, nil
}

// adopt finds the jobs of a claim that took effect although its answer was lost.
func (c *claimer) adopt(ctx context.Context, known []int64) ([]*job.Claimed, error) {
	if known == nil {
		known = []int64{}
	}
	rows, err := c.queries.ListHeldJobs(ctx, dbgen.ListHeldJobsParams{WorkerID: c.workerID, Known: known})
	if err != nil {
		return nil, fmt.Errorf("looking for the jobs of a claim whose answer was lost: %w", err)
	}
	var jobs []*job.Claimed
	for _, row := range rows {
		jobs = append(jobs, c.held(row))
	}
	if len(jobs) > 0 {
		c.events.Emit(event.JobsAdopted{WorkerID: c.workerID, Count: len(jobs)})
	}
	return jobs, nil
}

func (c *claimer) held(row dbgen.ListHeldJobsRow) *job.Claimed {
	return &job.Claimed{
		Row: job.Row{
			ID: row.ID, Task: row.Task, Queue: row.Queue, Payload: row.Payload,
			Priority: int(row.Priority), RunAt: row.RunAt.Time,
			Attempts: int(row.Attempts), MaxAttempts: int(row.MaxAttempts), LastError: text(row.LastError),
			CreatedAt: row.CreatedAt.Time, UpdatedAt: row.UpdatedAt.Time,
			Key: text(row.Key), Revision: int(row.Revision), Flags: job.FlagNames(row.Flags),
			LockedAt: row.LockedAt.Time, LockedBy: c.workerID,
		},
		Lock: job.Lock{By: c.workerID, At: row.LockedAt.Time, Attempt: int(row.Attempts)},
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
