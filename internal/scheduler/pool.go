package scheduler

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// pool is the slots: as many goroutines as jobs may run at once, each kept for
// many jobs, and the jobs that wait for them.
type pool struct {
	handlers map[string]Handler
	policies map[string]completer.Policy
	delay    time.Duration // of jobs that the shutdown cuts off
	workerID string
	events   *eventstream.Stream
	limits   *limits
	size     int
	ended    func(*active, completer.Result)

	busySince []atomic.Int64 // of each slot, see since; 0: it runs no job
	epoch     time.Time      // what they count from

	nudge func() // when slots run out of jobs, or a held claim is to be looked at
	done  sync.WaitGroup
	ctx   context.Context // what jobs run under

	mu         sync.Mutex
	work       sync.Cond // slots wait for ready jobs, or the end
	idle       int       // slots that wait
	waking     bool      // one of them is being woken
	ready      []*active // jobs that wait for a slot, in their order
	order      order     // what keeps them from starting
	overdue    *freed    // those that waited for too long, and are not written back yet
	closed     bool
	closing    bool // no further held jobs are taken
	aborted    error
	low        int                 // the loop is nudged where fewer jobs than this are here
	count      int                 // of the runs that are here
	latest     map[int64]*active   // the latest run of each job, by its id
	openClaims map[*openClaim]bool // those that are not over

	startWithin time.Duration // how long after its claim a held job may start
}

// active is a job that waits for a slot or runs, with the context of its run.
type active struct {
	job    *job.Claimed
	ctx    context.Context
	cancel context.CancelCauseFunc

	claim      *openClaim // the held claim that it is of, until that is over
	prelocked  bool       // its lock was written by the claim, which has not committed yet
	lockFirst  bool       // it starts when its lock is to be seen by everybody
	awaitsLock bool       // it does not wait for a slot yet, since that is not so
	claimed    time.Time  // when it was, if that was ahead of the slots
	started    bool
	told       bool // observers know that it has
	withdrawn  bool // never starts
	returns    bool // another claim of this worker has the job: what locks it goes back

	spilled time.Time // when its held claim ended before it; zero: it did not, or was asked
	asked   bool      // whether the database was asked who waits for its row, see waits

	state atomic.Int32  // of its end
	heard chan struct{} // closed when observers know that it was interrupted

	here       bool    // the pool has it
	superseded bool    // there is, or was, a later run of its job
	before     *active // the run of its job that was the latest before, if that is here
}

// The states of a run's end.
const (
	goesOn      = iota
	hasEnded    // it is too late to interrupt it
	interrupted // its end waits until observers know that
)

// interrupt ends the run's context, unless the run has ended, or its context has. It
// reports whether observers are to be told, by pool.interrupted. The caller holds the
// pool's lock.
func (a *active) interrupt(cause error) bool {
	if a.ctx.Err() != nil {
		return false
	}
	a.heard = make(chan struct{})
	if !a.state.CompareAndSwap(goesOn, interrupted) {
		return false
	}
	a.cancel(cause)
	return true
}

// end is to be called when the handler has returned, and before anybody is told.
func (a *active) end() {
	if !a.state.CompareAndSwap(goesOn, hasEnded) {
		<-a.heard
	}
}

// newPool makes a pool that hands every run's end to ended.
func newPool(c Config, limits *limits, ended func(*active, completer.Result), nudge func()) *pool {
	p := &pool{
		handlers: c.Handlers, policies: c.Policies, delay: c.ReturnDelay,
		workerID: c.WorkerID, events: c.Events, size: c.Concurrency, ended: ended,
		nudge:      nudge,
		busySince:  make([]atomic.Int64, c.Concurrency),
		epoch:      time.Now().Add(-time.Second), // so that none is 0
		limits:     limits,
		low:        c.Concurrency,
		latest:     make(map[int64]*active, c.Concurrency),
		openClaims: make(map[*openClaim]bool),
		order:      order{strict: c.Concurrency == 1, underWay: make(map[int]bool)},
	}
	p.work.L = &p.mu
	return p
}

// start opens the slots. Jobs run under ctx.
func (p *pool) start(ctx context.Context) {
	p.ctx = ctx
	for place := range p.size {
		p.done.Add(1)
		go p.slot(place, nil)
	}
}

// slot runs jobs until the pool closes, beginning with the given one, if any. A
// handler or an observer that ends its goroutine (runtime.Goexit) costs the
// goroutine, not the slot, and no job.
func (p *pool) slot(place int, a *active) {
	finished, over := false, true
	busy := &p.busySince[place]
	defer func() {
		busy.Store(0)
		switch {
		case finished:
			p.done.Done()
		case over:
			go p.slot(place, nil)
		default:
			go p.slot(place, a)
		}
	}()
	now := time.Now()
	if a == nil {
		a, now = p.next()
	}
	for ; a != nil; a, now = p.next() {
		busy.Store(int64(now.Sub(p.epoch)))
		p.runOne(a, now, &over)
		busy.Store(0)
	}
	finished = true
}

// next waits for a job to run, and tells when it begins; nil is the end.
func (p *pool) next() (*active, time.Time) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.dropOutdated(now); !p.startable(); p.dropOutdated(now) {
		if p.closed {
			return nil, now
		}
		p.idle++
		p.work.Wait()
		p.idle--
		p.waking = false
		now = time.Now()
	}
	a := p.ready[0]
	p.ready[0] = nil
	p.ready = p.ready[1:]
	a.started = true
	if p.startable() {
		p.wakeSlot()
	}
	return a, now
}

