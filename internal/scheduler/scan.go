package scheduler

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
)

// Claims walk the jobs in their order, past all that cannot run: jobs of locked
// queues, of tasks that are nobody's here, and what the index still lists of jobs
// that are gone while a session holds an old snapshot. Where that is much, a scan
// finds the position of the first job that can run, and claims begin there. The first
// scan comes before the first claim, which nobody knows to be expensive.
//
// What is promised: a claim never passes a job that was runnable when the scan
// looked. What becomes runnable before the cursor later (a job that is added with a
// more urgent priority or an earlier time, one that is returned, a queue that
// becomes free) is found by the next walk from the start, which comes as soon as
// scanShare times has passed what the last one took. Where a full walk is
// cheaper than scanWorth no cursor is used and every claim sees everything. The way to the
// database and back does not count.
// Order within a queue holds from the cursor on.
const (
	scanShare      = 9
	scanWorth      = 2 * time.Millisecond
	firstScanWorth = 10 * time.Millisecond  // the first scan's statements are still to be prepared
	scanPause      = 100 * time.Millisecond // at least, between walks that found nothing to gain
	scanPerRow     = 30 * time.Microsecond  // of a claim's time is for the job itself
	scanSlack      = 200 * time.Millisecond // jobs are committed that much later than others with their time
	blockedAge     = 50 * time.Millisecond
	blockedQueues  = 100
)

// cursor is where a claim begins; the zero cursor is the start of everything.
type cursor struct {
	priority *int16
	runAt    pgtype.Timestamptz
	blocked  []int32 // queues that are left out
	lookAt   int32   // see lookAhead
}

func (c cursor) used() bool { return c.priority != nil }

func (c cursor) before(priority int16, runAt time.Time) bool {
	return !c.used() || *c.priority < priority || *c.priority == priority && c.runAt.Time.Before(runAt)
}

// finds reports whether a claim from the cursor finds a job of this rank, if it can run.
// It may not if its queue was locked when the cursor was found.
func (c cursor) finds(r rank) bool {
	return !c.used() || len(c.blocked) == 0 && c.before(int16(r.priority), r.runAt)
}

// at is the cursor with another position.
func (c cursor) at(priority int16, runAt time.Time) cursor {
	return cursor{priority: &priority, runAt: pgtype.Timestamptz{Time: runAt, Valid: true}, blocked: c.blocked}
}

// scanPlanner knows where claims begin. It belongs to the loop, which sends a copy along
// where a scan is to be made.
type scanPlanner struct {
	queries *dbgen.Queries
	tasks   []string
	now     func() time.Time
	way     *distance // to the database

	cursor cursor
	// hint is the most urgent position of what was claimed since the last full
	// scan, of one priority the latest. Where nothing can run, any cursor will
	// do; there the next jobs will most likely be found.
	hint cursor

	wasExpensive       bool // the last claim was
	expensive          bool // claims are
	lookAhead          lookAhead
	begun              bool // there was a first scan
	away               bool // one is being made
	forgotten          bool // since then nothing is to be passed over
	fullAt, stepAt     time.Time
	fullTook, stepTook time.Duration
}

func newScanPlanner(queries *dbgen.Queries, tasks []string, way *distance) *scanPlanner {
	return &scanPlanner{queries: queries, tasks: tasks, now: time.Now, way: way, lookAhead: newLookAhead()}
}

// begin returns where the next claim shall begin, after a scan if one is due.
func (s *scanPlanner) begin(ctx context.Context) (cursor, error) {
	var err error
	switch s.due() {
	case fromTheStart:
		err = s.full(ctx)
	case fromCursor:
		err = s.step(ctx)
	case noScan:
	}
	return s.from(), err
}

// scanKind is which scan is to be made before a claim.
type scanKind uint8

const (
	noScan scanKind = iota
	fromTheStart
	fromCursor
)

// due is which scan the next claim needs.
func (s *scanPlanner) due() scanKind {
	switch {
	case s.away:
		return noScan // its cursor is not known yet, and the present one is good
	case s.wait() > 0 && s.cursor.used() && s.expensive && s.now().Sub(s.stepAt) >= scanShare*s.stepTook:
		return fromCursor
	case s.wait() > 0:
		return noScan
	case s.cursor.used() || s.expensive || !s.begun:
		return fromTheStart
	}
	return noScan
}

// from is where a claim begins as far as is known now.
func (s *scanPlanner) from() cursor {
	from := s.cursor
	from.lookAt = s.lookAhead.next(s.now())
	return from
}

// send returns a scanPlanner that makes the scan which is due elsewhere, by these
// queries, so that the loop need not wait for it; nil if none is due. Until it is back
// no other is.
func (s *scanPlanner) send(queries *dbgen.Queries) *scanPlanner {
	if s.due() == noScan {
		return nil
	}
	sent := *s
	if queries != nil {
		sent.queries = queries
	}
	s.away = true
	return &sent
}

