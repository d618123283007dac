package store

import (
	"context"
	"fmt"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
)

// storedRow is the row that every statement of this package returns.
type storedRow dbgen.AddJobRow

// resolve makes jobs of rows. A statement does not see the task and queue rows that the
// function it calls has just inserted. Names that are missing for that reason are read
// afterwards.
func resolve(ctx context.Context, q *dbgen.Queries, rows []storedRow) ([]*job.Row, error) {
	var taskIDs, queueIDs []int32
	for _, r := range rows {
		if r.Task == nil {
			taskIDs = append(taskIDs, r.TaskID)
		}
		if r.Queue == nil && r.JobQueueID != nil {
			queueIDs = append(queueIDs, *r.JobQueueID)
		}
	}
	tasks, queues := map[int32]string{}, map[int32]string{}
	if len(taskIDs) > 0 {
		found, err := q.TaskNames(ctx, taskIDs)
		if err != nil {
			return nil, fmt.Errorf("reading the names of new tasks: %w", err)
		}
		for _, t := range found {
			tasks[t.ID] = t.Identifier
		}
	}
	if len(queueIDs) > 0 {
		found, err := q.QueueNames(ctx, queueIDs)
		if err != nil {
			return nil, fmt.Errorf("reading the names of new queues: %w", err)
		}
		for _, t := range found {
			queues[t.ID] = t.QueueName
		}
	}
	jobs := make([]*job.Row, len(rows))
	for i, r := range rows {
		jobs[i] = r.job()
		if r.Task == nil {
			jobs[i].Task = tasks[r.TaskID]
		}
		if r.Queue == nil && r.JobQueueID != nil {
			jobs[i].Queue = queues[*r.JobQueueID]
		}
	}
	return jobs, nil
}

func (r storedRow) job() *job.Row {
	return &job.Row{
		ID: r.ID, Task: text(r.Task), Queue: text(r.Queue), Payload: r.Payload,
		Priority: int(r.Priority), RunAt: r.RunAt.Time,
		Attempts: int(r.Attempts), MaxAttempts: int(r.MaxAttempts), LastError: text(r.LastError),
		CreatedAt: r.CreatedAt.Time, UpdatedAt: r.UpdatedAt.Time,
		Key: text(r.Key), Revision: int(r.Revision), Flags: job.FlagNames(r.Flags),
		LockedAt: r.LockedAt.Time, LockedBy: text(r.LockedBy),
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
