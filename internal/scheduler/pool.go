package scheduler

import (
	"context"
	"sync"

	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
)

// pool is the slots: as many goroutines as jobs may run at once, each kept for
// many jobs.
type pool struct {
	handlers map[string]Handler
	workerID string
	events   *event.Stream
	size     int
	ended    func(ended)

	jobs  chan *job.Claimed
	freed chan struct{} // told, without blocking, when a slot becomes free
	done  sync.WaitGroup

	mu     sync.Mutex
	active map[int64]*job.Claimed
}

// newPool makes a pool that hands every run's end to ended.
func newPool(c Config, ended func(ended)) *pool {
	return &pool{
		handlers: c.Handlers, workerID: c.WorkerID, events: c.Events, size: c.Concurrency, ended: ended,
		// The loop never sends more than there are free slots, so with this
		// much room it never blocks on a slot that is about to receive.
		jobs:   make(chan *job.Claimed, c.Concurrency),
		freed:  make(chan struct{}, 1),
		active: make(map[int64]*job.Claimed, c.Concurrency),
	}
}

// start opens the slots. Jobs run under ctx.
func (p *pool) start(ctx context.Context) {
	for range p.size {
		p.done.Add(1)
		go p.slot(ctx)
	}
}

// slot runs jobs until the pool closes. A handler that ends its goroutine
// (runtime.Goexit) costs the goroutine, not the slot.
func (p *pool) slot(ctx context.Context) {
	finished := false
	defer func() {
		if !finished {
			go p.slot(ctx)
			return
		}
		p.done.Done()
	}()
	for j := range p.jobs {
		p.runOne(ctx, j)
	}
	finished = true
}

// run starts a job in a free slot.
func (p *pool) run(j *job.Claimed) {
	p.mu.Lock()
	p.active[j.ID] = j
	p.mu.Unlock()
	p.jobs <- j
}

// finish frees the job's slot and hands its end on, unless the pool has given
// the job up meanwhile.
func (p *pool) finish(e ended) {
	p.mu.Lock()
	current, ok := p.active[e.job.ID]
	if ok = ok && current == e.job; ok {
		// Handed on under the lock: whoever looks for a job finds it in the
		// pool or in the releaser.
		p.ended(e)
		delete(p.active, e.job.ID)
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
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, j := range p.active {
		p.ended(ended{job: j, outcome: job.Outcome{Kind: job.Returned, Err: ErrShutdown}})
		delete(p.active, id)
	}
}

func (p *pool) free() int { return p.size - p.running() }

func (p *pool) running() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.active)
}

func (p *pool) ids() []int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := make([]int64, 0, len(p.active))
	for id := range p.active {
		ids = append(ids, id)
	}
	return ids
}