// back takes what a scanPlanner that was sent has found; nil is none.
func (s *scanPlanner) back(sent *scanPlanner) {
	if sent == nil {
		return
	}
	if sent.fullAt != s.fullAt || sent.begun != s.begun {
		s.hint = cursor{}
	}
	s.away, s.begun, s.cursor = false, sent.begun, sent.cursor
	if s.forgotten {
		s.cursor, s.forgotten = cursor{}, false
	}
	s.fullAt, s.fullTook, s.stepAt, s.stepTook = sent.fullAt, sent.fullTook, sent.stepAt, sent.stepTook
	s.lookAhead.all = s.lookAhead.all || sent.lookAhead.all
}

// claimed tells what a claim took, and how long.
func (s *scanPlanner) claimed(from cursor, asked int, jobs []*job.Claimed, f found, took time.Duration) {
	s.lookAhead.claimed(from, asked, jobs, f, took, s.now())
	s.way.note(took)
	expensive := s.way.beyond(took, 1) > scanWorth+time.Duration(len(jobs))*scanPerRow
	// A claim that found nothing may have taken long for the machine's reasons: an
	// idle worker scans after two of them.
	s.expensive = expensive && (s.wasExpensive || len(jobs) > 0)
	s.wasExpensive = expensive
	for _, j := range jobs {
		priority := int16(j.Priority)
		if !s.hint.used() || priority < *s.hint.priority || priority == *s.hint.priority && s.hint.before(priority, j.RunAt) {
			s.hint = cursor{}.at(priority, j.RunAt)
		}
	}
}

// wait is the time until the next full scan may be made.
func (s *scanPlanner) wait() time.Duration {
	if s.fullAt.IsZero() {
		return 0
	}
	return max(0, s.fullAt.Add(max(scanPause, scanShare*s.fullTook)).Sub(s.now()))
}

// recheck is when to claim again although nobody was told of a job: as
// long as a cursor is used there may be some before it.
func (s *scanPlanner) recheck(poll time.Duration) time.Duration {
	if !s.cursor.used() {
		return poll
	}
	return min(poll, max(s.wait(), time.Millisecond))
}

// partial reports whether there may be jobs that claims do not find at present.
func (s *scanPlanner) partial() bool { return s.cursor.used() || s.lookAhead.truncated }

// forget makes the next claim walk everything.
func (s *scanPlanner) forget() { s.cursor, s.lookAhead.all, s.forgotten = cursor{}, true, s.away }

// full scans from the start.
func (s *scanPlanner) full(ctx context.Context) error {
	began, first := s.now(), !s.begun
	blocked, err := s.queries.ListBlockedQueues(ctx, dbgen.ListBlockedQueuesParams{
		MinAge: pgtype.Interval{Microseconds: blockedAge.Microseconds(), Valid: true}, MaxQueues: blockedQueues,
	})
	if err != nil {
		return fmt.Errorf("looking for queues that are locked: %w", err)
	}
	s.way.note(s.now().Sub(began))
	statements := 2
	if first {
		began, statements = s.now(), 1 // without the time that it took to connect
	}
	s.cursor = cursor{blocked: orEmpty(blocked)}
	if err := s.look(ctx); err != nil {
		return err
	}
	s.hint, s.begun = cursor{}, true
	ended := s.now()
	took := ended.Sub(began)
	worth := s.way.beyond(took, statements)
	if first && worth < firstScanWorth {
		s.cursor = cursor{} // an expensive claim may prove it wrong at once
		return nil
	}
	s.fullAt, s.fullTook = ended, took
	s.stepAt, s.stepTook = ended, 0
	if worth < scanWorth || !s.cursor.used() {
		s.cursor = cursor{}
	}
	return nil
}

// step scans from the cursor on.
func (s *scanPlanner) step(ctx context.Context) error {
	began := s.now()
	if err := s.look(ctx); err != nil {
		return err
	}
	s.stepAt = s.now()
	s.stepTook = s.stepAt.Sub(began)
	return nil
}

// look moves the cursor on to the first job that can run.
func (s *scanPlanner) look(ctx context.Context) error {
	began := s.now()
	rows, err := s.queries.FindCursor(ctx, dbgen.FindCursorParams{
		FromPriority: s.cursor.priority, FromRunAt: s.cursor.runAt, Tasks: s.tasks, Blocked: orEmpty(s.cursor.blocked),
	})
	if err != nil {
		s.forget()
		return fmt.Errorf("looking for the first job that can run: %w", err)
	}
	s.way.note(s.now().Sub(began))
	to := s.hint
	if len(rows) > 0 {
		to = cursor{}.at(rows[0].Priority, rows[0].RunAt.Time)
	}
	if to.used() {
		// A cursor further back is one, too.
		if runAt := to.runAt.Time.Add(-scanSlack); s.cursor.before(*to.priority, runAt) {
			s.cursor = s.cursor.at(*to.priority, runAt)
		}
	}
	return nil
}
