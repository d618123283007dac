package admin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
)

// Order is the order of a listing.
type Order string

// The orders.
const (
	ByID       Order = "id"
	NewestOnes Order = "newest"
	ClaimOrder Order = "next"
)

// TimeRange is from a moment on and before another; the zero time is no bound.
type TimeRange struct {
	From   time.Time
	Before time.Time
}

// Filter says which jobs to list. Empty fields match every job.
type Filter struct {
	States        []job.State
	Tasks         []string
	Queues        []string
	Keys          []string
	Flags         []string
	Workers       []string
	ErrorContains string
	MinPriority   *int32
	MaxPriority   *int32
	RunAt         TimeRange
	CreatedAt     TimeRange
	UpdatedAt     TimeRange
	Order         Order
	Limit         int
	After         *Position
	Payload       bool
	Held          Held
}

// Page is one page of a listing.
type Page struct {
	// Jobs are the jobs of the page, in the order that was asked for.
	Jobs []*Job `json:"jobs"`
	// NextCursor asks for the next page; it is "" on the last one.
	NextCursor string `json:"next_cursor,omitempty"`
}

// List reads one page.
func List(ctx context.Context, q *dbgen.Queries, f Filter) (Page, error) {
	// One more than asked for tells whether there is another page.
	rows, err := f.rows(ctx, q, int32(f.Limit+1))
	if err != nil {
		return Page{}, err
	}
	var page Page
	if len(rows) > f.Limit {
		rows = rows[:f.Limit]
		page.NextCursor = positionOf(rows[f.Limit-1], f.Order).cursor()
	}
	for _, row := range rows {
		listed := row.job()
		f.Held.show(listed)
		page.Jobs = append(page.Jobs, listed)
	}
	return page, nil
}

func (f Filter) rows(ctx context.Context, q *dbgen.Queries, size int32) ([]jobRow, error) {
	states, available, locked := f.states()
	args := dbgen.AdminListByIDParams{
		WithPayload: f.Payload, States: states, Available: available, Locked: locked, Tasks: array(f.Tasks), Queues: array(f.Queues), Keys: array(f.Keys),
		Workers: array(f.Workers), Flags: array(f.Flags), ErrorContains: f.ErrorContains,
		MinPriority: f.MinPriority, MaxPriority: f.MaxPriority,
		RunAtFrom: given(f.RunAt.From), RunAtBefore: given(f.RunAt.Before),
		CreatedAtFrom: given(f.CreatedAt.From), CreatedAtBefore: given(f.CreatedAt.Before),
		UpdatedAtFrom: given(f.UpdatedAt.From), UpdatedAtBefore: given(f.UpdatedAt.Before),
		PageSize: size, Held: array(f.Held.ids), HeldQueues: array(f.Held.names), Holder: f.Held.worker,
	}
	after := f.After
	switch f.Order {
	case NewestOnes:
		newest := dbgen.AdminListNewestParams{
			WithPayload: args.WithPayload, BeforeID: math.MaxInt64, States: states, Available: available, Locked: locked, Tasks: args.Tasks, Queues: args.Queues,
			Keys: args.Keys, Workers: args.Workers, Flags: args.Flags, ErrorContains: args.ErrorContains,
			MinPriority: args.MinPriority, MaxPriority: args.MaxPriority, RunAtFrom: args.RunAtFrom, RunAtBefore: args.RunAtBefore,
			CreatedAtFrom: args.CreatedAtFrom, CreatedAtBefore: args.CreatedAtBefore,
			UpdatedAtFrom: args.UpdatedAtFrom, UpdatedAtBefore: args.UpdatedAtBefore, PageSize: size,
			Held: args.Held, HeldQueues: args.HeldQueues, Holder: args.Holder,
		}
		if after != nil {
			newest.BeforeID = after.ID
		}
		return jobRows(q.AdminListNewest(ctx, newest))
	case ClaimOrder:
		next := dbgen.AdminListClaimOrderParams{
			WithPayload: args.WithPayload, States: states, Available: available, Locked: locked, Tasks: args.Tasks, Queues: args.Queues,
			Keys: args.Keys, Workers: args.Workers, Flags: args.Flags, ErrorContains: args.ErrorContains,
			MinPriority: args.MinPriority, MaxPriority: args.MaxPriority, RunAtFrom: args.RunAtFrom, RunAtBefore: args.RunAtBefore,
			CreatedAtFrom: args.CreatedAtFrom, CreatedAtBefore: args.CreatedAtBefore,
			UpdatedAtFrom: args.UpdatedAtFrom, UpdatedAtBefore: args.UpdatedAtBefore, PageSize: size,
			Held: args.Held, HeldQueues: args.HeldQueues, Holder: args.Holder,
			AfterPriority: math.MinInt32, AfterRunAt: pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true},
		}
		if after != nil {
			next.AfterID, next.AfterPriority, next.AfterRunAt = after.ID, after.Priority, after.runAt()
		}
		return jobRows(q.AdminListClaimOrder(ctx, next))
	case ByID:
	}
	args.AfterID = math.MinInt64
	if after != nil {
		args.AfterID = after.ID
	}
	return jobRows(q.AdminListByID(ctx, args))
}

