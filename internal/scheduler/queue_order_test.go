package scheduler_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

// oneClaim takes one job, tells took of it while it is held, and completes it.
type oneClaim func(ctx context.Context, pool *pgxpool.Pool, q *dbgen.Queries, worker string, took func(id int64)) error

// from is where a claim begins, and how many jobs it looks at (0: the claim for jobs
// without queues).
type from struct {
	priority *int16
	runAt    pgtype.Timestamptz
	lookAt   int32
}

func locked(f from) oneClaim {
	return func(ctx context.Context, _ *pgxpool.Pool, q *dbgen.Queries, worker string, took func(int64)) error {
		row, err := claimOne(ctx, q, worker, f, nil)
		if err != nil || row.ID == nil {
			return err
		}
		return complete(ctx, q, worker, *row.ID, row.LockedAt, took)
	}
}

// claimOne claims a job, and writes its lock if it is of one of the tasks in lock, or if
// lock is nil. Without a job the row has no ID.
func claimOne(ctx context.Context, q *dbgen.Queries, worker string, f from, lock []string) (dbgen.ClaimJobsRow, error) {
	if f.lookAt == 0 {
		rows, err := q.ClaimJobs(ctx, dbgen.ClaimJobsParams{
			Tasks: []string{"x"}, MaxJobs: 1, MaxBytes: 1 << 40, LockTasks: lock, WorkerID: worker,
			FromPriority: f.priority, FromRunAt: f.runAt,
		})
		return first(rows), err
	}
	rows, err := q.ClaimQueuedJobs(ctx, dbgen.ClaimQueuedJobsParams{
		Tasks: []string{"x"}, MaxJobs: 1, MaxBytes: 1 << 40, LockTasks: lock, WorkerID: worker,
		FromPriority: f.priority, FromRunAt: f.runAt, LookAt: f.lookAt,
	})
	row := first(rows)
	return dbgen.ClaimJobsRow{ID: row.ID, LockedAt: row.LockedAt}, err
}

// first is the first of rows, if there is one.
func first[T any](rows []T) (row T) {
	if len(rows) > 0 {
		row = rows[0]
	}
	return row
}

func complete(ctx context.Context, q *dbgen.Queries, worker string, id int64, lockedAt pgtype.Timestamptz, took func(int64)) error {
	took(id) // nobody else has one of this queue now
	_, err := q.CompleteJobs(ctx, dbgen.CompleteJobsParams{
		Ids: []int64{id}, Attempts: []int32{1}, LockedAts: []time.Time{lockedAt.Time}, WorkerID: worker,
	})
	return err
}

func held(f from) oneClaim {
	return func(ctx context.Context, pool *pgxpool.Pool, _ *dbgen.Queries, worker string, took func(int64)) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			q := dbgen.New(tx)
			if _, err := q.BeginHold(ctx, "60000"); err != nil {
				return err
			}
			row, err := claimOne(ctx, q, worker, f, []string{})
			if err != nil || row.ID == nil {
				return err
			}
			if row.LockedAt.Valid {
				return fmt.Errorf("job %d, which is to be held, is locked", *row.ID)
			}
			took(*row.ID)
			return q.CompleteHeldJobs(ctx, []int64{*row.ID})
		})
	}
}

func selective(ctx context.Context, _ *pgxpool.Pool, q *dbgen.Queries, worker string, took func(int64)) error {
	rows, err := q.ClaimSelectedJobs(ctx, dbgen.ClaimSelectedJobsParams{
		Tasks: []string{}, MaxJobs: 1, WorkerID: worker, LimitedTasks: []string{"x"}, Rooms: []int32{1},
		ForbiddenFlags: []string{"none"}, AcceptedFlags: []string{},
	})
	if err != nil || len(rows) == 0 {
		return err
	}
	return complete(ctx, q, worker, rows[0].ID, rows[0].LockedAt, took)
}

