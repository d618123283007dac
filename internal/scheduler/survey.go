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
// that are gone while somebody holds an old snapshot. Where that is much, a survey
// finds the place of the first job that can run, and claims begin there. The first
// survey comes before the first claim, which nobody knows to be dear.
//
// What is promised: a claim never passes a job that was runnable when the survey
// looked. What becomes runnable before the place later (a job that is added with a
// more urgent priority or an earlier time, one that is returned, a queue that
// becomes free) is found by the next walk from the start, which comes as soon as
// surveyShare times has passed what the last one took. Where a full walk is
// cheaper than surveyWorth no place is used and every claim sees everything.
// Order within a queue holds from the place on.
const (
	surveyShare   = 9
	surveyWorth   = 2 * time.Millisecond
	firstWorth    = 10 * time.Millisecond  // the first survey's statements are still to be prepared
	surveyPause   = 100 * time.Millisecond // at least, between walks that found nothing to gain
	surveyPerRow  = 30 * time.Microsecond  // of a claim's time is for the job itself
	surveySlack   = 200 * time.Millisecond // jobs are committed that much later than others with their time
	blockedAge    = 50 * time.Millisecond
	blockedQueues = 100
)

// place is where a claim begins; the zero place is the start of everything.
type place struct {
	priority *int16
	runAt    pgtype.Timestamptz
	blocked  []int32 // queues that are left out
	lookAt   int32   // see depth
}

func (p place) used() bool { return p.priority != nil }

func (p place) before(priority int16, runAt time.Time) bool {
	return !p.used() || *p.priority < priority || *p.priority == priority && p.runAt.Time.Before(runAt)
}

// finds reports whether a claim from the place finds a job of this rank, if it can run.
// It may not if its queue was locked when the place was found.
func (p place) finds(r rank) bool {
	return !p.used() || len(p.blocked) == 0 && p.before(int16(r.priority), r.runAt)
}

// at is the place with another position.
func (p place) at(priority int16, runAt time.Time) place {
	return place{priority: &priority, runAt: pgtype.Timestamptz{Time: runAt, Valid: true}, blocked: p.blocked}
}

// surveyor knows where claims begin. It belongs to the loop, which sends a copy along
// where a survey is to be made.
type surveyor struct {
	queries *dbgen.Queries
	tasks   []string
	now     func() time.Time

	place place
	// hint is the most urgent position of what was claimed since the last full
	// survey, of one priority the latest. Where nothing can run, any place will
	// do; there the next jobs will most likely be found.
	hint place

	wasDear            bool // the last claim was
	dear               bool // claims are
	depth              depth
	begun              bool // there was a first survey
	away               bool // one is being made
	forgotten          bool // since then nothing is to be passed over
	fullAt, stepAt     time.Time
	fullTook, stepTook time.Duration
}

func newSurveyor(queries *dbgen.Queries, tasks []string) *surveyor {
	return &surveyor{queries: queries, tasks: tasks, now: time.Now, depth: newDepth()}
}

// begin returns where the next claim shall begin, after a survey if one is due.
func (s *surveyor) begin(ctx context.Context) (place, error) {
	var err error
	switch s.due() {
	case fromTheStart:
		err = s.full(ctx)
	case fromThePlace:
		err = s.step(ctx)
	}
	return s.from(), err
}

// surveyKind is which survey is to be made before a claim.
type surveyKind uint8

const (
	noSurvey surveyKind = iota
	fromTheStart
	fromThePlace
)

// due is which survey the next claim needs.
func (s *surveyor) due() surveyKind {
	switch {
	case s.away:
		return noSurvey // its place is not known yet, and the present one is good
	case s.wait() > 0 && s.place.used() && s.dear && s.now().Sub(s.stepAt) >= surveyShare*s.stepTook:
		return fromThePlace
	case s.wait() > 0:
		return noSurvey
	case s.place.used() || s.dear || !s.begun:
		return fromTheStart
	}
	return noSurvey
}

// from is where a claim begins as far as is known now.
func (s *surveyor) from() place {
	from := s.place
	from.lookAt = s.depth.next(s.now())
	return from
}

// send returns a surveyor that makes the survey which is due elsewhere, by these
// queries, so that the loop need not wait for it; nil if none is due. Until it is back
// no other is.
func (s *surveyor) send(queries *dbgen.Queries) *surveyor {
	if s.due() == noSurvey {
		return nil
	}
	sent := *s
	if queries != nil {
		sent.queries = queries
	}
	s.away = true
	return &sent
}

