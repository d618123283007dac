package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/announce"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// insertTries is how often an add is tried by our own statement while other sessions insert
// its tasks and queues at the same moment. Then the schema's function adds the jobs, since
// it sees what was committed after it began.
const insertTries = 5

// An Inserter adds jobs in separate transactions, by the statements of db/queries/add.sql,
// and has them announced.
//
// The statements do what add_job and add_jobs do. Two cases are left to the functions. A job
// that has the key and is running, or has no attempts left, needs another statement that
// retires it; that happens at most once in each run of a keyed job. And in an AddAll with a
// few keys, rows have to be locked in the order of the keys before the first is changed;
// such a call notifies only once anyway. Unique jobs are left to functions, too.
type Inserter struct {
	q        *dbgen.Queries
	announce *announce.Announcer
}

// NewInserter makes an Inserter. The queries run on the announcer's connections.
func NewInserter(q *dbgen.Queries, a *announce.Announcer) *Inserter {
	return &Inserter{q: q, announce: a}
}

// Add is the function Add in a separate transaction.
func (ins *Inserter) Add(ctx context.Context, s Spec) (row *job.Row, err error) {
	if s.unique() {
		return again(func() (*job.Row, error) { return Add(ctx, ins.q, s) })
	}
	notify, silent := ins.announce.Begin(), 0
	defer func() { ins.announce.End(silent) }()
	for range insertTries {
		var found insertedRow
		found, err = ins.insert(ctx, s, notify)
		if unsettled(err) && !notify {
			silent = 1
		}
		switch {
		case err == nil:
			if !notify && !(s.KeyMode == dedupeMode && found.Revision > 0) {
				silent = 1
			}
			return ins.named(ctx, s, found)
		case errors.Is(err, pgx.ErrNoRows) && s.Key != "" && s.KeyMode != dedupeMode:
			return Add(ctx, ins.q, s)
		case errors.Is(err, pgx.ErrNoRows) || retry.Of(err) == retry.Contention:
			continue
		default:
			return nil, explained(err)
		}
	}
	return Add(ctx, ins.q, s)
}

// again calls an add until no other session is in its way, insertTries times at most.
func again[T any](add func() (T, error)) (added T, err error) {
	for range insertTries {
		if added, err = add(); retry.Of(err) != retry.Contention {
			break
		}
	}
	return added, err
}

const dedupeMode = "unsafe_dedupe"

// unsettled reports whether a statement that failed may have been committed.
func unsettled(err error) bool {
	var answer *pgconn.PgError
	return err != nil && !errors.Is(err, pgx.ErrNoRows) && !errors.As(err, &answer) && !pgconn.SafeToRetry(err)
}

// insertedRow is what the statements for one job return.
type insertedRow dbgen.AddPlainRow

func (ins *Inserter) insert(ctx context.Context, s Spec, notify bool) (insertedRow, error) {
	flags, err := flagsObject(s.Flags)
	if err != nil {
		return insertedRow{}, err
	}
	plain := dbgen.AddPlainParams{
		Announce: notify, Task: s.Task, Queue: given(s.Queue), Payload: string(s.Payload),
		RunAt: givenTime(s.RunAt), MaxAttempts: givenInt(s.MaxAttempts), Priority: int32(s.Priority),
		Flags: given(flags),
	}
	switch {
	case s.Key == "":
		row, err := ins.q.AddPlain(ctx, plain)
		return insertedRow(row), err
	case s.KeyMode == dedupeMode:
		row, err := ins.q.AddDeduped(ctx, dbgen.AddDedupedParams{
			Announce: plain.Announce, Key: s.Key, Task: plain.Task, Queue: plain.Queue, Payload: plain.Payload,
			RunAt: plain.RunAt, MaxAttempts: plain.MaxAttempts, Priority: plain.Priority, Flags: plain.Flags,
		})
		return insertedRow(row), err
	default:
		row, err := ins.q.AddKeyed(ctx, dbgen.AddKeyedParams{
			Announce: plain.Announce, Key: s.Key, Task: plain.Task, Queue: plain.Queue, Payload: plain.Payload,
			RunAt: plain.RunAt, MaxAttempts: plain.MaxAttempts, Priority: plain.Priority, Flags: plain.Flags,
			PreserveRunAt: s.KeyMode == "preserve_run_at",
		})
		return insertedRow(row), err
	}
}

