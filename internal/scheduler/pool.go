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
// many jobs.
type pool struct {
	handlers map[string]Handler
	policies map[string]Policy
	delay    time.Duration // of jobs that the shutdown cuts off
	workerID string
	events   *event.Stream
	size     int
	ended    func(ended)

	jobs  chan *active
	freed chan struct{} // told, without blocking, when a slot becomes free
	done  sync.WaitGroup
	ctx   context.Context // what jobs run under

	mu     sync.Mutex
	active map[*job.Claimed]*active
	latest map[int64]*active // by the job's id
}

// active is a job with the context of its run.
type active struct {
	job    *job.Claimed
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// newPool makes a pool that hands every run's end to ended.
func newPool(c Config, ended func(ended)) *pool {
	return &pool{
		handlers: c.Handlers, policies: c.Policies, delay: c.ReturnDelay,
		workerID: c.WorkerID, events: c.Events, size: c.Concurrency, ended: ended,
		// The loop never sends more than there are free slots, so with this
		// much room it never blocks on a slot that is about to receive.
		jobs:   make(chan *active, c.Concurrency),
		freed:  make(chan struct{}, 1),
		active: make(map[*job.Claimed]*active, c.Concurrency),
		latest: make(map[int64]*active, c.Concurrency),
	}
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
	for a := range p.jobs {
		p.runOne(a.ctx, a.job)
	}
	finished = true
}

// run starts a job in a free slot.
func (p *pool) run(j *job.Claimed) {
	a := &active{job: j}
	a.ctx, a.cancel = context.WithCancelCause(p.ctx)
	p.mu.Lock()
	before := p.latest[j.ID]
	if before != nil {
		// Claimed again, so that run has lost it.
		before.cancel(&lostError{errClaimedAgain})
	}
	p.active[j], p.latest[j.ID] = a, a
	p.mu.Unlock()
	if before != nil {
		p.interrupted([]*job.Claimed{before.job}, errClaimedAgain)
	}
	p.jobs <- a
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
func (p *pool) finish(e ended) {
	p.mu.Lock()
	a, ok := p.active[e.job]
	if ok {
		// Handed on under the lock: whoever looks for a job finds it in the
		// pool or in the releaser.
		p.ended(e)
		p.drop(a)
		a.cancel(nil)
	}
	p.mu.Unlock()
	if !ok {
		return
	}
	select {
	case p.freed <- struct{}{}:
	default:
	}
}

// close lets the running jobs be the last ones; the returned channel closes
// when they have ended.
func (p *pool) close() <-chan struct{} {
	close(p.jobs)
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
	for j, a := range p.active {
		e := ended{job: j, outcome: cutOff(job.Outcome{Err: ErrShutdown}, p.delay)}
		if p.latest[j.ID] != a {
			e.outcome = job.Outcome{Kind: job.Lost, Err: errClaimedAgain}
		}
		p.ended(e)
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

func (p *pool) free() int { return p.size - p.running() }

func (p *pool) running() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.active)
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
