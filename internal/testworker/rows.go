package testworker

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/testdb"
)

// A Failure is what a failed attempt leaves on a job's row.
type Failure struct {
	Attempts    int
	LastError   string
	LockedBy    *string
	Delay       float64 // seconds between the failure and the next run
	IsAvailable bool
}

// ReadFailure reads what a failed attempt has left.
func ReadFailure(t *testing.T, pool *pgxpool.Pool, id int64) (f Failure) {
	t.Helper()
	testdb.Scan(t, pool, `select attempts, coalesce(last_error, ''), locked_by,
		extract(epoch from run_at - updated_at)::float8, is_available
		from graphile_worker._private_jobs where id = $1`, []any{id},
		&f.Attempts, &f.LastError, &f.LockedBy, &f.Delay, &f.IsAvailable)
	return f
}

// Row tells what is left of a job: "gone", or its attempts of how many, last
// error, key, and whether it can run again.
func Row(t *testing.T, pool *pgxpool.Pool, id int64) string {
	t.Helper()
	var row string
	testdb.Scan(t, pool, `select coalesce((select concat_ws('|', attempts || '/' || max_attempts, coalesce(last_error, '-'), key,
		case when locked_by is not null then 'locked' when attempts < max_attempts then 'again' else 'failed' end)
		from graphile_worker._private_jobs where id = $1), 'gone')`, []any{id}, &row)
	return row
}

// IsLocked reports whether a lock is written on the job's row.
func IsLocked(t *testing.T, pool *pgxpool.Pool, id int64) (locked bool) {
	t.Helper()
	testdb.Scan(t, pool, "select locked_at is not null from graphile_worker._private_jobs where id = $1", []any{id}, &locked)
	return locked
}

// NoLocks checks that no worker locks anything.
func NoLocks(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	var locks string
	testdb.Scan(t, pool, `select coalesce(string_agg(l, ', '), '') from (
		select format('job %s by %s', id, locked_by) from graphile_worker._private_jobs where locked_at is not null or locked_by is not null
		union all
		select format('queue %s by %s', queue_name, locked_by) from graphile_worker._private_job_queues where locked_at is not null or locked_by is not null
	) x (l)`, nil, &locks)
	if locks != "" {
		t.Errorf("locks are left: %s", locks)
	}
}
