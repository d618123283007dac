package scheduler

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
)

// LocalQueue is how far a worker claims ahead of its slots. The zero value is
// not at all.
type LocalQueue struct {
	// Size is how many jobs a claim takes; 0 switches the local queue off.
	Size int
	// TTL is how long jobs may wait in it.
	TTL time.Duration
	// RefetchDelay, if not 0, is the time, give or take a half, before the next
	// claim after one that took no more than Threshold jobs; it ends early when
	// a random number of jobs, up to MaxAbortThreshold, was announced.
	RefetchDelay      time.Duration
	Threshold         int
	MaxAbortThreshold int
}

// ErrLocalQueueTTL is the reason for returning jobs that have waited in the
// local queue for too long.
var ErrLocalQueueTTL = errors.New("no slot became free while the job waited in the local queue")

// localQueue is what lies between claim and pool: the jobs that are claimed and
// have not started. With a size it is filled ahead of the slots and emptied
// before the next claim, as Node's local queue is; without one it only ever
// holds, after a lost answer, what the slots cannot take at once.
//
// Its jobs are locked, so the one thing not to break: each leaves it exactly
// once, into the pool or the completer, under the lock of mu, so that whoever
// looks for a job here, there, and there, in this order, finds it.
type localQueue struct {
	config   LocalQueue
	workerID string
	events   *eventstream.Stream

	mu      sync.Mutex
	jobs    []*job.Claimed // in the order of their claims
	checked time.Time      // when their locks were last known to be held

	announced atomic.Int64 // jobs that were announced since the last claim began

	// The rest belongs to the loop.

	mode      event.LocalQueueMode
	fetch     bool      // it ran empty, so a claim is due
	once      bool      // no delays: the worker is to end when nothing is runnable
	expiresAt time.Time // of the jobs that wait; zero: none do
	refetchAt time.Time // the next claim has to wait until then; zero: it has not
	abortAt   int64     // so many announced jobs end the delay
}

func newLocalQueue(c Config) *localQueue {
	return &localQueue{config: c.LocalQueue, workerID: c.WorkerID, events: c.Events}
}

// on says that jobs are claimed ahead.
func (q *localQueue) on() bool { return q.config.Size > 0 }

func (q *localQueue) begin(once bool) {
	if !q.on() {
		return
	}
	q.once = once
	q.events.Emit(event.LocalQueueStarted{WorkerID: q.workerID, Size: q.config.Size, TTL: q.config.TTL})
	q.setMode(event.LocalQueuePolling)
}

// demand says how many jobs a claim takes now that fills it; 0 means that there shall be
// none. more says that the database may have some, free how many slots are free.
func (q *localQueue) demand(more bool, free int) int {
	switch {
	case free == 0 && (q.mode == event.LocalQueueTTLExpired || q.len() > 0):
		return 0
	case q.mode == event.LocalQueueTTLExpired:
		q.setMode(event.LocalQueuePolling)
		q.fetch = true
	}
	if q.delayed() || !more && !q.fetch {
		return 0
	}
	q.announced.Store(0)
	return max(q.config.Size, free)
}

// fetched tells the queue what a claim took that it asked for.
func (q *localQueue) fetched(count, asked int) {
	if !q.on() {
		return
	}
	q.fetch = false
	q.events.Emit(event.LocalQueueFetched{WorkerID: q.workerID, Count: count, Asked: asked})
	if q.config.RefetchDelay == 0 || q.once || count >= asked || count > q.config.Threshold {
		return
	}
	wait := time.Duration((0.5 + rand.Float64()) * float64(q.config.RefetchDelay))
	q.abortAt = 1 + rand.Int64N(int64(max(1, q.config.MaxAbortThreshold)))
	q.refetchAt = time.Now().Add(wait)
	q.events.Emit(event.RefetchDelayStarted{
		WorkerID: q.workerID, Count: count, Threshold: q.config.Threshold, Delay: wait, AbortThreshold: int(q.abortAt),
	})
	q.heard() // what was announced while the claim ran
}

// delayed reports whether the next claim has to wait.
func (q *localQueue) delayed() bool { return !q.refetchAt.IsZero() }

// heard ends the refetch delay if enough jobs were announced.
func (q *localQueue) heard() {
	if n := q.announced.Load(); q.delayed() && n >= q.abortAt {
		q.refetchAt = time.Time{}
		q.fetch = true
		q.events.Emit(event.RefetchDelayAborted{WorkerID: q.workerID, Count: int(n), AbortThreshold: int(q.abortAt)})
	}
}

