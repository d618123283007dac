package scheduler

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
)

// lockAll has a claim write the locks of all that it takes.
var lockAll []string

// claimStatement is the claim of up to limit jobs of tasks that suits the cursor from where
// it begins. It writes the locks of jobs of the tasks in lock, see lockAll; the others are
// held by the transaction that it runs in.
func claimStatement(from cursor, tasks []string, limit int, lock []string, workerID string) (text string, args []any) {
	text, args = dbgen.ClaimJobs, []any{from.priority, from.runAt, tasks, from.blocked}
	if from.lookAt > 0 {
		text, args = dbgen.ClaimQueuedJobs, append(args, from.lookAt)
	}
	return text, append(args, int32(limit), int64(payloadCapacity), lock, workerID)
}

// selected is the claim of up to limit jobs of a selection. It writes the locks of all of
// them.
func (c *claimer) selected(limit int, s selection) dbgen.ClaimSelectedJobsParams {
	at, lockAt := c.clock.claim()
	return dbgen.ClaimSelectedJobsParams{
		Tasks: orEmpty(s.tasks), MaxJobs: int32(limit), MaxBytes: int64(payloadCapacity), WorkerID: c.workerID, At: at, LockAt: lockAt,
		LimitedTasks: orEmpty(s.limited), Rooms: orEmpty(s.rooms),
		ForbiddenFlags: orEmpty(s.forbidden), AcceptedFlags: orEmpty(c.flags.Accepted),
		RefusedIds: []int64{}, RefusedQueues: []string{}, OnlyIds: []int64{},
	}
}

// selectedArgs are the arguments of ClaimSelectedJobs, as sqlc orders them.
func selectedArgs(p dbgen.ClaimSelectedJobsParams) []any {
	return []any{p.MaxJobs, p.Look, p.LimitedTasks, p.Rooms, p.At, p.Tasks, p.ForbiddenFlags, p.AcceptedFlags, p.RefusedIds, p.RefusedQueues, p.OnlyIds, p.LockTasks, p.MaxBytes, p.WorkerID, p.LockAt}
}

// claimedRows are the answers to a claim. As there may be hundreds, they share their
// memory: jobs come in chunks, and short payloads in blocks.
type claimedRows struct {
	workerID string
	lockedAt time.Time // of those whose locks are not written
	here     time.Time // when the first row was here

	jobs  []*job.Claimed
	tasks []int32 // ids of the jobs' tasks
	found found
	// more and passed are of a claim that selects: further jobs may be runnable, and some
	// rows are locked by the transaction for nothing.
	more, passed bool
	// unlocked says that there are jobs whose locks a trigger has kept from being written.
	unlocked bool

	chunk []job.Claimed
	block []byte
}

const (
	rowChunk     = 64
	payloadBlock = 16 << 10
	longPayload  = 1 << 10 // has memory of its own
)

// claimedRow is a row of ClaimJobs and ClaimQueuedJobs.
type claimedRow struct {
	id                          int64
	flags                       []byte
	priority, maxAttempts       int16
	attempts                    int32              // with this one
	runAt, createdAt, updatedAt pgtype.Timestamptz // createdAt and updatedAt may be null
	revision                    pgtype.Int4
	task                        int32
	seen, looked, reached       pgtype.Int4
	lastError, key, queue       *string
	lockedAt                    pgtype.Timestamptz
}

// tell notes what a row tells besides its job.
func (c *claimedRows) tell(r *claimedRow) {
	c.unlocked = r.seen.Int32 < 0
	c.found = found{seen: max(0, int(r.seen.Int32)), looked: int(r.looked.Int32), reached: int(r.reached.Int32)}
}

func (c *claimedRows) read(rows pgx.Rows) error {
	defer rows.Close()
	var r claimedRow
	// The payload, which is copied, comes from the raw values.
	into := []any{
		&r.id, nil, &r.priority, &r.runAt, &r.attempts, &r.maxAttempts, &r.lastError, &r.createdAt,
		&r.updatedAt, &r.key, &r.revision, &r.flags, &r.task, &r.queue,
		&r.seen, &r.looked, &r.reached, &r.lockedAt,
	}
	counts := len(into) - 4
	none := make([]any, len(into))
	copy(none[counts:], into[counts:])
	for rows.Next() {
		raw := rows.RawValues()
		if raw[0] == nil { // no job
			if err := rows.Scan(none...); err != nil {
				return fmt.Errorf("reading the count of jobs: %w", err)
			}
			c.tell(&r)
			continue
		}
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("reading a job: %w", err)
		}
		c.tell(&r)
		c.tasks = append(c.tasks, r.task)
		c.jobs = append(c.jobs, c.fill(&r, raw[1]))
	}
	return rows.Err()
}