// TestQueueOrderWhileItsLockMoves: a claim's walk takes time, and a queue that was
// locked at its first job may be free again at a later one. Several claimers work
// off one queue, whose jobs lie far apart in the walk.
func TestQueueOrderWhileItsLockMoves(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const between, claimers, everything = 20, 6, 1 << 20
	zero, start := int16(0), time.Now().Add(-time.Hour).Truncate(time.Second)
	placed := from{priority: &zero, runAt: pgtype.Timestamptz{Time: start, Valid: true}}
	queuedPlaced := placed
	queuedPlaced.lookAt = everything
	for _, c := range []struct {
		name   string
		jobs   int // ClaimJobs finds the first of queues among a thousand jobs
		claims []oneClaim
	}{
		{"plain", 48, []oneClaim{locked(from{})}},
		{"plain from a place", 48, []oneClaim{locked(placed)}},
		{"queued", 80, []oneClaim{locked(from{lookAt: everything})}},
		{"queued from a place", 80, []oneClaim{locked(queuedPlaced)}},
		{"held", 48, []oneClaim{held(from{})}},
		{"held, queued", 80, []oneClaim{held(from{lookAt: everything})}},
		{"held, queued, from a place", 80, []oneClaim{held(queuedPlaced)}},
		{"selective", 80, []oneClaim{selective}},
		{"all sorts", 48, []oneClaim{
			locked(from{}), held(queuedPlaced), locked(from{lookAt: everything}), held(from{}), selective, held(from{lookAt: everything}),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := testdb.Pool(t, testdb.Migrated(t))
			_, err := pool.Exec(t.Context(), `
				select graphile_worker.add_job('x', queue_name => case when n % $2 > 0 then 'stuck' else 'q' end,
					run_at => $3::timestamptz + n * interval '1 ms')
				from generate_series(1, $1::int) n`, c.jobs*between, between, start)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pool.Exec(t.Context(), `update graphile_worker._private_job_queues
				set locked_at = now(), locked_by = 'other' where queue_name = 'stuck'`); err != nil {
				t.Fatal(err)
			}
			if _, err := pool.Exec(t.Context(), "vacuum analyze graphile_worker._private_jobs"); err != nil {
				t.Fatal(err)
			}
			queries := statement.NewSet(statement.Options{}).On(pool)
			var mu sync.Mutex
			var order []int64
			took := func(id int64) {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, id)
			}
			done := func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(order) >= c.jobs
			}
			var wait sync.WaitGroup
			for i := range claimers {
				wait.Go(func() {
					for t.Context().Err() == nil && !done() {
						if err := c.claims[i%len(c.claims)](t.Context(), pool, queries, fmt.Sprintf("gworker_%d", i), took); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wait.Wait()
			if len(order) != c.jobs || !slices.IsSorted(order) {
				t.Errorf("ran %d of %d jobs, in the order %v", len(order), c.jobs, order)
			}
		})
	}
}

// TestQueueWaitsForAJobThatIsHeld: a job whose row a transaction holds is not
// overtaken by the others of its queue, and the claim tells of it.
func TestQueueWaitsForAJobThatIsHeld(t *testing.T) {
	for name, lookAt := range map[string]int32{"plain": 0, "queued": 100} {
		t.Run(name, func(t *testing.T) {
			pool := testdb.Pool(t, testdb.Migrated(t))
			_, err := pool.Exec(t.Context(), `
				select graphile_worker.add_job('x', queue_name => q, run_at => now() - interval '1 hour' + n * interval '1 s')
				from (values (1, 'q'), (2, 'q'), (3, null)) v (n, q) order by n`)
			if err != nil {
				t.Fatal(err)
			}
			queries := statement.NewSet(statement.Options{}).On(pool)
			claim := func(lookAt int32) (ids []int64, seen int32) {
				t.Helper()
				var rows []dbgen.ClaimJobsRow
				var err error
				if lookAt == 0 {
					rows, err = queries.ClaimJobs(t.Context(), dbgen.ClaimJobsParams{Tasks: []string{"x"}, MaxJobs: 5, MaxBytes: 1 << 40, WorkerID: "gworker_a"})
				} else {
					var queued []dbgen.ClaimQueuedJobsRow
					queued, err = queries.ClaimQueuedJobs(t.Context(), dbgen.ClaimQueuedJobsParams{
						Tasks: []string{"x"}, MaxJobs: 5, MaxBytes: 1 << 40, WorkerID: "gworker_a", LookAt: lookAt,
					})
					for _, row := range queued {
						rows = append(rows, dbgen.ClaimJobsRow{ID: row.ID, LockedAt: row.LockedAt, Seen: row.Seen})
					}
				}
				if err != nil {
					t.Fatal(err)
				}
				for _, row := range rows {
					if row.Seen != nil {
						seen = row.Seen.(int32)
					}
					if row.ID != nil {
						ids = append(ids, *row.ID)
					}
				}
				return ids, seen
			}
			tx, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback(context.WithoutCancel(t.Context()))
			if _, err := tx.Exec(t.Context(), "select from graphile_worker._private_jobs where id = 1 for update"); err != nil {
				t.Fatal(err)
			}
			if ids, _ := claim(lookAt); !slices.Equal(ids, []int64{3}) {
				t.Errorf("while job 1 is held the claim took %v, want only job 3, which has no queue", ids)
			}
			if ids, seen := claim(lookAt); len(ids) != 0 || seen != 1 {
				t.Errorf("then it took %v and saw %d, want none, and that there is one", ids, seen)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			if ids, _ := claim(lookAt); !slices.Equal(ids, []int64{1}) {
				t.Errorf("the next claim took %v, want job 1", ids)
			}
			if ids, seen := claim(lookAt); len(ids) != 0 || seen != 0 {
				t.Errorf("while the queue is locked it took %v and saw %d", ids, seen)
			}
		})
	}
}
