package scheduler_test

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/testdb"
)

// TestClaimsWriteTheLocksTheyAreToldTo: one statement serves locked and held claims.
// Whatever it writes, it takes the same jobs and counts the attempt.
func TestClaimsWriteTheLocksTheyAreToldTo(t *testing.T) {
	for _, c := range []struct {
		name   string
		lock   []string
		locked []string // payloads of the jobs
	}{
		{"all", nil, []string{`"a"`, `"b"`, `"c"`, `"d"`}},
		{"none", []string{}, nil},
		{"those of a task", []string{"other", "lock"}, []string{`"b"`, `"d"`}},
		{"those of an unknown task", []string{"unknown"}, nil},
	} {
		for name, lookAt := range map[string]int32{"plain": 0, "queued": 100} {
			t.Run(c.name+", "+name, func(t *testing.T) {
				t.Parallel()
				pool := testdb.Pool(t, testdb.Migrated(t))
				_, err := pool.Exec(t.Context(), `
					select graphile_worker.add_job('hold', '"a"'), graphile_worker.add_job('lock', '"b"'),
						graphile_worker.add_job('hold', '"c"', 'q'), graphile_worker.add_job('lock', '"d"', 'r'),
						graphile_worker.add_job('lock', '"e"', 'r')`)
				if err != nil {
					t.Fatal(err)
				}
				var payloads, locked []string
				err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
					rows := claimAll(t, tx, lookAt, []string{"hold", "lock"}, c.lock)
					for _, row := range rows {
						payloads = append(payloads, string(row.Payload))
						if row.LockedAt.Valid {
							locked = append(locked, string(row.Payload))
						}
						if *row.Attempts != 1 {
							t.Errorf("job %s comes as its attempt %d, want 1", row.Payload, *row.Attempts)
						}
						if queue := map[string]string{`"c"`: "q", `"d"`: "r"}[string(row.Payload)]; row.Queue != queue && (row.Queue != nil || queue != "") {
							t.Errorf("job %s comes with the queue %v, want %q", row.Payload, row.Queue, queue)
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if want := []string{`"a"`, `"b"`, `"c"`, `"d"`}; !slices.Equal(payloads, want) || !slices.Equal(locked, c.locked) {
					t.Errorf("claimed %v and locked %v, want %v and %v", payloads, locked, want, c.locked)
				}
				written := texts(t, pool, `select payload::text from graphile_worker._private_jobs
					where locked_by = 'gworker_a' and locked_at is not null and attempts = 1 order by payload::text`)
				if !slices.Equal(written, c.locked) {
					t.Errorf("in the table %v are locked, want %v", written, c.locked)
				}
				var queues []string
				for job, queue := range map[string]string{`"c"`: "q", `"d"`: "r"} {
					if slices.Contains(c.locked, job) {
						queues = append(queues, queue)
					}
				}
				slices.Sort(queues)
				if written := texts(t, pool, `select queue_name from graphile_worker._private_job_queues
					where locked_by = 'gworker_a' and locked_at is not null order by 1`); !slices.Equal(written, queues) {
					t.Errorf("the queues %v are locked, want %v", written, queues)
				}
			})
		}
	}
}

// claimAll claims the jobs of tasks, and writes the locks of those of the tasks in lock.
func claimAll(t *testing.T, db dbgen.DBTX, lookAt int32, tasks, lock []string) (claimed []dbgen.ClaimJobsRow) {
	t.Helper()
	const room = 1 << 40
	q := dbgen.New(db)
	if lookAt == 0 {
		rows, err := q.ClaimJobs(t.Context(), dbgen.ClaimJobsParams{
			Tasks: tasks, MaxJobs: 10, MaxBytes: room, LockTasks: lock, WorkerID: "gworker_a",
		})
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	rows, err := q.ClaimQueuedJobs(t.Context(), dbgen.ClaimQueuedJobsParams{
		Tasks: tasks, MaxJobs: 10, MaxBytes: room, LockTasks: lock, WorkerID: "gworker_a", LookAt: lookAt,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		c := dbgen.ClaimJobsRow{ID: row.ID, Payload: row.Payload, Attempts: row.Attempts, LockedAt: row.LockedAt}
		if row.Queue != nil {
			c.Queue = *row.Queue
		}
		claimed = append(claimed, c)
	}
	return claimed
}

// texts is the only column of what a query finds.
func texts(t *testing.T, db dbgen.DBTX, query string) []string {
	t.Helper()
	rows, err := db.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return found
}
