package scheduler

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
)

// pool is the slots: as many goroutines as jobs may run at once, each kept for
// many jobs, and the jobs that wait for them.
type pool struct {
	handlers map[string]Handler
	policies map[string]Policy
	delay    time.Duration // of jobs that the shutdown cuts off
	workerID string
	events   *event.Stream
	size     int
	ended    func(*active, ended)

	freed     chan struct{} // told, without blocking, when slots run out of jobs
	attention chan struct{} // told, without blocking, when a group is to be looked at
	done      sync.WaitGroup
	ctx       context.Context // what jobs run under

	mu      sync.Mutex
	work    sync.Cond // slots wait for ready jobs, or the end
	idle    int       // slots that wait
	waking  bool      // one of them is being woken
	ready   []*active // jobs that wait for a slot, in their order
	closed  bool
	closing bool // no held jobs are taken any more
	aborted error
	low     int // freed is told where fewer jobs than this are here
	active  map[*job.Claimed]*active
	latest  map[int64]*active // by the job's id
	groups  map[*group]bool   // those that are not over

	startWithin time.Duration // how long after its claim a held job may start
}

// active is a job that waits for a slot or runs, with the context of its run.
type active struct {
	job    *job.Claimed
	ctx    context.Context
	cancel context.CancelCauseFunc

	group     *group    // the held claim that it is of, until that is over
	slow      bool      // its lock was written by the claim, which has not committed yet
	firm      bool      // it starts when its lock is to be seen by everybody
	claimed   time.Time // when it was, if that was ahead of the slots
	started   bool
	withdrawn bool // never starts
	returns   bool // another claim of this worker has the job: what locks it goes back
}

// newPool makes a pool that hands every run's end to ended.
func newPool(c Config, ended func(*active, ended)) *pool {
	p := &pool{
		handlers: c.Handlers, policies: c.Policies, delay: c.ReturnDelay,
		workerID: c.WorkerID, events: c.Events, size: c.Concurrency, ended: ended,
		freed:     make(chan struct{}, 1),
		attention: make(chan struct{}, 1),
		low:       c.Concurrency,
		active:    make(map[*job.Claimed]*active, c.Concurrency),
		latest:    make(map[int64]*active, c.Concurrency),
		groups:    make(map[*group]bool),
	}
	p.work.L = &p.mu
	return p
}

// start opens the slots. Jobs run under ctx.
func (p *pool) start(ctx context.Context) {
	p.ctx = ctx
	for range p.size {
		p.done.Add(1)
		go p.slot()
	}
}

// slot runs jobs until the pool closes. A handler that ends its goroutine
// (runtime.Goexit) costs the goroutine, not the slot.
func (p *pool) slot() {
	finished := false
	defer func() {
		if !finished {
			go p.slot()
			return
		}
		p.done.Done()
	}()
	for a := p.next(); a != nil; a = p.next() {
		p.runOne(a)
	}
	finished = true
}

// next waits for a job to run; nil is the end.
func (p *pool) next() *active {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.dropOutdated(); len(p.ready) == 0; p.dropOutdated() {
		if p.closed {
			return nil
		}
		p.idle++
		p.work.Wait()
		p.idle--
		p.waking = false
	}
	a := p.ready[0]
	p.ready[0] = nil
	p.ready = p.ready[1:]
	a.started = true
	if len(p.ready) > 0 {
		p.rouse()
	}
	return a
}

// rouse wakes a slot, unless one is on its way already: it will see to the next.
// Where jobs are over at once, few slots so do all of them, and the others are
// not woken for nothing. The caller holds the lock.
func (p *pool) rouse() {
	if p.idle > 0 && !p.waking {
		p.waking = true
		p.work.Signal()
	}
}

// run starts a job as soon as a slot is free. A time says that this may take a
// while from then.
func (p *pool) run(j *job.Claimed, claimed time.Time) {
	p.mu.Lock()
	before := p.enter(&active{job: j, claimed: claimed})
	p.mu.Unlock()
	p.interrupted(before, errClaimedAgain)
}

// enter lets a job wait for a slot. It returns the run, if there is one, that has
// lost the job by that. The caller holds the lock.
func (p *pool) enter(a *active) (lost []*job.Claimed) {
	a.ctx, a.cancel = context.WithCancelCause(p.ctx)
	if p.aborted != nil {
		a.cancel(p.aborted)
	}
	if before := p.latest[a.job.ID]; before != nil && before.ctx.Err() == nil {
		// Claimed again, so that run has lost it.
		before.cancel(&lostError{errClaimedAgain})
		lost = append(lost, before.job)
	}
	p.active[a.job], p.latest[a.job.ID] = a, a
	if !a.firm {
		p.offer(a)
	}
	return lost
}

