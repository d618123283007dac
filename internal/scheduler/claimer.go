package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
)

// claimer is what claims of both sources go by, and what they have taught. The loop plans
// claims with it and learns from their answers; sources read what does not change.
type claimer struct {
	db        statement.DB // for texts whose rows are read here
	queries   *dbgen.Queries
	workerID  string
	tasks     []string
	unlimited []string // those of tasks that have no limit
	flags     Flags
	timeout   time.Duration
	clock     clock
	events    *eventstream.Stream
	names     *taskNames
	refused   *refusedJobs
	answers   chan answer // to locked claims
	way       distance

	// These belong to the loop.

	scan      *scanPlanner
	recheck   recheckBackoff
	underWay  underWay
	plentiful bool // the last claim took all that it asked for
	// roundTrip and heldRoundTrip are how long locked and held claims take, on average.
	roundTrip, heldRoundTrip time.Duration
	// unknownUntil is when a claim whose answer was lost can no longer take
	// effect; until then each claim first looks for what it may have taken.
	unknownUntil time.Time
}

func newClaimer(c Config) *claimer {
	claims := &claimer{
		db: c.Database, queries: c.queries(), workerID: c.WorkerID, tasks: []string{}, unlimited: []string{},
		flags: c.Flags, timeout: c.StatementTimeout, clock: clock{now: c.Now}, events: c.Events,
		names: newTaskNames(), refused: newRefusedJobs(), answers: make(chan answer, mostLocked),
	}
	for task := range c.Handlers {
		claims.tasks = append(claims.tasks, task)
		if c.TaskLimits[task] == 0 {
			claims.unlimited = append(claims.unlimited, task)
		}
	}
	slices.Sort(claims.tasks)
	slices.Sort(claims.unlimited)
	claims.scan = newScanPlanner(claims.queries, claims.tasks, &claims.way)
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
	forbidden []string // flags; they are asked for before the claim
}

// without is the selection after some of the rooms were taken.
func (s selection) without(jobs []*job.Claimed) selection {
	if len(s.limited) == 0 || len(jobs) == 0 {
		return s
	}
	limited, rooms := s.limited, s.rooms
	s.limited, s.rooms = nil, nil
	for i, task := range limited {
		room := rooms[i]
		for _, j := range jobs {
			if j.Task == task {
				room--
			}
		}
		if room > 0 {
			s.limited, s.rooms = append(s.limited, task), append(s.rooms, room)
		}
	}
	return s
}

// selects reports whether a claim goes by more than the order of jobs, so that it cannot
// walk.
func (c *claimer) selects(s selection) bool {
	return len(s.forbidden)+len(c.flags.Accepted)+len(s.limited) > 0 || len(s.tasks) < len(c.tasks) || c.clock.now != nil ||
		c.refused.any()
}

// begin notes that a claim begins, and plans its scan or its cursor.
func (c *claimer) begin(cl *claim) {
	if cl.scan = c.scan.send(nil); cl.scan == nil {
		cl.from = c.scan.from()
	}
	c.underWay.add(cl)
	if c.events.WantsFrequent() {
		c.events.Emit(event.ClaimStarted{WorkerID: c.workerID, Asked: cl.asked})
	}
}

// learn has later claims gain by what came of this one, and returns why it failed. Jobs
// of an unknown task, which it then does not have, are found as those of a claim whose
// answer was lost.
func (c *claimer) learn(cl *claim) error {
	c.underWay.remove(cl)
	c.scan.back(cl.scan)
	switch {
	case cl.err != nil:
		c.plentiful = false
		cl.jobs = nil
		if cl.held || cl.unsent {
			return cl.err
		}
		if cl.answered || !retry.Refused(cl.err) {
			c.unknownUntil = time.Now().Add(2 * c.timeout)
		}
		return fmt.Errorf("claiming up to %d jobs: %w", cl.asked, cl.err)
	case cl.void:
		c.plentiful = false
		return nil
	case cl.walked:
		c.scan.claimed(cl.from, cl.limit, cl.jobs, cl.found, cl.took)
		cl.more = cl.unlocked || cl.from.more(cl.limit, len(cl.jobs), cl.found)
	}
	c.plentiful = cl.more && len(cl.jobs) > 0
	if cl.took > 0 {
		c.averageRoundTrip(cl)
	}
	return nil
}

