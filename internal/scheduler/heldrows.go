package scheduler

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/job"
)

// heldRows are the answers to a claim. As there may be hundreds, they share their
// memory: jobs come in chunks, and short payloads in blocks.
type heldRows struct {
	jobs     []*job.Claimed
	tasks    []int32 // ids of the jobs' tasks
	found    found
	lockedAt time.Time

	chunk []job.Claimed
	block []byte
}

const (
	rowChunk     = 64
	payloadBlock = 16 << 10
	longPayload  = 1 << 10 // has memory of its own
)

// readClaim reads the answers to what queueClaim asked.
func (l *lane) readClaim(results pgx.BatchResults) (*heldRows, error) {
	if _, err := results.Exec(); err != nil {
		return nil, fmt.Errorf("beginning the transaction: %w", err)
	}
	var lockedAt time.Time
	if err := results.QueryRow().Scan(nil, nil, nil, nil, nil, &lockedAt); err != nil {
		return nil, fmt.Errorf("statement BeginHold: %w", err)
	}
	rows, err := results.Query()
	if err != nil {
		return nil, fmt.Errorf("statement HoldJobs: %w", err)
	}
	claimed := &heldRows{lockedAt: lockedAt}
	if err := claimed.read(rows, l.h.workerID); err != nil {
		return nil, fmt.Errorf("statement HoldJobs: %w", err)
	}
	return claimed, nil
}

// heldRow is a row of HoldJobs and HoldQueuedJobs.
type heldRow struct {
	id                              int64
	flags                           []byte
	priority, attempts, maxAttempts int16
	runAt, createdAt, updatedAt     pgtype.Timestamptz // createdAt and updatedAt may be null
	revision                        pgtype.Int4
	task                            int32
	seen, looked, middle            pgtype.Int4
	lastError, key, queue           *string
}

func (r *heldRow) found() found {
	return found{seen: int(r.seen.Int32), looked: int(r.looked.Int32), middle: int(r.middle.Int32)}
}

func (h *heldRows) read(rows pgx.Rows, workerID string) error {
	defer rows.Close()
	var r heldRow
	// The payload, which is copied, comes from the raw values.
	into := []any{
		&r.id, nil, &r.priority, &r.runAt, &r.attempts, &r.maxAttempts, &r.lastError, &r.createdAt,
		&r.updatedAt, &r.key, &r.revision, &r.flags, &r.task, &r.queue,
		&r.seen, &r.looked, &r.middle,
	}
	none := make([]any, len(into))
	copy(none[len(none)-3:], into[len(into)-3:])
	for rows.Next() {
		raw := rows.RawValues()
		if raw[0] == nil { // no job
			if err := rows.Scan(none...); err != nil {
				return fmt.Errorf("reading the count of jobs: %w", err)
			}
			h.found = r.found()
			continue
		}
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("reading a job: %w", err)
		}
		h.found = r.found()
		h.tasks = append(h.tasks, r.task)
		h.jobs = append(h.jobs, h.fill(&r, raw[1], workerID))
	}
	return rows.Err()
}

func (h *heldRows) fill(r *heldRow, payload []byte, workerID string) *job.Claimed {
	if len(h.chunk) == 0 {
		// At first few, as most claims find few.
		h.chunk = make([]job.Claimed, min(max(2*len(h.jobs), 1), rowChunk))
	}
	c := &h.chunk[0]
	h.chunk = h.chunk[1:]
	attempt := int(r.attempts) + 1
	created := r.runAt.Time
	if r.createdAt.Valid {
		created = r.createdAt.Time
	}
	updated := created
	if r.updatedAt.Valid {
		updated = r.updatedAt.Time
	}
	c.Row = job.Row{
		ID: r.id, Queue: text(r.queue), Payload: h.keep(payload),
		Priority: int(r.priority), RunAt: r.runAt.Time,
		Attempts: attempt, MaxAttempts: int(r.maxAttempts), LastError: text(r.lastError),
		CreatedAt: created, UpdatedAt: updated,
		Key: text(r.key), Revision: int(r.revision.Int32), Flags: job.FlagNames(r.flags),
		LockedAt: h.lockedAt, LockedBy: workerID,
	}
	c.Lock = job.Lock{By: workerID, At: h.lockedAt, Attempt: attempt}
	return c
}

// keep copies a payload, and leaves no room behind it for whoever appends.
func (h *heldRows) keep(payload []byte) []byte {
	if len(payload) >= longPayload {
		return bytes.Clone(payload)
	}
	if cap(h.block)-len(h.block) < len(payload) {
		h.block = make([]byte, 0, payloadBlock)
	}
	begin := len(h.block)
	h.block = append(h.block, payload...)
	return h.block[begin:len(h.block):len(h.block)]
}

// name sets the jobs' tasks. An id means the same for ever, so each is asked for
// once.
func (l *lane) name(ctx context.Context, claimed *heldRows) error {
	var unknown []int32
	for _, id := range claimed.tasks {
		if _, ok := l.tasks[id]; !ok {
			l.tasks[id] = ""
			unknown = append(unknown, id)
		}
	}
	if len(unknown) > 0 {
		if err := l.learn(ctx, unknown); err != nil {
			return err
		}
	}
	for i, c := range claimed.jobs {
		c.Task = l.tasks[claimed.tasks[i]]
	}
	return nil
}

func (l *lane) learn(ctx context.Context, ids []int32) error {
	// Whatever is not found out is asked for again.
	defer func() {
		for _, id := range ids {
			if l.tasks[id] == "" {
				delete(l.tasks, id)
			}
		}
	}()
	tasks, err := l.h.config.Statements.On(l.conn).NameTasks(ctx, ids)
	if err != nil {
		return fmt.Errorf("looking up tasks: %w", err)
	}
	for _, t := range tasks {
		l.tasks[t.ID] = t.Identifier
	}
	for _, id := range ids {
		if l.tasks[id] == "" {
			return fmt.Errorf("looking up tasks: there is none with the id %d, of which there is a job", id)
		}
	}
	return nil
}