// readSelected reads the answer to ClaimSelectedJobs that holds jobs, but for those of the
// tasks in lock, whose locks are written.
func (c *claimedRows) readSelected(rows pgx.Rows, lock []string) error {
	defer rows.Close()
	for rows.Next() {
		r, err := pgx.RowToStructByPos[dbgen.ClaimSelectedJobsRow](rows)
		if err != nil {
			return fmt.Errorf("reading a job: %w", err)
		}
		c.more, c.passed = r.More, r.Passed
		if !r.LockedAt.Valid {
			if slices.Contains(lock, r.Task) {
				c.unlocked = true
				continue
			}
			r.LockedAt = pgtype.Timestamptz{Time: c.lockedAt, Valid: true}
		}
		c.jobs = append(c.jobs, lockedJob(listed(r), c.workerID))
	}
	return rows.Err()
}

func (c *claimedRows) fill(r *claimedRow, payload []byte) *job.Claimed {
	if len(c.chunk) == 0 {
		// At first few, as most claims find few.
		c.chunk = make([]job.Claimed, min(max(2*len(c.jobs), 1), rowChunk))
	}
	if c.here.IsZero() {
		c.here = time.Now()
	}
	j := &c.chunk[0]
	c.chunk = c.chunk[1:]
	attempt, lockedAt := int(r.attempts), c.lockedAt
	if r.lockedAt.Valid {
		lockedAt = r.lockedAt.Time
	}
	created := r.runAt.Time
	if r.createdAt.Valid {
		created = r.createdAt.Time
	}
	updated := created
	if r.updatedAt.Valid {
		updated = r.updatedAt.Time
	}
	j.Row = job.Row{
		ID: r.id, Queue: text(r.queue), Payload: c.keep(payload),
		Priority: int(r.priority), RunAt: r.runAt.Time,
		Attempts: attempt, MaxAttempts: int(r.maxAttempts), LastError: text(r.lastError),
		CreatedAt: created, UpdatedAt: updated,
		Key: text(r.key), Revision: int(r.revision.Int32), Flags: job.FlagNames(r.flags),
		LockedAt: lockedAt, LockedBy: c.workerID,
	}
	j.Lock, j.Here = job.Lock{By: c.workerID, At: lockedAt, Attempt: attempt}, c.here
	return j
}

// keep copies a payload, and leaves no room behind it for whoever appends.
func (c *claimedRows) keep(payload []byte) []byte {
	if len(payload) >= longPayload {
		return bytes.Clone(payload)
	}
	if cap(c.block)-len(c.block) < len(payload) {
		c.block = make([]byte, 0, payloadBlock)
	}
	begin := len(c.block)
	c.block = append(c.block, payload...)
	return c.block[begin:len(c.block):len(c.block)]
}

// taskNames are the names of tasks by their ids. An id keeps its meaning, so each is
// asked for once.
type taskNames struct {
	mu    sync.Mutex
	names map[int32]string
}

func newTaskNames() *taskNames { return &taskNames{names: make(map[int32]string)} }

// name sets the jobs' tasks.
func (t *taskNames) name(ctx context.Context, claimed *claimedRows, queries *dbgen.Queries) error {
	if unknown := t.unknown(claimed.tasks); len(unknown) > 0 {
		if err := t.learn(ctx, unknown, queries); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, c := range claimed.jobs {
		c.Task = t.names[claimed.tasks[i]]
	}
	return nil
}

// unknown lists the ids without a name, each once.
func (t *taskNames) unknown(ids []int32) (unknown []int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if t.names[id] == "" && !slices.Contains(unknown, id) {
			unknown = append(unknown, id)
		}
	}
	return unknown
}

func (t *taskNames) learn(ctx context.Context, ids []int32, queries *dbgen.Queries) error {
	tasks, err := queries.NameTasks(ctx, ids)
	if err != nil {
		return fmt.Errorf("looking up tasks: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, task := range tasks {
		t.names[task.ID] = task.Identifier
	}
	for _, id := range ids {
		if t.names[id] == "" {
			return fmt.Errorf("looking up tasks: there is none with the id %d, of which there is a job", id)
		}
	}
	return nil
}
