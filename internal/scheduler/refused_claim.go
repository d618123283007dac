package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
)

// The database may refuse the lock of a job: a trigger or a constraint of the user's is
// against it. A claim is one statement, so one such job would keep this worker from all
// the others. Then the claim looks which jobs it would take, and takes them in halves,
// until it is known which are refused. These are left out of claims for a growing
// while, and claims go by ClaimSelectedJobs, which can leave jobs out. The others of
// their queues go on without them.
//
// While such a job is known, no job is held: a held one runs before anything is written
// about it, and would run again and again.

const (
	// How long a job is left out the first time, and at most.
	refusedFirst, refusedMost = 2 * time.Second, time.Minute
	// refusedKept is how long after that it is remembered.
	refusedKept = 2 * time.Minute
	// mostRefused bounds how many are left out; beyond that claims fail.
	mostRefused = 1000
	// mostSearched bounds the jobs among which one search looks.
	mostSearched = 200
)

// refusedJobs are the jobs whose locks the database refuses. Its methods may be called
// from any goroutine.
type refusedJobs struct {
	now func() time.Time

	count  atomic.Int32 // of jobs, and one more while a search is due
	mu     sync.Mutex
	jobs   map[int64]refusedJob
	search bool
	vain   bool // the last search has found nothing
}

type refusedJob struct {
	wait  time.Duration
	until time.Time
}

func newRefusedJobs() *refusedJobs {
	return &refusedJobs{now: time.Now, jobs: make(map[int64]refusedJob)}
}

// any reports whether there are such jobs, or a search for them is due.
func (r *refusedJobs) any() bool {
	if r.count.Load() == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prune()
	return r.count.Load() > 0
}

// prune forgets what has not been refused for long.
func (r *refusedJobs) prune() {
	for id, j := range r.jobs {
		if r.now().Sub(j.until) > refusedKept {
			delete(r.jobs, id)
		}
	}
	r.counted()
}

func (r *refusedJobs) counted() {
	n := int32(len(r.jobs))
	if r.search {
		n++
	}
	r.count.Store(n)
}

// add leaves a job out from now on, and returns for how long; ok is false if there are
// too many.
func (r *refusedJobs) add(id int64) (wait time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	j, known := r.jobs[id]
	if !known && len(r.jobs) >= mostRefused {
		return 0, false
	}
	j.wait = min(max(2*j.wait, refusedFirst), refusedMost)
	j.until = r.now().Add(j.wait)
	r.jobs[id] = j
	r.counted()
	return j.wait, true
}

// tell adds a job, unless there are too many, and tells of it.
func (r *refusedJobs) tell(events *event.Stream, workerID string, j *job.Claimed, refusal error) (ok bool) {
	wait, ok := r.add(j.ID)
	if ok {
		events.Emit(event.ClaimRefused{WorkerID: workerID, Job: j, Err: refusal, RetryIn: wait})
	}
	return ok
}

// remove forgets jobs that were claimed.
func (r *refusedJobs) remove(jobs []*job.Claimed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range jobs {
		delete(r.jobs, j.ID)
	}
	r.counted()
}

// leftOut are the jobs that claims leave out now.
func (r *refusedJobs) leftOut() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := []int64{}
	for id, j := range r.jobs {
		if r.now().Before(j.until) {
			ids = append(ids, id)
		}
	}
	return ids
}

// next is when the first of them is to be tried again; zero for never.
func (r *refusedJobs) next() (next time.Time) {
	if r.count.Load() == 0 {
		return time.Time{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range r.jobs {
		if r.now().Before(j.until) {
			next = earlier(next, j.until)
		}
	}
	return next
}

// suspect has the next claim be a search. It reports false where that is of no use: the
// last one has found nothing.
func (r *refusedJobs) suspect() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.vain {
		r.vain = false
		return false
	}
	r.search = true
	r.counted()
	return true
}

// searching reports whether the claim is to be a search, which it is to tell the end of.
func (r *refusedJobs) searching() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.search
}

// searched ends a search that has found or taken some.
func (r *refusedJobs) searched(some int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.search, r.vain = false, some == 0
	r.counted()
}

// search claims what it can where claims are refused, and finds out which jobs they are
// refused for. cause is why, if this claim knows it.
func (c *claimer) search(ctx context.Context, o *ordinary, cause error) {
	looked, _, err := c.choose(ctx, min(o.limit, mostSearched), o.selection, nil, true)
	if err != nil {
		o.err = err
		if cause != nil {
			o.err = cause
		}
		c.refused.searched(0)
		return
	}
	ids := make(map[int64]*job.Claimed, len(looked))
	list := make([]int64, len(looked))
	for i, j := range looked {
		ids[j.ID], list[i] = j, j.ID
	}
	s := &search{claimer: c, selection: o.selection, jobs: ids}
	err = s.take(ctx, list)
	c.refused.searched(s.refused + len(s.taken))
	o.jobs, o.searched, o.more = s.taken, s.refused > 0, true
	switch {
	case err != nil:
		o.answered, o.err = len(s.taken) > 0, err
	case len(s.taken)+s.refused == 0 && len(list) > 0 && cause != nil:
		o.answered, o.err = false, cause
	default:
		o.answered, o.err = true, nil
		o.more = len(list) > 0
	}
}

// search is one search for jobs whose locks are refused.
type search struct {
	*claimer
	selection selection
	jobs      map[int64]*job.Claimed

	taken   []*job.Claimed
	refused int
}

// take claims the jobs, in halves where that is refused.
func (s *search) take(ctx context.Context, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	jobs, _, err := s.choose(ctx, len(ids), s.selection, ids, false)
	switch {
	case err == nil:
		s.taken = append(s.taken, jobs...)
		return nil
	case !isRefusal(err):
		return err
	case len(ids) > 1:
		half := len(ids) / 2
		if err := s.take(ctx, ids[:half]); err != nil {
			return err
		}
		return s.take(ctx, ids[half:])
	}
	if !s.claimer.refused.tell(s.events, s.workerID, s.jobs[ids[0]], err) {
		return errors.Join(errTooManyRefused, err)
	}
	s.refused++
	return nil
}

var errTooManyRefused = fmt.Errorf("the database refuses the locks of more than %d jobs; "+
	"look for a trigger or a constraint on the tables of jobs and queues", mostRefused)

// choose takes the first jobs of the selection, of only if that is not empty; look does
// not take them, and tells of them but their texts.
func (c *claimer) choose(
	ctx context.Context, limit int, s selection, only []int64, look bool,
) (jobs []*job.Claimed, more bool, err error) {
	at, lockAt := c.clock.claim()
	leftOut := []int64{}
	if c.refused.any() {
		leftOut = c.refused.leftOut()
	}
	rows, err := c.queries.ClaimSelectedJobs(ctx, dbgen.ClaimSelectedJobsParams{
		Tasks: orEmpty(s.tasks), MaxJobs: int32(limit), MaxBytes: int64(payloadRoom), WorkerID: c.workerID, At: at, LockAt: lockAt,
		LimitedTasks: orEmpty(s.limited), Rooms: orEmpty(s.rooms),
		ForbiddenFlags: orEmpty(s.forbidden), AcceptedFlags: c.accepted,
		RefusedIds: leftOut, OnlyIds: orEmpty(only), Look: look,
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
	if !look && len(jobs) > 0 && c.refused.any() {
		c.refused.remove(jobs)
	}
	return jobs, more, err
}
