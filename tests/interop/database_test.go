package interop_test

import (
	"context"
	_ "embed"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

//go:embed record.sql
var recordSQL string

// A database is one test's own.
type database struct {
	t    *testing.T
	url  string
	conn *pgx.Conn
}

// emptyDatabase has the record of runs and no queue yet.
func emptyDatabase(t *testing.T) *database {
	t.Helper()
	db := &database{t: t, url: testdb.Empty(t)}
	db.conn = db.connect()
	db.exec(recordSQL)
	return db
}

// gworkerDatabase has the schema as our migrations make it.
func gworkerDatabase(t *testing.T) *database {
	t.Helper()
	db := emptyDatabase(t)
	db.migrate()
	return db
}

// nodeDatabase has the schema as a Node version makes it.
func nodeDatabase(t *testing.T, v node.Version) *database {
	t.Helper()
	db := emptyDatabase(t)
	if err := db.migrateWithNode(v).end(t); err != nil {
		t.Fatalf("%s could not migrate: %v", v, err)
	}
	return db
}

// rustDatabase has the schema as a release of the crate makes it.
func rustDatabase(t *testing.T, v rust.Version) *database {
	t.Helper()
	db := emptyDatabase(t)
	if err := db.migrateWithRust(v).end(t); err != nil {
		t.Fatalf("%s could not migrate: %v", v, err)
	}
	return db
}

func (db *database) migrateWithRust(v rust.Version) *process {
	db.t.Helper()
	cmd := rust.Command(db.t.Context(), db.t, v, "migrate")
	return start(db.t, v.String()+" migration", cmd, order{ConnectionString: db.url}, newJournal())
}

func (db *database) migrate() {
	db.t.Helper()
	if _, err := migrate.Up(db.t.Context(), db.pool(), migrate.Options{}); err != nil {
		db.t.Fatalf("migrating: %v", err)
	}
}

func (db *database) migrateWithNode(v node.Version) *process {
	db.t.Helper()
	cmd := node.Require(db.t).Command(db.t.Context(), db.t, "migrate.mjs")
	return start(db.t, v.String()+" migration", cmd, order{ConnectionString: db.url, Package: v.Package}, newJournal())
}

func (db *database) pool() *pgxpool.Pool {
	db.t.Helper()
	pool, err := pgxpool.New(db.t.Context(), db.url)
	if err != nil {
		db.t.Fatalf("connecting: %v", err)
	}
	db.t.Cleanup(pool.Close)
	return pool
}

// joinedBy has the side's migrations run, where it has some beyond ours: these wait
// for the end of every claim that is held.
func (db *database) joinedBy(s side) {
	db.t.Helper()
	if s.isRust() {
		db.migrateWithRust(s.crate).wait(db.t)
	}
}

func (db *database) connect() *pgx.Conn {
	db.t.Helper()
	conn, err := pgx.Connect(db.t.Context(), db.url)
	if err != nil {
		db.t.Fatalf("connecting: %v", err)
	}
	db.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (db *database) exec(sql string, args ...any) {
	db.t.Helper()
	if _, err := db.conn.Exec(db.t.Context(), sql, args...); err != nil {
		db.t.Fatalf("%s: %v", sql, err)
	}
}

// query returns the rows that a statement finds, each as a T by column order.
func query[T any](db *database, sql string, args ...any) []T {
	db.t.Helper()
	rows, err := db.conn.Query(db.t.Context(), sql, args...)
	if err != nil {
		db.t.Fatalf("%s: %v", sql, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if err != nil {
		db.t.Fatalf("%s: %v", sql, err)
	}
	return found
}

// values returns the first column of what a statement finds.
func values[T any](db *database, sql string, args ...any) []T {
	db.t.Helper()
	rows, err := db.conn.Query(db.t.Context(), sql, args...)
	if err != nil {
		db.t.Fatalf("%s: %v", sql, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		db.t.Fatalf("%s: %v", sql, err)
	}
	return found
}

// value returns the one value that a statement finds.
func value[T any](db *database, sql string, args ...any) (found T) {
	db.t.Helper()
	if err := db.conn.QueryRow(db.t.Context(), sql, args...).Scan(&found); err != nil {
		db.t.Fatalf("%s: %v", sql, err)
	}
	return found
}

// storedJob is a row of the queue, without what differs from test to test: its
// id, its holder, and its times of creation, change and locking.
type storedJob struct {
	Task        string
	Queue       *string
	Payload     string // as PostgreSQL spells it
	Priority    int
	RunAt       time.Time
	Attempts    int
	MaxAttempts int
	LastError   *string
	Key         *string
	Revision    int
	Flags       *string
	Available   bool
	Locked      bool
	QueueLocked bool
}

// jobs returns the queue in the order of insertion.
func (db *database) jobs() []storedJob {
	db.t.Helper()
	return query[storedJob](db, `
		select t.identifier, q.queue_name, j.payload::jsonb::text, j.priority, j.run_at, j.attempts,
			j.max_attempts, j.last_error, j.key, j.revision, j.flags::text, j.is_available,
			j.locked_at is not null and j.locked_by is not null,
			q.locked_at is not null or q.locked_by is not null
		from graphile_worker._private_jobs j
		join graphile_worker._private_tasks t on t.id = j.task_id
		left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
		order by j.id`)
}

// seen returns the jobs as their handlers saw them, in the order of the jobs'
// insertion and their runs.
func (db *database) seen() []seenJob {
	db.t.Helper()
	jobs := values[seenJob](db, "select job from interop.runs order by job_id, id")
	for i := range jobs {
		jobs[i].ID = 0
	}
	return jobs
}

// closeGate keeps every run that has started from ending, until the returned
// function is called.
func (db *database) closeGate() (open func()) {
	db.t.Helper()
	keeper := db.connect()
	if _, err := keeper.Exec(db.t.Context(), "select pg_advisory_lock(hashtext('interop.gate'))"); err != nil {
		db.t.Fatalf("closing the gate: %v", err)
	}
	return func() {
		db.t.Helper()
		if err := keeper.Close(db.t.Context()); err != nil {
			db.t.Fatalf("opening the gate: %v", err)
		}
	}
}

// await looks again and again until enough says so.
func (db *database) await(what string, enough func() bool) {
	db.t.Helper()
	for give := time.Now().Add(deadline); !enough(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(give) {
			db.t.Fatalf("waiting for %s: %s have passed", what, deadline)
		}
	}
}
