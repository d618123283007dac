package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/scheduler/completer"
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
	names  map[string]refusedJob // queues
	search bool
	vain   bool // the last search has found nothing

	queues atomic.Bool // there may be queues that are locked for the sake of such jobs only
}

type refusedJob struct {
	wait  time.Duration
	until time.Time
}

func newRefusedJobs() *refusedJobs {
	return &refusedJobs{now: time.Now, jobs: make(map[int64]refusedJob), names: make(map[string]refusedJob)}
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
	for name, j := range r.names {
		if r.now().Sub(j.until) > refusedKept {
			delete(r.names, name)
		}
	}
	r.counted()
}

func (r *refusedJobs) counted() {
	n := int32(len(r.jobs) + len(r.names))
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
	return leaveOut(r, r.jobs, id)
}

// addQueue leaves a queue out.
func (r *refusedJobs) addQueue(name string) (wait time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return leaveOut(r, r.names, name)
}

func leaveOut[K comparable](r *refusedJobs, all map[K]refusedJob, which K) (wait time.Duration, ok bool) {
	j, known := all[which]
	if !known && len(all) >= mostRefused {
		return 0, false
	}
	j.wait = min(max(2*j.wait, refusedFirst), refusedMost)
	j.until = r.now().Add(j.wait)
	all[which] = j
	r.counted()
	return j.wait, true
}

// tell adds a job, unless there are too many, and tells of it.
func (r *refusedJobs) tell(events *eventstream.Stream, workerID string, j *job.Claimed, refusal error) (ok bool) {
	wait, ok := r.add(j.ID)
	if ok {
		events.Emit(event.ClaimRefused{WorkerID: workerID, Job: eventstream.Job(j), Err: refusal, RetryIn: wait})
	}
	return ok
}

// remove forgets jobs that were claimed.
func (r *refusedJobs) remove(jobs []*job.Claimed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range jobs {
		delete(r.jobs, j.ID)
		delete(r.names, j.Queue)
	}
	r.counted()
}

// leftOut are the jobs, and the queues, that claims leave out now.
func (r *refusedJobs) leftOut() (ids []int64, queues []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids, queues = []int64{}, []string{}
	for id, j := range r.jobs {
		if r.now().Before(j.until) {
			ids = append(ids, id)
		}
	}
	for name, j := range r.names {
		if r.now().Before(j.until) {
			queues = append(queues, name)
		}
	}
	return ids, queues
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
	for _, j := range r.names {
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

// unlocked notes that a claim has met jobs whose locks are not written, although nothing
// has failed. The next one finds out which.
func (r *refusedJobs) unlocked() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.search = true
	r.queues.Store(true)
	r.counted()
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
func (c *claimer) search(ctx context.Context, o *claim, cause error) {
	looked, _, _, err := c.choose(ctx, min(o.limit, mostSearched), o.selection, nil, true)
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
	err = errors.Join(s.take(ctx, list), c.freeQueues(ctx))
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
	jobs, _, unlocked, err := s.choose(ctx, len(ids), s.selection, ids, false)
	s.taken, s.refused = append(s.taken, jobs...), s.refused+unlocked
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errTooManyRefused):
		return err
	case !refusesOne(err):
		return err
	case len(ids) > 1:
		half := len(ids) / 2
		if err := s.take(ctx, ids[:half]); err != nil {
			return err
		}
		return s.take(ctx, ids[half:])
	}
	s.refused++
	return s.leaveOut(ctx, s.jobs[ids[0]], err)
}

// leaveOut leaves a job out whose lock is refused, or its queue if that is refused.
func (c *claimer) leaveOut(ctx context.Context, j *job.Claimed, refusal error) error {
	queue, err := c.refusedQueue(ctx, j)
	switch {
	case err != nil:
		return err
	case queue == nil && c.refused.tell(c.events, c.workerID, j, refusal):
		return nil
	case queue != nil:
		refusal = fmt.Errorf("locking the queue %q: %w", j.Queue, queue)
		if wait, ok := c.refused.addQueue(j.Queue); ok {
			c.events.Emit(event.ClaimRefused{WorkerID: c.workerID, Job: eventstream.Job(j), Err: refusal, RetryIn: wait})
			return nil
		}
	}
	return errors.Join(errTooManyRefused, refusal)
}

// refusedQueue is the refusal of the lock of a job's queue, or nil.
func (c *claimer) refusedQueue(ctx context.Context, j *job.Claimed) (refusal, err error) {
	if j.Queue == "" {
		return nil, nil
	}
	c.refused.queues.Store(true)
	rows, err := c.queries.TryQueue(ctx, dbgen.TryQueueParams{WorkerID: c.workerID, Queue: j.Queue})
	switch {
	case err != nil && completer.IsRefusal(err):
		return err, nil
	case err != nil:
		return nil, fmt.Errorf("looking whether the queue %q may be locked: %w", j.Queue, err)
	case len(rows) > 0 && !rows[0]:
		return completer.ErrQueueUnchanged, nil
	}
	return nil, nil
}

// freeQueues unlocks the queues that are locked for the sake of jobs whose locks were
// refused. No later claim may come that does: the slots may be taken, or the worker ends.
func (c *claimer) freeQueues(ctx context.Context) error {
	if !c.refused.queues.Swap(false) {
		return nil
	}
	_, err := c.queries.FreeIdleQueues(ctx, c.workerID)
	if err == nil {
		return nil
	}
	c.refused.queues.Store(true)
	if completer.IsRefusal(err) {
		return nil // claims have told of it
	}
	return fmt.Errorf("unlocking queues of jobs that could not be locked: %w", err)
}

// refusesOne reports whether a claim may have been refused for the sake of one job.
func refusesOne(err error) bool { return completer.IsRefusal(err) && !retry.Ruled(err) }

var errTooManyRefused = fmt.Errorf("the database refuses the locks of more than %d jobs; "+
	"look for a trigger or a constraint on the tables of jobs and queues", mostRefused)

// choose takes the first jobs of the selection, of only if that is not empty; look does
// not take them, and tells of them but their texts. Of unlocked ones the locks were not
// written, although nothing has failed.
func (c *claimer) choose(
	ctx context.Context, limit int, s selection, only []int64, look bool,
) (jobs []*job.Claimed, more bool, unlocked int, err error) {
	if err := c.freeQueues(ctx); err != nil {
		return nil, false, 0, err
	}
	p := c.selected(limit, s)
	if c.refused.any() {
		p.RefusedIds, p.RefusedQueues = c.refused.leftOut()
	}
	p.OnlyIds, p.Look = orEmpty(only), look
	rows, err := c.queries.ClaimSelectedJobs(ctx, p)
	for _, row := range rows {
		more = row.More
		j := c.locked(listed(row))
		if look || row.LockedAt.Valid {
			jobs = append(jobs, j)
			continue
		}
		unlocked, more = unlocked+1, true
		c.refused.queues.Store(true)
		err = errors.Join(err, c.leaveOut(ctx, j, completer.ErrUnchanged))
	}
	if !look && len(jobs) > 0 && c.refused.any() {
		c.refused.remove(jobs)
	}
	return jobs, more, unlocked, err
}
