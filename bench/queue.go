package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// A queue is what differs between the tables of the families: Graphile Worker's,
// which gworker, Node and the raw limits share, the same as Rust's migrations make
// them, and River's.
type queue interface {
	name() string
	migrate(ctx context.Context, pool *pgxpool.Pool) error
	// fill stores jobs that are due.
	fill(ctx context.Context, pool *pgxpool.Pool, f filling) error
	// left counts the jobs of the task that have not ended: neither done nor
	// failed for good; failed counts those.
	left(ctx context.Context, pool *pgxpool.Pool) (int64, error)
	failed(ctx context.Context, pool *pgxpool.Pool) (int64, error)
	// tail says whether the jobs with ids above this have all ended. It is quick
	// if they are few.
	tail(ctx context.Context, pool *pgxpool.Pool, above int64) (bool, error)
	// feed is the statement that adds $1 jobs, numbered from $2 on, with $3 as
	// the payload's time, and announces them.
	feed() string
	// addOne is a statement that adds a job with the payload $1.
	addOne() string
}

// A filling describes jobs to store beforehand.
type filling struct {
	jobs     int
	queues   int    // named ones, over which the jobs are spread; 0: none
	payload  string // an SQL expression of n; empty: the number alone
	attempts int    // at most; 0: 25
	failures int    // attempts that fail, of all jobs together, and are tried again
	stuck    string // what stands in the table before them: "", "future", "failed", "queues" or "others"
	howMany  int    // of those
}

func (f filling) with(defaultPayload string) filling {
	if f.payload == "" {
		f.payload = defaultPayload
	}
	if f.attempts == 0 {
		f.attempts = 25
	}
	return f
}

const numberAlone = `json_build_object('n', n)`

type graphile struct{}

func (graphile) name() string { return "Graphile Worker" }
func (graphile) migrate(ctx context.Context, pool *pgxpool.Pool) error {
	return migrateGraphile(ctx, pool)
}

func (graphile) fill(ctx context.Context, pool *pgxpool.Pool, f filling) error {
	f = f.with(numberAlone)
	statements := []string{fmt.Sprintf(`insert into graphile_worker._private_tasks (identifier) values ('%s'), ('%s')`, taskName, otherTask)}
	const columns = `insert into graphile_worker._private_jobs
		(task_id, job_queue_id, payload, priority, run_at, attempts, max_attempts, last_error)
		select (select id from graphile_worker._private_tasks where identifier = '%s'), `
	task := fmt.Sprintf(columns, taskName)
	switch f.stuck {
	case "future":
		statements = append(statements, task+fmt.Sprintf(`null, %s, -1, now() + interval '1 day', 0, 25, null
			from generate_series(1, %d) n`, numberAlone, f.howMany))
	case "failed":
		statements = append(statements, task+fmt.Sprintf(`null, %s, -1, now() - interval '1 day', 25, 25, 'failed'
			from generate_series(1, %d) n`, numberAlone, f.howMany))
	case "queues":
		statements = append(statements,
			`insert into graphile_worker._private_job_queues (queue_name, locked_at, locked_by)
			 select 'stuck ' || n, now(), 'pool-other' from generate_series(1, 2) n`,
			task+fmt.Sprintf(`(select id from graphile_worker._private_job_queues where queue_name = 'stuck ' || (n %% 2 + 1)),
			%s, -1, now() - interval '1 day', 0, 25, null from generate_series(1, %d) n`, numberAlone, f.howMany))
	case "others":
		statements = append(statements, fmt.Sprintf(columns, otherTask)+fmt.Sprintf(`null, %s, -1,
			now() - interval '1 day', 0, 25, null from generate_series(1, %d) n`, numberAlone, f.howMany))
	}
	queue := "null"
	if f.queues > 0 {
		statements = append(statements, fmt.Sprintf(`insert into graphile_worker._private_job_queues (queue_name)
			select 'queue ' || n from generate_series(0, %d - 1) n`, f.queues))
		queue = fmt.Sprintf(`(select id from graphile_worker._private_job_queues where queue_name = 'queue ' || (n %% %d))`, f.queues)
	}
	if f.jobs > 0 {
		statements = append(statements, task+fmt.Sprintf(`%s, %s, 0,
			now() - interval '1 hour' + n * interval '1 microsecond', 0, %d, null
			from generate_series(1, %d) n`, queue, f.payload, f.attempts, f.jobs))
	}
	return execAll(ctx, pool, statements)
}

// notEnded tells the jobs that are still to be done from those that stood in the
// table before them.
const notEnded = `from graphile_worker._private_jobs j
	where j.task_id = (select id from graphile_worker._private_tasks where identifier = '` + taskName + `')
	and j.priority >= 0`

