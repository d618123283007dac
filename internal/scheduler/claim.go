package scheduler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// claimer takes jobs from the database, one claim at a time.
type claimer struct {
	queries   *dbgen.Queries
	workerID  string
	tasks     []string
	unlimited []string // those of tasks that have no limit
	accepted  []string
	timeout   time.Duration
	clock     clock
	events    *event.Stream
	survey    *surveyor

	// doubtUntil is when a claim whose answer was lost can no longer take
	// effect; until then each claim first looks for what it may have taken.
	doubtUntil time.Time

	lookout lookout
}

func newClaimer(c Config) *claimer {
	claims := &claimer{
		queries: c.Queries, workerID: c.WorkerID, tasks: []string{}, unlimited: []string{},
		accepted: orEmpty(c.Flags.Accepted), timeout: c.StatementTimeout, clock: clock{now: c.Now}, events: c.Events,
	}
	for task := range c.Handlers {
		claims.tasks = append(claims.tasks, task)
		if c.TaskLimits[task] == 0 {
			claims.unlimited = append(claims.unlimited, task)
		}
	}
	slices.Sort(claims.tasks)
	slices.Sort(claims.unlimited)
	claims.survey = newSurveyor(c.Queries, claims.tasks)
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

// claim takes up to limit jobs. more says that further jobs may be runnable now.
func (c *claimer) claim(ctx context.Context, limit int, s selection) (jobs []*job.Claimed, more bool, err error) {
	if len(s.tasks)+len(s.limited) == 0 {
		return nil, false, nil // every task is at its limit
	}
	if len(s.forbidden)+len(c.accepted)+len(s.limited) > 0 || len(s.tasks) < len(c.tasks) || c.clock.now != nil {
		jobs, more, err = c.selected(ctx, limit, s)
	} else {
		jobs, more, err = c.any(ctx, limit)
	}
	if err != nil {
		if !retry.Refused(err) {
			c.doubtUntil = time.Now().Add(2 * c.timeout)
		}
		return nil, false, fmt.Errorf("claiming up to %d jobs: %w", limit, err)
	}
	return jobs, more, nil
}

// any takes the first jobs there are from the place of the survey on.
func (c *claimer) any(ctx context.Context, limit int) (jobs []*job.Claimed, more bool, err error) {
	from, err := c.survey.begin(ctx)
	if err != nil {
		return nil, false, err
	}
	began := c.survey.now()
	rows, err := c.rows(ctx, limit, from)
	took := c.survey.now().Sub(began)
	if err != nil {
		return nil, false, err
	}
	var f found
	for _, row := range rows {
		f = found{seen: int(row.Seen), looked: int(row.Looked), middle: int(row.Middle)}
		if row.ID == 0 {
			continue // it only tells what was found
		}
		jobs = append(jobs, c.held(dbgen.ListHeldJobsRow{
			ID: row.ID, Payload: row.Payload, Priority: row.Priority, RunAt: row.RunAt,
			Attempts: row.Attempts, MaxAttempts: row.MaxAttempts, LastError: row.LastError,
			CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt, Key: row.Key, LockedAt: row.LockedAt,
			Revision: row.Revision, Flags: row.Flags, Task: row.Task, Queue: row.Queue,
		}))
	}
	c.survey.claimed(from, limit, jobs, f, took)
	if from.missed(limit, len(jobs), f) > 0 {
		c.lookout.again(c.survey.now())
	} else {
		c.lookout.over()
	}
	return jobs, from.more(limit, len(jobs), f), nil
}

// rows takes jobs by the statement that suits them.
func (c *claimer) rows(ctx context.Context, limit int, from place) ([]dbgen.ClaimJobsRow, error) {
	if from.lookAt == 0 {
		return c.queries.ClaimJobs(ctx, dbgen.ClaimJobsParams{
			Tasks: c.tasks, MaxJobs: int32(limit), WorkerID: c.workerID,
			FromPriority: from.priority, FromRunAt: from.runAt, Blocked: from.blocked,
		})
	}
	queued, err := c.queries.ClaimQueuedJobs(ctx, dbgen.ClaimQueuedJobsParams{
		Tasks: c.tasks, MaxJobs: int32(limit), WorkerID: c.workerID, LookAt: from.lookAt,
		FromPriority: from.priority, FromRunAt: from.runAt, Blocked: from.blocked,
	})
	rows := make([]dbgen.ClaimJobsRow, len(queued))
	for i := range queued {
		rows[i] = dbgen.ClaimJobsRow(queued[i])
	}
	return rows, err
}

// recheck is when somebody must claim again although nobody was told of a job.
func (c *claimer) recheck(poll time.Duration) time.Duration {
	poll = c.survey.recheck(poll)
	if next := c.lookout.next; !next.IsZero() {
		poll = min(poll, max(next.Sub(c.survey.now()), time.Millisecond))
	}
	return poll
}

// selected takes the first jobs of the selection.
func (c *claimer) selected(ctx context.Context, limit int, s selection) (jobs []*job.Claimed, more bool, err error) {
	at, lockAt := c.clock.claim()
	rows, err := c.queries.ClaimSelectedJobs(ctx, dbgen.ClaimSelectedJobsParams{
		Tasks: s.tasks, MaxJobs: int32(limit), WorkerID: c.workerID, At: at, LockAt: lockAt,
		LimitedTasks: orEmpty(s.limited), Rooms: orEmpty(s.rooms),
		ForbiddenFlags: orEmpty(s.forbidden), AcceptedFlags: c.accepted,
	})
	for _, row := range rows {
		jobs = append(jobs, c.held(dbgen.ListHeldJobsRow{
			ID: row.ID, Payload: row.Payload, Priority: row.Priority, RunAt: row.RunAt,
			Attempts: row.Attempts, MaxAttempts: row.MaxAttempts, LastError: row.LastError,
			CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt, Key: row.Key, LockedAt: row.LockedAt,
			Revision: row.Revision, Flags: row.Flags, Task: row.Task, Queue: row.Queue,
		}))
		more = row.More
	}
	return jobs, more, err
}

// adopt finds the jobs of a claim that took effect although its answer was lost.
// known lists the jobs that this worker has; it is asked only in doubt.
func (c *claimer) adopt(ctx context.Context, known func() []*job.Claimed) ([]*job.Claimed, error) {
	if !time.Now().Before(c.doubtUntil) {
		return nil, nil
	}
	p := dbgen.ListHeldJobsParams{WorkerID: c.workerID, Known: []int64{}, LockedAts: []pgtype.Timestamptz{}}
	for _, j := range known() {
		p.Known = append(p.Known, j.ID)
		p.LockedAts = append(p.LockedAts, pgtype.Timestamptz{Time: j.Lock.At, Valid: true})
	}
	rows, err := c.queries.ListHeldJobs(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("looking for the jobs of a claim whose answer was lost: %w", err)
	}
	var jobs []*job.Claimed
	for _, row := range rows {
		jobs = append(jobs, c.held(row))
	}
	if len(jobs) > 0 {
		c.events.Emit(event.JobsAdopted{WorkerID: c.workerID, Count: len(jobs)})
	}
	return jobs, nil
}

func (c *claimer) held(row dbgen.ListHeldJobsRow) *job.Claimed {
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