// averageRoundTrip notes how long a claim took. The first ones also connect, and prepare their
// statements; no claim counts for more than the longest wait that may be planned.
func (c *claimer) averageRoundTrip(cl *claim) {
	mean := &c.roundTrip
	if cl.held {
		mean = &c.heldRoundTrip
	}
	*mean += (min(cl.took, aheadFor) - *mean) / averaging
}

// planRecheck plans the next claim after one that found jobs and could take none: no
// sooner than in that time, if others of this worker have them.
func (c *claimer) planRecheck(cl *claim, others time.Duration) {
	switch {
	case !cl.walked:
	case cl.from.missed(cl.limit, len(cl.jobs), cl.found) > 0:
		c.recheck.fail(c.scan.now().Add(others))
	default:
		c.recheck.reset()
	}
}

// unknownOutcome reports whether a claim may have taken jobs of which nothing is known here.
func (c *claimer) unknownOutcome() bool { return time.Now().Before(c.unknownUntil) }

// nextPoll is when to look for jobs that nobody was told of: after the poll interval, or
// sooner if there are jobs that claims pass over.
func (c *claimer) nextPoll(interval time.Duration) time.Duration {
	interval = c.scan.recheck(interval)
	if next := c.refused.next(); !next.IsZero() {
		interval = min(interval, max(time.Until(next), time.Millisecond))
	}
	return interval
}

// tell tells observers what a claim took.
func (c *claimer) tell(count, asked int, took time.Duration) {
	switch {
	case count > 0:
		c.events.Emit(event.JobsClaimed{WorkerID: c.workerID, Count: count, Asked: asked, Duration: took})
	case c.events.WantsFrequent():
		c.events.Emit(event.ClaimEmpty{WorkerID: c.workerID, Asked: asked, Duration: took})
	}
}

// recheckBackoff has a claim come soon, and less soon each time in a row, after one that
// took none of the jobs that it found: another session had locked them in just
// that moment, or they lie further on than it looked. Nobody tells of them.
type recheckBackoff struct {
	times int
	next  time.Time // zero: no look is due
}

const longestRecheck = time.Second

// fail plans the next look.
func (b *recheckBackoff) fail(now time.Time) {
	b.next = now.Add(min(time.Millisecond<<b.times, longestRecheck))
	b.times = min(b.times+1, 10)
}

// reset is for a claim that took what it found, or found nothing.
func (b *recheckBackoff) reset() { *b = recheckBackoff{} }

// locked is a job of a claim that wrote its lock.
func (c *claimer) locked(row dbgen.ListLockedJobsRow) *job.Claimed { return lockedJob(row, c.workerID) }

// listed is a row of ClaimSelectedJobs as one of ListLockedJobs.
func listed(row dbgen.ClaimSelectedJobsRow) dbgen.ListLockedJobsRow {
	return dbgen.ListLockedJobsRow{
		ID: row.ID, Payload: row.Payload, Priority: row.Priority, RunAt: row.RunAt,
		Attempts: row.Attempts, MaxAttempts: row.MaxAttempts, LastError: row.LastError,
		CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt, Key: row.Key, LockedAt: row.LockedAt,
		Revision: row.Revision, Flags: row.Flags, Task: row.Task, Queue: row.Queue,
	}
}

func lockedJob(row dbgen.ListLockedJobsRow, workerID string) *job.Claimed {
	return &job.Claimed{
		Row: job.Row{
			ID: row.ID, Task: row.Task, Queue: row.Queue, Payload: row.Payload,
			Priority: int(row.Priority), RunAt: row.RunAt.Time,
			Attempts: int(row.Attempts), MaxAttempts: int(row.MaxAttempts), LastError: text(row.LastError),
			CreatedAt: row.CreatedAt.Time, UpdatedAt: row.UpdatedAt.Time,
			Key: text(row.Key), Revision: int(row.Revision), Flags: job.FlagNames(row.Flags),
			LockedAt: row.LockedAt.Time, LockedBy: workerID,
		},
		Lock: job.Lock{By: workerID, At: row.LockedAt.Time, Attempt: int(row.Attempts)},
		Here: time.Now(),
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
