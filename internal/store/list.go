package store

import (
	"context"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
)

// ListForTest returns the jobs of a task in the order of their ids; task "" and id 0 match
// any.
func ListForTest(ctx context.Context, q *dbgen.Queries, task string, id int64) ([]*job.Row, error) {
	rows, err := q.ListTestJobs(ctx, dbgen.ListTestJobsParams{Task: task, ID: id})
	if err != nil {
		return nil, err
	}
	jobs := make([]*job.Row, len(rows))
	for i, row := range rows {
		jobs[i] = storedRow(row).job()
	}
	return jobs, nil
}
