package scheduler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
)

// claimer takes jobs from the database, one claim at a time.
type claimer struct {
	db        statement.DB // for texts whose rows are read here
	queries   *dbgen.Queries
	workerID  string
	tasks     []string
	unlimited []string // those of tasks that have no limit
	accepted  []string
	timeout   time.Duration
	clock     clock
	events    *eventstream.Stream
	scan      *scanPlanner
	names     taskNames

	// unknownUntil is when a claim whose answer was lost can no longer take
	// effect; until then each claim first looks for what it may have taken.
	unknownUntil time.Time

	recheckBackoff recheckBackoff
	refused        *refusedJobs
}

func newClaimer(c Config) *claimer {
	claims := &claimer{
		db: c.Database, queries: c.queries(), workerID: c.WorkerID, tasks: []string{}, unlimited: []string{},
		accepted: orEmpty(c.Flags.Accepted), timeout: c.StatementTimeout, clock: clock{now: c.Now}, events: c.Events,
		names: make(taskNames), refused: newRefusedJobs(),
	}
	for task := range c.Handlers {
		claims.tasks = append(claims.tasks, task)
		if c.TaskLimits[task] == 0 {
			claims.unlimited = append(claims.unlimited, task)
		}
	}
	slices.Sort(claims.tasks)
	slices.Sort(claims.unlimited)
	claims.scan = newScanPlanner(claims.queries, claims.tasks)
	return claims
}

// orEmpty is list as an argument of a statement: no list is an empty one there,
// not null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// selection is what a claim may take.
type selection struct {
	tasks     []string // without a limit
	limited   []string // tasks with a limit and room below it
	rooms     []int32  // of each of them
	forbidden []string // flags
}

// ordinary is a claim that writes locks: what it may take, and what came of it.
type ordinary struct {
	limit     int
	selection selection
	sent      *scanPlanner // makes a scan first; nil: none is due
	from      cursor

	jobs     []*job.Claimed
	found    found
	walked   bool // it began at from
	took     time.Duration
	answered bool // what it took is known, if anything
	more     bool // further jobs may be runnable now
	searched bool // jobs were found whose locks the database refuses
	err      error
}

// claim takes up to limit jobs. more says that further jobs may be runnable now.
func (c *claimer) claim(ctx context.Context, limit int, s selection) (jobs []*job.Claimed, more bool, err error) {
	o := c.plan(limit)
	o.selection = s
	c.carryOut(ctx, o)
	err = c.learn(o)
	return o.jobs, o.more, err
}

// plan is a claim of up to limit jobs. What it may take is to be said.
func (c *claimer) plan(limit int) *ordinary {
	o := &ordinary{limit: limit, sent: c.scan.send(nil)}
	if o.sent == nil {
		o.from = c.scan.from()
	}
	return o
}

// carryOut has the database do it. One claim is carried out at a time; the loop may go
// on meanwhile, and learns from it then.
func (c *claimer) carryOut(ctx context.Context, o *ordinary) {
	s := o.selection
	switch {
	case len(s.tasks)+len(s.limited) == 0: // every task is at its limit
		o.answered = true
		return
	case c.refused.any() && c.refused.searching():
		c.search(ctx, o, nil)
		return
	case len(s.forbidden)+len(c.accepted)+len(s.limited) > 0 || len(s.tasks) < len(c.tasks) || c.clock.now != nil ||
		c.refused.any():
		var unlocked int
		o.jobs, o.more, unlocked, o.err = c.choose(ctx, o.limit, s, nil, false)
		o.answered, o.searched = o.err == nil, unlocked > 0
	default:
		c.walk(ctx, o)
	}
	if !o.answered && refusesOne(o.err) {
		c.search(ctx, o, o.err)
	}
	if !o.walked && o.more {
		o.found.seen = 1 // there are further jobs, whatever kept them from being taken
	}
}

// walk takes the first jobs there are from the cursor of the scan on.
func (c *claimer) walk(ctx context.Context, o *ordinary) {
	if o.sent != nil {
		if o.from, o.err = o.sent.begin(ctx); o.err != nil {
			return
		}
	}
	began := c.scan.now()
	rows, err := c.rows(ctx, o.limit, o.from)
	o.took = c.scan.now().Sub(began)
	if err != nil {
		o.err = err
		return
	}
	if rows.unlocked {
		c.refused.unlocked()
		if len(rows.jobs) == 0 {
			c.search(ctx, o, nil)
			return
		}
	}
	o.answered, o.err = true, c.names.name(ctx, rows, c.queries)
	o.jobs, o.found, o.walked = rows.jobs, rows.found, true
}

