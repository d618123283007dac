package store

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/jackc/pgerrcode"

	"github.com/gworker/gworker/gworkertype"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/program"
)

// ErrNoUnique says that the schema has no table that notes which jobs are unique.
var ErrNoUnique = errors.New("the schema has no table for unique jobs")

func (s Spec) unique() bool { return s.UniqueFor > 0 }

func anyUnique(specs []Spec) bool { return slices.ContainsFunc(specs, Spec.unique) }

// uniqueRow is the row that the statements for unique jobs return: what they found, and the
// row of the job. It has the id 0 if the job is gone, or hidden from this role.
type uniqueRow dbgen.AddUniqueRow

// addUnique is Add for a job that is unique for a time. The database decides that, so that it
// is the same for all who add: in Go, in Node, or by SQL.
func addUnique(ctx context.Context, q *dbgen.Queries, s Spec) (*job.Row, error) {
	found, err := q.AddUnique(ctx, dbgen.AddUniqueParams{
		UniqueFor: s.UniqueFor.Seconds(), UniqueKey: s.UniqueKey, UniqueScope: s.UniqueScope,
		Task: s.Task, Payload: string(s.Payload), Queue: given(s.Queue), RunAt: givenTime(s.RunAt),
		MaxAttempts: givenInt(s.MaxAttempts), Key: given(s.Key), Priority: int32(s.Priority),
		Flags: s.Flags, KeyMode: s.KeyMode,
	})
	if err != nil {
		return nil, explainedUnique(err)
	}
	rows, err := resolveUnique(ctx, q, []uniqueRow{uniqueRow(found)})
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}

// addAllUnique is AddAll for jobs of which some are unique.
func addAllUnique(ctx context.Context, q *dbgen.Queries, specs []Spec, preserve bool) ([]*job.Row, error) {
	jobs, err := addJobsArgs(specs, preserve)
	if err != nil {
		return nil, err
	}
	args := dbgen.AddUniqueJobsParams{
		Tasks: jobs.Tasks, Payloads: jobs.Payloads, Queues: jobs.Queues, RunAts: jobs.RunAts, MaxAttempts: jobs.MaxAttempts,
		Keys: jobs.Keys, Priorities: jobs.Priorities, Flags: jobs.Flags, PreserveRunAt: preserve,
		UniqueFors: make([]float64, len(specs)), UniqueKeys: make([]string, len(specs)), UniqueScopes: make([]string, len(specs)),
	}
	for i, s := range specs {
		args.UniqueFors[i], args.UniqueKeys[i], args.UniqueScopes[i] = s.UniqueFor.Seconds(), s.UniqueKey, s.UniqueScope
	}
	found, err := q.AddUniqueJobs(ctx, args)
	if err != nil {
		return nil, explainedUnique(err)
	}
	rows := make([]uniqueRow, len(found))
	for i, row := range found {
		rows[i] = uniqueRow(row)
	}
	return resolveUnique(ctx, q, rows)
}

// resolveUnique makes jobs of rows. Of a job that cannot be seen, the id and the task are
// known.
func resolveUnique(ctx context.Context, q *dbgen.Queries, found []uniqueRow) ([]*job.Row, error) {
	rows := make([]storedRow, len(found))
	for i, r := range found {
		rows[i] = storedRow{
			ID: r.ID, Payload: r.Payload, Priority: r.Priority, RunAt: r.RunAt, Attempts: r.Attempts,
			MaxAttempts: r.MaxAttempts, LastError: r.LastError, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
			Key: r.Key, LockedAt: r.LockedAt, LockedBy: r.LockedBy, Revision: r.Revision, Flags: r.Flags,
			TaskID: r.TaskID, JobQueueID: r.JobQueueID, Task: r.Task, Queue: r.Queue,
		}
		if r.ID == 0 {
			rows[i].ID, rows[i].Task = r.JobID, &found[i].UniqueTask
		}
	}
	jobs, err := resolve(ctx, q, rows)
	if err != nil {
		return nil, err
	}
	for i, r := range found {
		if r.Existed {
			jobs[i].Duplicate = &gworkertype.Duplicate{
				State: gworkertype.DuplicateState(r.State), AddedAt: r.AddedAt.Time, ExpiresAt: r.ExpiresAt.Time,
			}
		}
	}
	return jobs, nil
}

var ownName = regexp.MustCompile(`\bgworker_add_unique\b|\b_gworker_unique`)

// explainedUnique is explained for the statements of this file: it tells what is missing for
// unique jobs alone. The names of functions and tables are in the texts of all languages.
func explainedUnique(err error) error {
	var answer interface{ SQLState() string }
	if errors.As(err, &answer) && ownName.MatchString(err.Error()) {
		switch answer.SQLState() {
		case pgerrcode.UndefinedFunction, pgerrcode.UndefinedTable:
			return fmt.Errorf("%w (%s migrate makes it, as the schema's owner): %w", ErrNoUnique, program.Name, err)
		case pgerrcode.InsufficientPrivilege:
			return fmt.Errorf("%w (%s grant producer gives a role the right to add unique jobs, also if it was a producer before)", err, program.Name)
		}
	}
	return explained(err)
}
