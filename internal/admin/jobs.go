package admin

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/store"
)

// Reason says why a job was not touched.
type Reason string

// The reasons.
const (
	// Locked: a worker has locked the job, for less than 4 hours.
	Locked Reason = "locked"
	// NotFound: there is no such job.
	NotFound Reason = "not_found"
)

// Untouched is a job that was not changed although that was asked for.
type Untouched struct {
	ID     int64  `json:"id"`
	Reason Reason `json:"reason"`
	// Job is the job as it was read, or nil if there is none. Its LockedBy is "" if a
	// worker was claiming it at that moment, or another process held it without a lock
	// (see Config.HoldTime); then it may have ended by now.
	Job *Job `json:"job,omitempty"`
}

// Changed is the result of changing jobs.
type Changed struct {
	// Jobs are those that were changed, by id: as they are now, or as they were
	// if they are gone.
	Jobs []*Job `json:"jobs"`
	// Untouched are the others, by id.
	Untouched []Untouched `json:"not_touched"`
}

// Complete deletes jobs.
func Complete(ctx context.Context, q *dbgen.Queries, ids []int64, held Held) (Changed, error) {
	return change(ids, held, func(ids []int64) ([]jobRow, error) {
		return jobRows(q.AdminCompleteJobs(ctx, dbgen.AdminCompleteJobsParams{Ids: ids, Held: []int64{}, HeldQueues: array(held.names)}))
	})
}

// Fail uses up the attempts of jobs. A reason of "" means the schema's own.
func Fail(ctx context.Context, q *dbgen.Queries, ids []int64, reason string, held Held) (Changed, error) {
	return change(ids, held, func(ids []int64) ([]jobRow, error) {
		args := dbgen.AdminFailJobsParams{Ids: ids, Held: []int64{}, HeldQueues: array(held.names)}
		if reason != "" {
			args.Reason = &reason
		}
		return jobRows(q.AdminFailJobs(ctx, args))
	})
}

// Reschedule is what to change; nil leaves a value as it is.
type Reschedule struct {
	RunAt       *time.Time // the zero time is the database's now
	Priority    *int32
	Attempts    *int32
	MaxAttempts *int32
}

// RescheduleAll changes jobs, and announces those that can run.
func RescheduleAll(ctx context.Context, q *dbgen.Queries, ids []int64, to Reschedule, held Held) (Changed, error) {
	return change(ids, held, func(ids []int64) ([]jobRow, error) {
		args := dbgen.AdminRescheduleJobsParams{
			Ids: ids, Priority: to.Priority, Attempts: to.Attempts, MaxAttempts: to.MaxAttempts,
			Held: []int64{}, HeldQueues: array(held.names),
		}
		if to.RunAt != nil {
			args.RunNow, args.RunAt = to.RunAt.IsZero(), given(*to.RunAt)
		}
		return jobRows(q.AdminRescheduleJobs(ctx, args))
	})
}

// Preview returns which jobs the functions above would change.
func Preview(ctx context.Context, q *dbgen.Queries, ids []int64, held Held) (Changed, error) {
	return change(ids, held, func(ids []int64) ([]jobRow, error) {
		return jobRows(q.AdminGetJobs(ctx, dbgen.AdminGetJobsParams{Ids: ids, Held: array(held.ids), HeldQueues: array(held.names)}))
	})
}

// Get reads one job.
func Get(ctx context.Context, q *dbgen.Queries, id int64, held Held) (*Job, error) {
	rows, err := q.AdminGetJobs(ctx, dbgen.AdminGetJobsParams{Ids: []int64{id}, Held: array(held.ids), HeldQueues: array(held.names)})
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, store.ErrNotFound
	}
	found := jobRow(rows[0]).job()
	held.show(found)
	return found, nil
}

// GetByKey reads the job with a key.
func GetByKey(ctx context.Context, q *dbgen.Queries, key string, held Held) (*Job, error) {
	row, err := q.AdminGetJobByKey(ctx, dbgen.AdminGetJobByKeyParams{Key: key, Held: array(held.ids), HeldQueues: array(held.names)})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	found := jobRow(row).job()
	held.show(found)
	return found, nil
}

func change(ids []int64, held Held, run func([]int64) ([]jobRow, error)) (Changed, error) {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) == 0 {
		return Changed{}, nil
	}
	rows, err := run(ids)
	if err != nil {
		return Changed{}, err
	}
	var c Changed
	found := make(map[int64]jobRow, len(rows))
	for _, row := range rows {
		found[row.ID] = row
	}
	for _, id := range ids {
		row, ok := found[id]
		switch {
		case !ok:
			c.Untouched = append(c.Untouched, Untouched{ID: id, Reason: NotFound})
		case row.Touched:
			touched := row.job()
			held.show(touched)
			c.Jobs = append(c.Jobs, touched)
		default:
			untouched := row.job()
			held.showUntouched(untouched)
			c.Untouched = append(c.Untouched, Untouched{ID: id, Reason: Locked, Job: untouched})
		}
	}
	return c, nil
}

// statementRow is what sqlc calls the rows of the statements about jobs.
type statementRow interface {
	dbgen.AdminCompleteJobsRow | dbgen.AdminFailJobsRow | dbgen.AdminRescheduleJobsRow | dbgen.AdminGetJobsRow |
		dbgen.AdminListByIDRow | dbgen.AdminListNewestRow | dbgen.AdminListClaimOrderRow
}

func jobRows[R statementRow](found []R, err error) ([]jobRow, error) {
	if err != nil {
		return nil, err
	}
	rows := make([]jobRow, len(found))
	for i, row := range found {
		rows[i] = jobRow(row)
	}
	return rows, nil
}
