package scheduler_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

// TestQueueOrderWhileItsLockMoves: a claim's walk takes time, and a queue that was
// locked at its first job may be free again at a later one. Several claimers work
// off one queue, whose jobs lie far apart in the walk.
func TestQueueOrderWhileItsLockMoves(t *testing.T) {
	claims := map[string]func(context.Context, *dbgen.Queries, string) (int64, pgtype.Timestamptz, error){
		"plain": func(ctx context.Context, q *dbgen.Queries, worker string) (int64, pgtype.Timestamptz, error) {
			rows, err := q.ClaimJobs(ctx, dbgen.ClaimJobsParams{Tasks: []string{"x"}, MaxJobs: 1, WorkerID: worker})
			if err != nil || len(rows) == 0 {
				return 0, pgtype.Timestamptz{}, err
			}
			return rows[0].ID, rows[0].LockedAt, nil
		},
		"selective": func(ctx context.Context, q *dbgen.Queries, worker string) (int64, pgtype.Timestamptz, error) {
			rows, err := q.ClaimSelectedJobs(ctx, dbgen.ClaimSelectedJobsParams{
				Tasks: []string{}, MaxJobs: 1, WorkerID: worker, LimitedTasks: []string{"x"}, Rooms: []int32{1},
				ForbiddenFlags: []string{"none"}, AcceptedFlags: []string{},
			})
			if err != nil || len(rows) == 0 {
				return 0, pgtype.Timestamptz{}, err
			}
			return rows[0].ID, rows[0].LockedAt, nil
		},
	}
	for name, claim := range claims {
		t.Run(name, func(t *testing.T) {
			pool := testdb.Pool(t, testdb.Migrated(t))
			const jobs, between, claimers = 150, 40, 6
			_, err := pool.Exec(t.Context(), `
				select graphile_worker.add_job('x', queue_name => 'stuck', run_at => now() - interval '1 hour' + n * interval '1 ms')
				from generate_series(1, $1::int) n where n % $2 > 0
				union all
				select graphile_worker.add_job('x', queue_name => 'q', run_at => now() - interval '1 hour' + n * interval '1 ms')
				from generate_series(1, $1) n where n % $2 = 0`, jobs*between, between)
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
			var wait sync.WaitGroup
			for i := range claimers {
				wait.Go(func() {
					worker := fmt.Sprintf("gworker_%d", i)
					for t.Context().Err() == nil {
						id, lockedAt, err := claim(t.Context(), queries, worker)
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						if id > 0 {
							order = append(order, id) // nobody else has one of this queue now
						}
						done := len(order) == jobs
						mu.Unlock()
						if id > 0 {
							_, err = queries.CompleteJobs(t.Context(), dbgen.CompleteJobsParams{
								Ids: []int64{id}, Attempts: []int32{1}, LockedAts: []pgtype.Timestamptz{lockedAt}, WorkerID: worker,
							})
							if err != nil {
								t.Error(err)
								return
							}
						}
						if done {
							return
						}
					}
				})
			}
			wait.Wait()
			if len(order) != jobs || !slices.IsSorted(order) {
				t.Errorf("ran %d of %d jobs, in the order %v", len(order), jobs, order)
			}
		})
	}
}

// TestQueueWaitsForAJobThatIsHeld: a job whose row a transaction holds is not
// overtaken by the others of its queue.
func TestQueueWaitsForAJobThatIsHeld(t *testing.T) {
	pool := testdb.Pool(t, testdb.Migrated(t))
	_, err := pool.Exec(t.Context(), `
		select graphile_worker.add_job('x', queue_name => q, run_at => now() - interval '1 hour' + n * interval '1 s')
		from (values (1, 'q'), (2, 'q'), (3, null)) v (n, q) order by n`)
	if err != nil {
		t.Fatal(err)
	}
	queries := statement.NewSet(statement.Options{}).On(pool)
	claim := func() (ids []int64) {
		t.Helper()
		rows, err := queries.ClaimJobs(t.Context(), dbgen.ClaimJobsParams{Tasks: []string{"x"}, MaxJobs: 5, WorkerID: "gworker_a"})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			ids = append(ids, row.ID)
		}
		return ids
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	if _, err := tx.Exec(t.Context(), "select from graphile_worker._private_jobs where id = 1 for update"); err != nil {
		t.Fatal(err)
	}
	if ids := claim(); !slices.Equal(ids, []int64{3}) {
		t.Errorf("while job 1 is held the claim took %v, want only job 3, which has no queue", ids)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ids := claim(); !slices.Equal(ids, []int64{1}) {
		t.Errorf("the next claim took %v, want job 1", ids)
	}
}