// wakeSlot wakes a slot, unless one is on its way already: it will see to the next.
// Where jobs are over at once, few slots so do all of them, and the others are
// not woken for nothing. The caller holds the lock.
func (p *pool) wakeSlot() {
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
func (p *pool) enter(a *active) (lost []*active) {
	a.ctx, a.cancel = context.WithCancelCause(p.ctx)
	if p.aborted != nil {
		a.cancel(p.aborted)
	}
	if before := p.latest[a.job.ID]; before != nil {
		a.before, before.superseded = before, true
		if before.interrupt(&lostError{errClaimedAgain}) {
			lost = append(lost, before) // claimed again, so that run has lost it
		}
	}
	p.latest[a.job.ID], a.here = a, true
	p.count++
	p.limits.enter(a.job.Task)
	if a.lockFirst {
		p.awaitLock(a)
	} else {
		p.offer(a)
	}
	return lost
}

var errClaimedAgain = errors.New("the job was taken from this run, and claimed again")

// lose ends the contexts of jobs that are no longer this worker's.
func (p *pool) lose(jobs []*job.Claimed, cause error) { p.interrupt(jobs, &lostError{cause}, cause) }

// cancel ends the context of a job that was cancelled; cause wraps
// job.ErrCancelled.
func (p *pool) cancel(j *job.Claimed, cause error) { p.interrupt([]*job.Claimed{j}, cause, cause) }

// interrupt ends the contexts of those of the jobs that run, and whose contexts
// have not ended for another reason.
func (p *pool) interrupt(jobs []*job.Claimed, cause, told error) {
	var ended []*active
	p.mu.Lock()
	for _, j := range jobs {
		if a := p.find(j); a != nil && a.interrupt(cause) {
			ended = append(ended, a)
		}
	}
	p.mu.Unlock()
	p.interrupted(ended, told)
}

// interrupted tells of runs that were interrupted, before anybody is told that they end.
func (p *pool) interrupted(runs []*active, cause error) {
	for _, a := range runs {
		p.events.Emit(event.JobInterrupted{WorkerID: p.workerID, Job: eventstream.Job(a.job), Cause: cause})
		close(a.heard)
	}
}

// finish frees the job's slot and hands its end on, unless the pool has given
// the job up meanwhile.
func (p *pool) finish(a *active, e completer.Result) {
	p.mu.Lock()
	ok := a.here
	if ok {
		// Handed on under the lock: whoever looks for a job finds it in the
		// pool or in the completer.
		p.ended(a, e)
		p.drop(a)
		a.cancel(nil)
	}
	wanting := p.count < p.low
	p.mu.Unlock()
	if !ok || !wanting {
		return
	}
	p.nudge()
}

// abort ends the contexts of all jobs. The caller has interrupted tell of those that it
// returns.
func (p *pool) abort(cause error) (ended []*active) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.aborted = cause
	for a := range p.runs() {
		if a.interrupt(cause) {
			ended = append(ended, a)
		}
	}
	return ended
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
	for _, a := range slices.Collect(p.runs()) {
		e := completer.Result{Job: a.job, Outcome: interruptedOutcome(job.Outcome{Err: ErrShutdown}, p.delay), Unstarted: !a.started}
		if a.superseded {
			e.Outcome = job.Outcome{Kind: job.Lost, Err: errClaimedAgain}
		}
		p.ended(a, e)
		p.drop(a)
		a.cancel(ErrShutdown)
	}
}

// drop forgets a run. The caller holds the lock.
func (p *pool) drop(a *active) {
	a.here = false
	p.lockKnown(a)
	p.count--
	p.limits.leave(a.job.Task)
	switch latest := p.latest[a.job.ID]; {
	case latest == a && a.before == nil:
		delete(p.latest, a.job.ID)
	case latest == a:
		p.latest[a.job.ID] = a.before
	default:
		for latest.before != a {
			latest = latest.before
		}
		latest.before = a.before
	}
}

// runs are all that are here. The caller holds the lock.
func (p *pool) runs() iter.Seq[*active] {
	return func(yield func(*active) bool) {
		for _, a := range p.latest {
			for ; a != nil; a = a.before {
				if !yield(a) {
					return
				}
			}
		}
	}
}

// find returns the run of just this claim of a job, or nil. The caller holds the lock.
func (p *pool) find(j *job.Claimed) *active {
	a := p.latest[j.ID]
	for a != nil && a.job != j {
		a = a.before
	}
	return a
}

// stuck is how many slots have run a job for longer than that.
func (p *pool) stuck(longer time.Duration) (slots int) {
	before := int64(time.Since(p.epoch) - longer)
	for i := range p.busySince {
		if since := p.busySince[i].Load(); since != 0 && since < before {
			slots++
		}
	}
	return slots
}

// free is how many jobs can start at once.
func (p *pool) free() int { return max(0, p.size-p.running()) }

func (p *pool) running() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// wantBelow has the loop nudged as soon as fewer jobs than this are here.
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
	for a := range p.runs() {
		if a.claim == nil {
			jobs = append(jobs, a.job)
		}
	}
	return jobs
}

func (p *pool) claimed() []*job.Claimed {
	p.mu.Lock()
	defer p.mu.Unlock()
	jobs := make([]*job.Claimed, 0, p.count)
	for a := range p.runs() {
		jobs = append(jobs, a.job)
	}
	return jobs
}
