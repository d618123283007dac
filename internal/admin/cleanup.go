package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/statement"
)

// The names of the cleanup tasks, as other Graphile Workers have them.
const (
	GCTaskIdentifiers     = "GC_TASK_IDENTIFIERS"
	GCJobQueues           = "GC_JOB_QUEUES"
	DeletePermafailedJobs = "DELETE_PERMAFAILED_JOBS"
)

const (
	// lockTimeout is how long a cleanup waits for open transactions that have added
	// jobs. Meanwhile, other adds wait behind it, so it is short.
	lockTimeout = 2 * time.Second
	// failedBatch is how many failed jobs one statement deletes.
	failedBatch = 5000
)

// ErrBusy says that a cleanup gave way to an open transaction.
var ErrBusy = errors.New("a transaction that has added jobs, or claims them, is open: try again later")

// Cleanup says what to clean up.
type Cleanup struct {
	Tasks  []string // of the names above
	Keep   []string // task identifiers
	DryRun bool
}

// Cleaned is what a cleanup deleted, or would delete.
type Cleaned struct {
	// FailedJobs is the number of permanently failed jobs.
	FailedJobs int64
	// Tasks are task identifiers, sorted.
	Tasks []string
	// Queues are names of queues, sorted.
	Queues []string
}

// CleanUp runs the cleanup tasks, that for jobs first, so that a second run would find
// nothing. On an error the result is what was deleted until then.
func CleanUp(ctx context.Context, pool *pgxpool.Pool, set *statement.Set, q *dbgen.Queries, c Cleanup) (Cleaned, error) {
	var cleaned Cleaned
	var err error
	if slices.Contains(c.Tasks, DeletePermafailedJobs) {
		if cleaned.FailedJobs, err = deleteFailedJobs(ctx, q, c.DryRun); err != nil {
			return cleaned, fmt.Errorf("deleting permanently failed jobs: %w", err)
		}
	}
	if slices.Contains(c.Tasks, GCTaskIdentifiers) {
		if cleaned.Tasks, err = collectTasks(ctx, pool, set, q, c); err != nil {
			return cleaned, fmt.Errorf("deleting task identifiers: %w", err)
		}
	}
	if slices.Contains(c.Tasks, GCJobQueues) {
		if cleaned.Queues, err = collectQueues(ctx, pool, set, q, c); err != nil {
			return cleaned, fmt.Errorf("deleting queues: %w", err)
		}
	}
	return cleaned, nil
}

func deleteFailedJobs(ctx context.Context, q *dbgen.Queries, dryRun bool) (int64, error) {
	if dryRun {
		return q.AdminFailedJobs(ctx)
	}
	var deleted, after int64
	for {
		batch, err := q.AdminDeleteFailedJobs(ctx, dbgen.AdminDeleteFailedJobsParams{AfterID: after, Most: failedBatch})
		if err != nil {
			return deleted, err
		}
		deleted += batch.Jobs
		if batch.Jobs < failedBatch {
			return deleted, nil
		}
		after = batch.LastID
	}
}

func collectTasks(ctx context.Context, pool *pgxpool.Pool, set *statement.Set, q *dbgen.Queries, c Cleanup) ([]string, error) {
	keep := slices.Clone(c.Keep)
	// A live worker may have cached the ids of its tasks.
	registered, err := registeredWorkers(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, r := range registered {
		w := Worker{Metadata: []byte(r.Metadata)}
		w.understand()
		keep = append(keep, w.Tasks...)
	}
	unused, err := q.AdminUnusedTasks(ctx, array(keep))
	if err != nil || len(unused) == 0 {
		return nil, err
	}
	var ids []int32
	var names []string
	for _, u := range unused {
		ids, names = append(ids, u.ID), append(names, u.Identifier)
	}
	if c.DryRun {
		return names, nil
	}
	return deleteLocked(ctx, pool, set, (*dbgen.Queries).AdminLockTasks, func(ctx context.Context, q *dbgen.Queries) ([]string, error) {
		return q.AdminDeleteTasks(ctx, ids)
	})
}

func collectQueues(ctx context.Context, pool *pgxpool.Pool, set *statement.Set, q *dbgen.Queries, c Cleanup) ([]string, error) {
	unused, err := q.AdminUnusedQueues(ctx)
	if err != nil || len(unused) == 0 {
		return nil, err
	}
	var ids []int32
	var names []string
	for _, u := range unused {
		ids, names = append(ids, u.ID), append(names, u.QueueName)
	}
	if c.DryRun {
		return names, nil
	}
	return deleteLocked(ctx, pool, set, (*dbgen.Queries).AdminLockQueues, func(ctx context.Context, q *dbgen.Queries) ([]string, error) {
		return q.AdminDeleteQueues(ctx, ids)
	})
}

// deleteLocked deletes rows that seemed unused, if they still are, under a lock that keeps
// others from adding jobs that use them.
func deleteLocked(
	ctx context.Context, pool *pgxpool.Pool, set *statement.Set,
	lock func(*dbgen.Queries, context.Context) error, remove func(context.Context, *dbgen.Queries) ([]string, error),
) (names []string, err error) {
	err = set.Transaction(ctx, pool, func(tx pgx.Tx) (commit bool, err error) {
		q := set.On(tx)
		if err := q.AdminLockTimeout(ctx, fmt.Sprint(lockTimeout.Milliseconds())); err != nil {
			return false, err
		}
		if err := lock(q, ctx); err != nil {
			var answer *pgconn.PgError
			if errors.As(err, &answer) && answer.Code == pgerrcode.LockNotAvailable {
				return false, fmt.Errorf("%w: %w", ErrBusy, err)
			}
			return false, err
		}
		names, err = remove(ctx, q)
		return err == nil, err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}
