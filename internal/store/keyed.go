package store

import (
	"context"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
)

// fewKeys is how many keys a call may lock. The locks are in a table that all sessions of
// the server share (docs/job-keys.md). Our function add_jobs has the same bound; those of
// other runtimes have none, so larger calls are not left to them.
const fewKeys = 100

func manyKeys(specs []Spec) bool {
	keys := 0
	for _, s := range specs {
		if s.Key != "" {
			keys++
		}
	}
	return keys > fewKeys
}

// addManyKeyed is AddAll with a bounded number of locks. If another session is inserting a
// task or queue of the specs at the same moment, it adds nothing and returns no row.
func addManyKeyed(ctx context.Context, q *dbgen.Queries, specs []Spec, preserve bool) ([]*job.Row, error) {
	many, err := manyArgs(specs)
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(specs))
	for i, s := range specs {
		keys[i] = s.Key
	}
	found, err := q.AddManyKeyed(ctx, dbgen.AddManyKeyedParams{
		Keys: keys, PreserveRunAt: preserve, TaskNames: many.TaskNames, QueueNames: many.QueueNames,
		Tasks: many.Tasks, Payloads: many.Payloads, Queues: many.Queues, RunAts: many.RunAts,
		MaxAttempts: many.MaxAttempts, Priorities: many.Priorities, Flags: many.Flags,
	})
	if err != nil {
		return nil, explained(err)
	}
	rows := make([]storedRow, len(found))
	for i, row := range found {
		rows[i] = storedRow(row)
	}
	return resolve(ctx, q, inOrder(rows, specs))
}