// offer gives a job to the slots. The caller holds the lock.
func (p *pool) offer(a *active) {
	p.ready = append(p.ready, a)
	p.rouse()
}

var errClaimedAgain = errors.New("the job was taken from this run, and claimed again")

// lose ends the contexts of jobs that are no longer this worker's.
func (p *pool) lose(jobs []*job.Claimed, cause error) { p.interrupt(jobs, &lostError{cause}, cause) }

// cancel ends the context of a job that somebody has cancelled; cause wraps
// job.ErrCancelled.
func (p *pool) cancel(j *job.Claimed, cause error) { p.interrupt([]*job.Claimed{j}, cause, cause) }

// interrupt ends the contexts of those of the jobs that run, and whose contexts
// have not ended for another reason.
func (p *pool) interrupt(jobs []*job.Claimed, cause, told error) {
	var ended []*job.Claimed
	p.mu.Lock()
	for _, j := range jobs {
		if a, ok := p.active[j]; ok && a.ctx.Err() == nil {
			a.cancel(cause)
			ended = append(ended, j)
		}
	}
	p.mu.Unlock()
	p.interrupted(ended, told)
}

func (p *pool) interrupted(jobs []*job.Claimed, cause error) {
	for _, j := range jobs {
		p.events.Emit(event.JobInterrupted{WorkerID: p.workerID, Job: j, Cause: cause})
	}
}

// finish frees the job's slot and hands its end on, unless the pool has given
// the job up meanwhile.
func (p *pool) finish(a *active, e ended) {
	p.mu.Lock()
	_, ok := p.active[a.job]
	if ok {
		// Handed on under the lock: whoever looks for a job finds it in the
		// pool or in the releaser.
		p.ended(a, e)
		p.drop(a)
		a.cancel(nil)
	}
	wanting := len(p.active) < p.low
	p.mu.Unlock()
	if !ok || !wanting {
		return
	}
	select {
	case p.freed <- struct{}{}:
	default:
	}
}

// abort ends the contexts of all jobs.
func (p *pool) abort(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.aborted = cause
	for _, a := range p.active {
		a.cancel(cause)
	}
}

// close lets the present jobs be the last ones; the returned channel closes when
// they have ended.
func (p *pool) close() <-chan struct{} {
	p.mu.Lock()
	p.closed = true
	p.work.Broadcast()
	p.mu.Unlock()
	drained := make(chan struct{})
	go func() {
		p.done.Wait()
		close(drained)
	}()
	return drained
}

// abandon gives up on the jobs that still run: they go back to the queue.
func (p *pool) abandon() {
	var ids []int64
	for _, j := range p.claimed() {
		ids = append(ids, j.ID)
	}
	p.events.Emit(event.ShutdownForced{WorkerID: p.workerID, JobIDs: ids})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = nil
	for j, a := range p.active {
		e := ended{job: j, outcome: cutOff(job.Outcome{Err: ErrShutdown}, p.delay), unstarted: !a.started}
		if p.latest[j.ID] != a {
			e.outcome = job.Outcome{Kind: job.Lost, Err: errClaimedAgain}
		}
		p.ended(a, e)
		p.drop(a)
		a.cancel(ErrShutdown)
	}
}

// drop forgets a run. The caller holds the lock.
func (p *pool) drop(a *active) {
	delete(p.active, a.job)
	if p.latest[a.job.ID] == a {
		delete(p.latest, a.job.ID)
	}
}

// free is how many jobs can start at once.
func (p *pool) free() int { return max(0, p.size-p.running()) }

func (p *pool) running() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.active)
}

// wantBelow has freed told as soon as fewer jobs than this are here.
func (p *pool) wantBelow(jobs int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.low = jobs
}

// locked lists those of claimed that are in no held claim.
func (p *pool) locked() []*job.Claimed {
	p.mu.Lock()
	defer p.mu.Unlock()
	var jobs []*job.Claimed
	for _, a := range p.active {
		if a.group == nil {
			jobs = append(jobs, a.job)
		}
	}
	return jobs
}

func (p *pool) claimed() []*job.Claimed {
	p.mu.Lock()
	defer p.mu.Unlock()
	jobs := make([]*job.Claimed, 0, len(p.active))
	for _, a := range p.active {
		jobs = append(jobs, a.job)
	}
	return jobs
}