// delayOver ends the refetch delay at its time.
func (q *localQueue) delayOver() {
	if q.delayed() {
		q.refetchAt = time.Time{}
		q.events.Emit(event.RefetchDelayExpired{WorkerID: q.workerID})
	}
}

// settle makes the mode fit what is in the queue.
func (q *localQueue) settle() {
	if !q.on() {
		return
	}
	switch empty := q.len() == 0; {
	case empty && q.mode == event.LocalQueueWaiting:
		q.expiresAt = time.Time{}
		q.fetch = true
		q.setMode(event.LocalQueuePolling)
	case !empty && q.mode == event.LocalQueuePolling:
		q.expiresAt = time.Now().Add(q.config.TTL)
		q.setMode(event.LocalQueueWaiting)
	}
}

func (q *localQueue) setMode(to event.LocalQueueMode) {
	from := q.mode
	q.mode = to
	q.events.Emit(event.LocalQueueModeChanged{WorkerID: q.workerID, From: from, To: to})
}

// expire gives back what has waited for too long.
func (q *localQueue) expire(giveBack func(error, ...*job.Claimed)) {
	q.expiresAt = time.Time{}
	if q.mode != event.LocalQueueWaiting {
		return
	}
	q.empty(giveBack, ErrLocalQueueTTL)
	q.setMode(event.LocalQueueTTLExpired)
}

// close gives everything back.
func (q *localQueue) close(giveBack func(error, ...*job.Claimed)) {
	q.empty(giveBack, ErrShutdown)
	if q.on() {
		q.setMode(event.LocalQueueReleased)
	}
}

func (q *localQueue) empty(giveBack func(error, ...*job.Claimed), reason error) {
	q.mu.Lock()
	var ids []int64
	for _, j := range q.jobs {
		ids = append(ids, j.ID)
	}
	giveBack(reason, q.jobs...)
	clear(q.jobs)
	q.jobs = q.jobs[:0]
	q.mu.Unlock()
	q.report(ids, reason)
}

func (q *localQueue) report(returned []int64, reason error) {
	if len(returned) > 0 {
		q.events.Emit(event.LocalQueueReturned{WorkerID: q.workerID, JobIDs: returned, Reason: reason})
	}
}

// put adds claimed jobs.
func (q *localQueue) put(jobs []*job.Claimed) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.jobs) == 0 && len(jobs) > 0 {
		q.checked = time.Now()
	}
	q.jobs = append(q.jobs, jobs...)
}

// age is how long ago the locks were last known to be held.
func (q *localQueue) age() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	return sinceByEitherClock(q.checked, time.Now())
}

// confirm notes that they were held at that time.
func (q *localQueue) confirm(at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.checked = at
}

// each decides on the jobs in order, and keeps those for which leave says false;
// it stops when stop says so.
func (q *localQueue) each(stop func() bool, leave func(*job.Claimed) bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	kept := q.jobs[:0]
	for i, j := range q.jobs {
		if stop() {
			kept = append(kept, q.jobs[i:]...)
			break
		}
		if !leave(j) {
			kept = append(kept, j)
		}
	}
	clear(q.jobs[len(kept):])
	q.jobs = kept
}

func never() bool { return false }

// lose drops jobs whose locks are gone: other workers run them. It returns
// the ids of those that were here.
func (q *localQueue) lose(jobs []*job.Claimed) (ids []int64) {
	lost := make(map[*job.Claimed]bool, len(jobs))
	for _, j := range jobs {
		lost[j] = true
	}
	q.each(never, func(j *job.Claimed) bool {
		if lost[j] {
			ids = append(ids, j.ID)
		}
		return lost[j]
	})
	return ids
}

// drop takes a job out, if it is there, and hands it on before anybody can see
// that it is gone.
func (q *localQueue) drop(j *job.Claimed, handOn func()) (dropped bool) {
	q.each(func() bool { return dropped }, func(other *job.Claimed) bool {
		if other == j {
			handOn()
			dropped = true
		}
		return other == j
	})
	return dropped
}

func (q *localQueue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.jobs)
}

// claimed lists the jobs.
func (q *localQueue) claimed() []*job.Claimed {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]*job.Claimed(nil), q.jobs...)
}

// perTask counts the jobs.
func (q *localQueue) perTask() map[string]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	count := make(map[string]int)
	for _, j := range q.jobs {
		count[j.Task]++
	}
	return count
}

// flagged reports whether a job has flags.
func (q *localQueue) flagged() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, j := range q.jobs {
		if len(j.Flags) > 0 {
			return true
		}
	}
	return false
}