// learn has later claims gain by what came of this one. Jobs of an unknown task, which
// it then does not have, are found as those of a claim whose answer was lost.
func (c *claimer) learn(o *ordinary) error {
	c.scan.back(o.sent)
	switch {
	case o.err != nil && o.answered:
		o.jobs, o.more = nil, false
		c.unknownUntil = time.Now().Add(2 * c.timeout)
		return fmt.Errorf("claiming up to %d jobs: %w", o.limit, o.err)
	case o.err != nil:
		return c.failed(o.limit, o.err)
	case o.walked:
		o.more = c.walked(o.limit, o.from, o.jobs, o.found, o.took)
	}
	return nil
}

// walked learns from a claim that began at a cursor, and reports whether there may be
// further jobs.
func (c *claimer) walked(limit int, from cursor, jobs []*job.Claimed, f found, took time.Duration) (more bool) {
	c.scan.claimed(from, limit, jobs, f, took)
	if from.missed(limit, len(jobs), f) > 0 {
		c.recheckBackoff.fail(c.scan.now())
	} else {
		c.recheckBackoff.reset()
	}
	return from.more(limit, len(jobs), f)
}

// failed notes that a claim has failed, and says what was going on.
func (c *claimer) failed(limit int, err error) error {
	if !retry.Refused(err) {
		c.unknownUntil = time.Now().Add(2 * c.timeout)
	}
	return fmt.Errorf("claiming up to %d jobs: %w", limit, err)
}

// unknownOutcome reports whether a claim may have taken jobs of which nothing is known here.
func (c *claimer) unknownOutcome() bool { return time.Now().Before(c.unknownUntil) }

// took names what a claim has taken, and learns from it. Where that fails the jobs are
// found as those of a claim whose answer was lost.
func (c *claimer) took(
	ctx context.Context, rows *claimedRows, limit int, from cursor, took time.Duration,
) (jobs []*job.Claimed, more bool, err error) {
	if err := c.names.name(ctx, rows, c.queries); err != nil {
		c.unknownUntil = time.Now().Add(2 * c.timeout)
		return nil, false, err
	}
	return rows.jobs, c.walked(limit, from, rows.jobs, rows.found, took), nil
}

// rows takes jobs by the statement that suits them.
func (c *claimer) rows(ctx context.Context, limit int, from cursor) (*claimedRows, error) {
	text, args := claimStatement(from, c.tasks, limit, lockAll, c.workerID)
	rows, err := c.db.QueryByIndex(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	claimed := &claimedRows{workerID: c.workerID}
	return claimed, claimed.read(rows)
}

// recheck is when somebody must claim again although nobody was told of a job.
func (c *claimer) recheck(poll time.Duration) time.Duration {
	poll = c.scan.recheck(poll)
	if next := c.recheckBackoff.next; !next.IsZero() {
		poll = min(poll, max(next.Sub(c.scan.now()), time.Millisecond))
	}
	if next := c.refused.next(); !next.IsZero() {
		poll = min(poll, max(time.Until(next), time.Millisecond))
	}
	return poll
}

// recoverLostClaim finds the jobs of a claim that took effect although its answer was lost.
// known lists the jobs that this worker has; it is asked only where an outcome is unknown.
func (c *claimer) recoverLostClaim(ctx context.Context, known func() []*job.Claimed) ([]*job.Claimed, error) {
	if !c.unknownOutcome() {
		return nil, nil
	}
	p := dbgen.ListLockedJobsParams{WorkerID: c.workerID, Known: []int64{}, LockedAts: []pgtype.Timestamptz{}}
	for _, j := range known() {
		p.Known = append(p.Known, j.ID)
		p.LockedAts = append(p.LockedAts, pgtype.Timestamptz{Time: j.Lock.At, Valid: true})
	}
	rows, err := c.queries.ListLockedJobs(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("looking for the jobs of a claim whose answer was lost: %w", err)
	}
	var jobs []*job.Claimed
	for _, row := range rows {
		jobs = append(jobs, c.locked(row))
	}
	if len(jobs) > 0 {
		c.events.Emit(event.LostClaimRecovered{WorkerID: c.workerID, Count: len(jobs)})
	}
	return jobs, nil
}

func (c *claimer) locked(row dbgen.ListLockedJobsRow) *job.Claimed {
	return &job.Claimed{
		Row: job.Row{
			ID: row.ID, Task: row.Task, Queue: row.Queue, Payload: row.Payload,
			Priority: int(row.Priority), RunAt: row.RunAt.Time,
			Attempts: int(row.Attempts), MaxAttempts: int(row.MaxAttempts), LastError: text(row.LastError),
			CreatedAt: row.CreatedAt.Time, UpdatedAt: row.UpdatedAt.Time,
			Key: text(row.Key), Revision: int(row.Revision), Flags: job.FlagNames(row.Flags),
			LockedAt: row.LockedAt.Time, LockedBy: c.workerID,
		},
		Lock: job.Lock{By: c.workerID, At: row.LockedAt.Time, Attempt: int(row.Attempts)},
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