// back takes what a surveyor that was sent has found; nil is none.
func (s *surveyor) back(sent *surveyor) {
	if sent == nil {
		return
	}
	if sent.fullAt != s.fullAt || sent.begun != s.begun {
		s.hint = place{}
	}
	s.away, s.begun, s.place = false, sent.begun, sent.place
	if s.forgotten {
		s.place, s.forgotten = place{}, false
	}
	s.fullAt, s.fullTook, s.stepAt, s.stepTook = sent.fullAt, sent.fullTook, sent.stepAt, sent.stepTook
	s.depth.all = s.depth.all || sent.depth.all
}

// claimed tells what a claim took, and how long.
func (s *surveyor) claimed(from place, asked int, jobs []*job.Claimed, f found, took time.Duration) {
	s.depth.claimed(from, asked, jobs, f, took, s.now())
	dear := took > surveyWorth+time.Duration(len(jobs))*surveyPerRow
	// A claim that found nothing may have taken long for the machine's reasons: an
	// idle worker surveys after two of them.
	s.dear = dear && (s.wasDear || len(jobs) > 0)
	s.wasDear = dear
	for _, j := range jobs {
		priority := int16(j.Priority)
		if !s.hint.used() || priority < *s.hint.priority || priority == *s.hint.priority && s.hint.before(priority, j.RunAt) {
			s.hint = place{}.at(priority, j.RunAt)
		}
	}
}

// wait is the time until the next full survey may be made.
func (s *surveyor) wait() time.Duration {
	if s.fullAt.IsZero() {
		return 0
	}
	return max(0, s.fullAt.Add(max(surveyPause, surveyShare*s.fullTook)).Sub(s.now()))
}

// recheck is when somebody must claim again although nobody was told of a job: as
// long as a place is used there may be some before it.
func (s *surveyor) recheck(poll time.Duration) time.Duration {
	if !s.place.used() {
		return poll
	}
	return min(poll, max(s.wait(), time.Millisecond))
}

// partial reports whether there may be jobs that claims do not find at present.
func (s *surveyor) partial() bool { return s.place.used() || s.depth.truncated }

// forget makes the next claim walk everything.
func (s *surveyor) forget() { s.place, s.depth.all, s.forgotten = place{}, true, s.away }

// full surveys from the start.
func (s *surveyor) full(ctx context.Context) error {
	began, first := s.now(), !s.begun
	blocked, err := s.queries.ListBlockedQueues(ctx, dbgen.ListBlockedQueuesParams{
		MinAge: pgtype.Interval{Microseconds: blockedAge.Microseconds(), Valid: true}, MaxQueues: blockedQueues,
	})
	if err != nil {
		return fmt.Errorf("looking for queues that are locked: %w", err)
	}
	if first {
		began = s.now() // without the time that it took to connect
	}
	s.place = place{blocked: orEmpty(blocked)}
	if err := s.look(ctx); err != nil {
		return err
	}
	s.hint, s.begun = place{}, true
	ended := s.now()
	took := ended.Sub(began)
	if first && took < firstWorth {
		s.place = place{} // a dear claim may prove it wrong at once
		return nil
	}
	s.fullAt, s.fullTook = ended, took
	s.stepAt, s.stepTook = ended, 0
	if took < surveyWorth || !s.place.used() {
		s.place = place{}
	}
	return nil
}

// step surveys from the place on.
func (s *surveyor) step(ctx context.Context) error {
	began := s.now()
	if err := s.look(ctx); err != nil {
		return err
	}
	s.stepAt = s.now()
	s.stepTook = s.stepAt.Sub(began)
	return nil
}

// look moves the place on to the first job that can run.
func (s *surveyor) look(ctx context.Context) error {
	rows, err := s.queries.FindPlace(ctx, dbgen.FindPlaceParams{
		FromPriority: s.place.priority, FromRunAt: s.place.runAt, Tasks: s.tasks, Blocked: orEmpty(s.place.blocked),
	})
	if err != nil {
		s.forget()
		return fmt.Errorf("looking for the first job that can run: %w", err)
	}
	to := s.hint
	if len(rows) > 0 {
		to = place{}.at(rows[0].Priority, rows[0].RunAt.Time)
	}
	if to.used() {
		// A place further back is one, too.
		if runAt := to.runAt.Time.Add(-surveySlack); s.place.before(*to.priority, runAt) {
			s.place = s.place.at(*to.priority, runAt)
		}
	}
	return nil
}
