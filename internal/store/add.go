// Package store adds and removes jobs for the client: it turns specs into arguments of
// generated statements, and rows into jobs, on a pool, a pgx transaction or a
// database/sql transaction.
//
// Inside a caller's transaction it calls the schema's functions. Outside, an Inserter adds
// jobs by statements that have the functions' effect but do not each notify (see
// internal/announce for the reason). Each of them is one statement with one snapshot: if
// another session gets in its way, it adds nothing and is tried again.
//
// Validated specs come in, rows as stored go out. The one thing not to break: every
// function adds by one statement on the caller's connection, and afterwards reads at
// most names, so that inside a caller's transaction a job exists exactly if that
// transaction commits.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
)

// Spec is a validated job spec. Empty strings and zeros mean "not given".
type Spec struct {
	Task        string
	Payload     json.RawMessage
	Queue       string
	RunAt       time.Time
	MaxAttempts int
	Key         string
	KeyMode     string
	Priority    int
	Flags       []string

	UniqueFor   time.Duration
	UniqueKey   string
	UniqueScope string
}

// ErrNotFound says that no job has the key.
var ErrNotFound = errors.New("no such job")

// ErrKeyBusy says that the row of a job's key was locked by another session.
var ErrKeyBusy = errors.New("the job's key is busy")

// ErrNotInstalled says that the schema of the queue is not there.
var ErrNotInstalled = errors.New("the queue is not installed (Client.Migrate and the start of a worker install it)")

// keyBusyState is the SQLSTATE that add_job raises for ErrKeyBusy.
const keyBusyState = "GWNOR"

// explained wraps an error in the one that callers check for. The errors of every driver
// have a SQLSTATE.
func explained(err error) error {
	var answer interface{ SQLState() string }
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.SQLState() {
	case keyBusyState:
		return fmt.Errorf("%w: %w", ErrKeyBusy, err)
	case pgerrcode.InvalidSchemaName, pgerrcode.UndefinedTable:
		return fmt.Errorf("%w: %w", ErrNotInstalled, err)
	}
	return err
}

// Add adds one job.
func Add(ctx context.Context, q *dbgen.Queries, s Spec) (*job.Row, error) {
	if s.unique() {
		return addUnique(ctx, q, s)
	}
	row, err := q.AddJob(ctx, dbgen.AddJobParams{
		Task: s.Task, Payload: string(s.Payload), Queue: given(s.Queue), RunAt: givenTime(s.RunAt),
		MaxAttempts: givenInt(s.MaxAttempts), Key: given(s.Key), Priority: int32(s.Priority),
		Flags: s.Flags, KeyMode: s.KeyMode,
	})
	if errors.Is(err, pgx.ErrNoRows) { // functions from before revision 19 raise no GWNOR
		return nil, ErrKeyBusy
	}
	if err != nil {
		return nil, explained(err)
	}
	rows := []storedRow{storedRow(row)}
	jobs, err := resolve(ctx, q, rows)
	if err != nil {
		return nil, err
	}
	return jobs[0], nil
}

// AddAll adds any number of jobs in one statement. Their key modes are the
// same: preserve says which. It returns the jobs in the order of the specs; a
// spec whose key is busy has none.
func AddAll(ctx context.Context, q *dbgen.Queries, specs []Spec, preserve bool) ([]*job.Row, error) {
	if anyUnique(specs) {
		return addAllUnique(ctx, q, specs, preserve)
	}
	if manyKeys(specs) {
		for range insertTries {
			if rows, err := addManyKeyed(ctx, q, specs, preserve); err != nil || len(rows) > 0 {
				return rows, err
			}
		}
	}
	args, err := addJobsArgs(specs, preserve)
	if err != nil {
		return nil, err
	}
	found, err := q.AddJobs(ctx, args)
	if err != nil {
		return nil, explained(err)
	}
	rows := make([]storedRow, len(found))
	for i, row := range found {
		rows[i] = storedRow(row)
	}
	return resolve(ctx, q, inOrder(rows, specs))
}

// addJobsArgs are the specs as arrays.
func addJobsArgs(specs []Spec, preserve bool) (dbgen.AddJobsParams, error) {
	n := len(specs)
	args := dbgen.AddJobsParams{
		Tasks: make([]string, n), Payloads: make([]string, n), Queues: make([]string, n),
		RunAts: make([]pgtype.Timestamptz, n), MaxAttempts: make([]int32, n), Keys: make([]string, n),
		Priorities: make([]int32, n), Flags: make([]string, n), PreserveRunAt: preserve,
	}
	for i, s := range specs {
		args.Tasks[i], args.Payloads[i], args.Queues[i] = s.Task, string(s.Payload), s.Queue
		args.RunAts[i], args.MaxAttempts[i], args.Keys[i] = Timestamp(s.RunAt), int32(s.MaxAttempts), s.Key
		args.Priorities[i] = int32(s.Priority)
		if len(s.Flags) > 0 {
			flags, err := json.Marshal(s.Flags)
			if err != nil {
				return args, fmt.Errorf("encoding the flags of job %d: %w", i, err)
			}
			args.Flags[i] = string(flags)
		}
	}
	return args, nil
}

// inOrder puts rows into the order of their specs, which it finds by the keys: a call with
// many keys inserts in the order of the keys.
func inOrder(rows []storedRow, specs []Spec) []storedRow {
	byKey := make(map[string]storedRow)
	plain := make([]storedRow, 0, len(rows))
	for _, row := range rows {
		if row.Key != nil {
			byKey[*row.Key] = row
		} else {
			plain = append(plain, row)
		}
	}
	if len(byKey) == 0 {
		return rows
	}
	ordered := make([]storedRow, 0, len(rows))
	for _, s := range specs {
		row, found := byKey[s.Key]
		switch {
		case found:
			ordered = append(ordered, row)
		case s.Key == "" && len(plain) > 0:
			ordered, plain = append(ordered, plain[0]), plain[1:]
		}
	}
	if len(ordered) != len(rows) { // a trigger has changed keys
		return rows
	}
	return ordered
}

// Remove removes the job with the key, or, if it runs, keeps it from being
// retried.
func Remove(ctx context.Context, q *dbgen.Queries, key string) (*job.Row, error) {
	row, err := q.RemoveJob(ctx, key)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, explained(err)
	}
	jobs, err := resolve(ctx, q, []storedRow{storedRow(row)})
	if err != nil {
		return nil, err
	}
	return jobs[0], nil
}

func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func givenInt(n int) *int32 {
	if n == 0 {
		return nil
	}
	v := int32(n)
	return &v
}

func givenTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Timestamp is a time in a list whose elements may be null, as the zero time is.
func Timestamp(t time.Time) pgtype.Timestamptz {
	return pgtype.Timestamptz{Time: t, Valid: !t.IsZero()}
}