// states are the filter's states as arguments of the statements: apart from what follows
// from them, and none if that is all.
func (f Filter) states() (states []string, available, locked *bool) {
	var waiting, running, failed bool
	for _, s := range f.States {
		switch s {
		case job.StateRunning:
			running = true
		case job.StateFailed:
			failed = true
		default:
			waiting = true
		}
	}
	if len(f.States) == 0 {
		return []string{}, nil, nil
	}
	if !running {
		locked = new(false)
	} else if !failed && !waiting {
		locked = new(true)
	}
	if waiting != (running || failed) {
		available = new(waiting)
	}
	if !waiting {
		return []string{}, available, locked // one of the two, or both
	}
	states = make([]string, len(f.States))
	for i, s := range f.States {
		states[i] = string(s)
	}
	return states, available, locked
}

// Position is where a page ended: at a job, by what its order sorts by.
type Position struct {
	Order    Order `json:"o"`
	ID       int64 `json:"i"`
	Priority int32 `json:"p,omitempty"`
	// RunAt is microseconds since 1970, or with Infinite what comes before
	// (-1) or after (1) all times.
	RunAt    int64 `json:"r,omitempty"`
	Infinite int8  `json:"f,omitempty"`
}

// firstMoment is the first that PostgreSQL has, in 4714 BC. Its last one is
// beyond what an int64 holds.
const firstMoment = -210_866_803_200_000_000

func positionOf(row jobRow, order Order) Position {
	p := Position{Order: order, ID: row.ID}
	if order == ClaimOrder {
		p.Priority, p.Infinite = int32(row.Priority), int8(row.RunAt.InfinityModifier)
		if p.Infinite == 0 {
			p.RunAt = row.RunAt.Time.UnixMicro()
		}
	}
	return p
}

func (p Position) runAt() pgtype.Timestamptz {
	if p.Infinite != 0 {
		return pgtype.Timestamptz{InfinityModifier: pgtype.InfinityModifier(p.Infinite), Valid: true}
	}
	return pgtype.Timestamptz{Time: time.UnixMicro(p.RunAt).UTC(), Valid: true}
}

func (p Position) cursor() string { return encodeCursor(p) }

// ParseCursor reads the NextCursor of a page in the given order.
func ParseCursor(cursor string, order Order) (*Position, error) {
	var p Position
	if err := decodeCursor(cursor, &p); err != nil || p.Order == "" || p.Infinite < -1 || p.Infinite > 1 || p.RunAt < firstMoment {
		return nil, errors.New("is not the cursor of a page of jobs")
	}
	if p.Order != order {
		return nil, errors.New("is the cursor of a listing in another order")
	}
	return &p, nil
}

// Cursors are encoded JSON: callers shall not depend on their content.

func encodeCursor(position any) string {
	text, err := json.Marshal(position)
	if err != nil {
		panic(err) // numbers and strings
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func decodeCursor(cursor string, into any) error {
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