// named makes a job of a row. Its task and queue are those of the spec, unless the job
// existed before, or a trigger has changed them.
func (ins *Inserter) named(ctx context.Context, s Spec, r insertedRow) (*job.Row, error) {
	row := storedRow{
		ID: r.ID, Payload: r.Payload, Priority: r.Priority, RunAt: r.RunAt, Attempts: r.Attempts,
		MaxAttempts: r.MaxAttempts, LastError: r.LastError, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
		Key: r.Key, LockedAt: r.LockedAt, LockedBy: r.LockedBy, Revision: r.Revision, Flags: r.Flags,
		TaskID: r.TaskID, JobQueueID: r.JobQueueID,
	}
	if r.TaskID == r.FoundTaskID {
		row.Task = &s.Task
	}
	if r.JobQueueID != nil && *r.JobQueueID == r.FoundQueueID {
		row.Queue = &s.Queue
	}
	jobs, err := resolve(ctx, ins.q, []storedRow{row})
	if err != nil {
		return nil, err
	}
	return jobs[0], nil
}

// AddAll is the function AddAll in a separate transaction.
func (ins *Inserter) AddAll(ctx context.Context, specs []Spec, preserve bool) ([]*job.Row, error) {
	if slices.ContainsFunc(specs, func(s Spec) bool { return s.Key != "" || s.unique() }) {
		return again(func() ([]*job.Row, error) { return AddAll(ctx, ins.q, specs, preserve) })
	}
	args, err := manyArgs(specs)
	if err != nil {
		return nil, err
	}
	silent := 0
	args.Announce = ins.announce.Begin()
	defer func() { ins.announce.End(silent) }()
	for range insertTries {
		found, err := ins.q.AddMany(ctx, args)
		if !args.Announce && (len(found) > 0 || unsettled(err)) {
			silent = len(specs)
		}
		switch {
		case err == nil && len(found) > 0:
			rows := make([]storedRow, len(found))
			for i, row := range found {
				rows[i] = storedRow(row)
			}
			return resolve(ctx, ins.q, rows)
		case err == nil || retry.Of(err) == retry.Contention:
			continue
		default:
			return nil, explained(err)
		}
	}
	return AddAll(ctx, ins.q, specs, preserve)
}

// manyArgs are the specs as arrays.
func manyArgs(specs []Spec) (dbgen.AddManyParams, error) {
	n := len(specs)
	args := dbgen.AddManyParams{
		Tasks: make([]int32, n), Payloads: make([]string, n), Queues: make([]int32, n),
		RunAts: make([]pgtype.Timestamptz, n), MaxAttempts: make([]int32, n),
		Priorities: make([]int32, n), Flags: make([]string, n),
		TaskNames: []string{}, QueueNames: []string{},
	}
	tasks, queues := numbering{}, numbering{}
	for i, s := range specs {
		args.Tasks[i] = tasks.number(s.Task, &args.TaskNames)
		if s.Queue != "" {
			args.Queues[i] = queues.number(s.Queue, &args.QueueNames)
		}
		args.Payloads[i], args.RunAts[i] = string(s.Payload), Timestamp(s.RunAt)
		args.MaxAttempts[i], args.Priorities[i] = int32(s.MaxAttempts), int32(s.Priority)
		flags, err := flagsObject(s.Flags)
		if err != nil {
			return args, fmt.Errorf("job %d: %w", i, err)
		}
		args.Flags[i] = flags
	}
	return args, nil
}

// numbering numbers names from 1, in the order in which they are met.
type numbering map[string]int32

func (n numbering) number(name string, names *[]string) int32 {
	if known, ok := n[name]; ok {
		return known
	}
	*names = append(*names, name)
	n[name] = int32(len(*names))
	return n[name]
}

// flagsObject is the value of the flags column for flags; "" for null.
func flagsObject(flags []string) (string, error) {
	if len(flags) == 0 {
		return "", nil
	}
	object := make(map[string]bool, len(flags))
	for _, flag := range flags {
		object[flag] = true
	}
	text, err := json.Marshal(object)
	if err != nil {
		return "", fmt.Errorf("encoding the flags: %w", err)
	}
	return string(text), nil
}