func (graphile) left(ctx context.Context, pool *pgxpool.Pool) (n int64, err error) {
	err = pool.QueryRow(ctx, `select count(*) `+notEnded+` and (j.locked_at is not null or j.attempts < j.max_attempts)`).Scan(&n)
	return n, err
}

func (graphile) failed(ctx context.Context, pool *pgxpool.Pool) (n int64, err error) {
	err = pool.QueryRow(ctx, `select count(*) `+notEnded+` and j.locked_at is null and j.attempts >= j.max_attempts`).Scan(&n)
	return n, err
}

func (graphile) tail(ctx context.Context, pool *pgxpool.Pool, above int64) (ended bool, err error) {
	err = pool.QueryRow(ctx, `select not exists (select from graphile_worker._private_jobs j
		where j.id > $1 and (j.locked_at is not null or j.attempts < j.max_attempts))`, above).Scan(&ended)
	return ended, err
}

func (graphile) feed() string {
	return `with added as (
		insert into graphile_worker._private_jobs (task_id, payload)
		select (select id from graphile_worker._private_tasks where identifier = '` + taskName + `'),
			json_build_object('n', n, 'at', $3::float8)
		from generate_series($2::bigint, $2::bigint + $1::bigint - 1) n
		returning 1
	) select pg_notify('jobs:insert', json_build_object('r', random(), 'count', count(*))::text) from added`
}

func (graphile) addOne() string {
	return `select from graphile_worker.add_job('` + taskName + `', $1::text::json)`
}

type rivers struct{}

func (rivers) name() string                                          { return "River" }
func (rivers) migrate(ctx context.Context, pool *pgxpool.Pool) error { return migrateRiver(ctx, pool) }

func (rivers) fill(ctx context.Context, pool *pgxpool.Pool, f filling) error {
	f = f.with(numberAlone)
	const columns = `insert into river_job (kind, args, state, scheduled_at, attempt, max_attempts, priority, finalized_at)
		select '%s', %s::jsonb, '%s', %s, %d, %d, %d, %s from generate_series(1, %d) n`
	var statements []string
	switch f.stuck {
	case "future":
		statements = append(statements, fmt.Sprintf(columns, otherTask, numberAlone, "scheduled", "now() + interval '1 day'", 0, 25, 1, "null", f.howMany))
	case "failed":
		statements = append(statements, fmt.Sprintf(columns, otherTask, numberAlone, "discarded", "now() - interval '1 day'", 25, 25, 1, "now()", f.howMany))
	case "":
	default:
		return fmt.Errorf("there is nothing like %q in River", f.stuck)
	}
	if f.queues > 0 {
		return errors.New("there are no named queues in River")
	}
	if f.jobs > 0 {
		statements = append(statements, fmt.Sprintf(columns, taskName, f.payload, "available",
			"now() - interval '1 hour' + n * interval '1 microsecond'", 0, f.attempts, 2, "null", f.jobs))
	}
	return execAll(ctx, pool, statements)
}

func (rivers) left(ctx context.Context, pool *pgxpool.Pool) (n int64, err error) {
	err = pool.QueryRow(ctx, `select count(*) from river_job where kind = '`+taskName+`' and finalized_at is null`).Scan(&n)
	return n, err
}

func (rivers) failed(ctx context.Context, pool *pgxpool.Pool) (n int64, err error) {
	err = pool.QueryRow(ctx, `select count(*) from river_job where kind = '`+taskName+`' and state = 'discarded'`).Scan(&n)
	return n, err
}

func (rivers) tail(ctx context.Context, pool *pgxpool.Pool, above int64) (ended bool, err error) {
	err = pool.QueryRow(ctx, `select not exists (select from river_job where id > $1 and finalized_at is null)`, above).Scan(&ended)
	return ended, err
}

func (rivers) feed() string {
	return `with added as (
		insert into river_job (kind, args, max_attempts, state)
		select '` + taskName + `', jsonb_build_object('n', n, 'at', $3::float8), 25, 'available'
		from generate_series($2::bigint, $2::bigint + $1::bigint - 1) n
		returning 1
	) select pg_notify(current_schema() || '.river_insert', '{"queue":"default"}') from (select count(*) from added) a`
}

func (rivers) addOne() string {
	return `with added as (
		insert into river_job (kind, args, max_attempts, state)
		values ('` + taskName + `', $1::text::jsonb, 25, 'available') returning 1
	) select pg_notify(current_schema() || '.river_insert', '{"queue":"default"}') from added`
}

func execAll(ctx context.Context, pool *pgxpool.Pool, statements []string) error {
	for _, s := range statements {
		if _, err := pool.Exec(ctx, s); err != nil {
			return fmt.Errorf("%.60s...: %w", strings.Join(strings.Fields(s), " "), err)
		}
	}
	return nil
}
