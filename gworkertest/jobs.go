package gworkertest

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/store"
)

// lookTimeout bounds a look into the queue, which may have to wait for a
// connection that the test holds.
const lookTimeout = 30 * time.Second

// DB is what pgx sees a database through: a pgx.Tx, *pgx.Conn or *pgxpool.Pool.
type DB interface {
	// Exec runs a statement, as pgx.Tx does.
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	// Query runs a query, as pgx.Tx does.
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	// QueryRow runs a query for one row, as pgx.Tx does.
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// SQLDB is what database/sql sees a database through: a *sql.Tx, *sql.Conn or
// *sql.DB.
type SQLDB interface {
	// ExecContext runs a statement, as sql.Tx does.
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	// QueryContext runs a query, as sql.Tx does.
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Jobs looks at the jobs of a queue with the eyes of one session: inside a
// transaction it sees what that has added, and outside only what is committed.
// Jobs that a worker has completed are gone.
type Jobs struct {
	on     func(*statement.Set) *dbgen.Queries
	schema string
}

// JobsIn looks through a pgx transaction, connection or pool.
func JobsIn(db DB) Jobs {
	return Jobs{on: func(s *statement.Set) *dbgen.Queries { return s.On(db) }}
}

// JobsInSQL looks through a database/sql transaction, connection or pool, of any
// PostgreSQL driver.
func JobsInSQL(db SQLDB) Jobs {
	return Jobs{on: func(s *statement.Set) *dbgen.Queries { return s.OnSQL(db) }}
}

// InSchema is for a queue in another schema than graphile_worker.
func (j Jobs) InSchema(name string) Jobs {
	j.schema = name
	return j
}

// Require fails the test unless exactly one job matches want, and returns it. A
// job matches if it has the value of each field of want that is not zero: so
// want must have a Task, and a Payload that is nil matches any. Payloads are
// compared by what they mean as JSON, times to the microsecond, which is how
// exactly PostgreSQL stores them, and flags as sets.
//
// A spec of a [gworker.TaskDefinition] can be given as it is. KeyMode, UniqueFor, UniqueKey
// and UniqueScope are ignored, since a job's row does not have them.
func (j Jobs) Require(t testing.TB, want gworker.JobSpec) *gworker.JobRow {
	t.Helper()
	found, others := j.match(t, want)
	switch len(found) {
	case 1:
		return found[0]
	case 0:
		t.Fatalf("gworkertest: no job is like this:\n%s%s", describeSpec(want), describeOthers(want, others))
	default:
		t.Fatalf("gworkertest: %d jobs are like this, and one is wanted:\n%s%s", len(found), describeSpec(want), describeRows(found))
	}
	return nil
}

// RequireNone fails the test if any job matches want, as Require matches. With
// only a Task in want, there must be no job of that task.
func (j Jobs) RequireNone(t testing.TB, want gworker.JobSpec) {
	t.Helper()
	if found, _ := j.match(t, want); len(found) > 0 {
		t.Fatalf("gworkertest: %d jobs are like this, and none is wanted:\n%s%s", len(found), describeSpec(want), describeRows(found))
	}
}

// List returns the jobs of a task, or with "" all jobs, in the order in which
// they were added.
func (j Jobs) List(t testing.TB, task string) []*gworker.JobRow {
	t.Helper()
	rows, err := j.rows(t.Context(), task, 0)
	if err != nil {
		t.Fatalf("gworkertest: reading the jobs: %v", err)
	}
	return rows
}

func (j Jobs) rows(ctx context.Context, task string, id int64) ([]*gworker.JobRow, error) {
	name, err := schema.Parse(j.schema)
	if err != nil {
		return nil, err
	}
	// The context of a test has ended where its clean-up functions run.
	ctx = context.WithoutCancel(ctx)
	set := statement.NewSet(statement.Options{Schema: name, Timeout: lookTimeout})
	found, err := store.ListForTest(ctx, j.on(set), task, id)
	var rows []*gworker.JobRow
	for _, r := range found {
		rows = append(rows, (*gworker.JobRow)(r))
	}
	return rows, err
}

// match returns the jobs that match, and all the others.
func (j Jobs) match(t testing.TB, want gworker.JobSpec) (found, others []*gworker.JobRow) {
	t.Helper()
	if want.Task == "" {
		t.Fatalf("gworkertest: JobSpec.Task is empty: name the task whose jobs are meant, or use List")
	}
	if err := want.Validate(); err != nil {
		t.Fatalf("gworkertest: %v", err)
	}
	for _, row := range j.List(t, "") {
		if len(differences(want, row)) == 0 {
			found = append(found, row)
		} else {
			others = append(others, row)
		}
	}
	return found, others
}
