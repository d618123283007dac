package scheduler

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/gworker/gworker/internal/job"
)

// order keeps jobs from starting before better ones. The promise: with one slot jobs
// start by priority and run_at; with more no job starts before one of a better
// priority that was runnable and visible when both were claimed.
//
// Jobs wait for slots in their order, so what could break the promise are better
// jobs that do not wait yet when a slot becomes free:
//
//   - those of another claim that is under way. Two claims share what there is as
//     chance has it, so a second one begins only while all jobs have one priority,
//     and what is worse than that waits until both are here;
//   - those that went back unstarted, since the jobs before them took longer than
//     expected: worse ones wait for a claim that began after that;
//   - those that wait until their locks are written (active.lockFirst).
//
// It is part of the pool and guarded by its lock.
type order struct {
	strict bool // there is one slot

	begun    int          // claims so far
	underWay map[int]bool // those without an answer
	uniform  bool         // the last claim that found jobs found one priority
	priority int          // that one
	floor    *int         // the worst priority that may start while claims overlap

	freed     []*freed
	lockFirst int // jobs that wait for their locks

	limit *rank // what no job may start behind, of all these; nil: nothing
	stale bool
}

// rank is a job's place in the order.
type rank struct {
	priority int
	runAt    time.Time
	id       int64
}

func rankOf(j *job.Claimed) rank { return rank{j.Priority, j.RunAt, j.ID} }

func (r rank) compare(other rank) int {
	return cmp.Or(cmp.Compare(r.priority, other.priority), r.runAt.Compare(other.runAt), cmp.Compare(r.id, other.id))
}

// freed is some jobs that went back unstarted: where those begin and end that no claim
// has found since.
type freed struct {
	first, last rank
	// after is the last claim that may have passed them by, once they are free.
	after int
}

const notFreeYet = math.MaxInt

// begin notes that a claim begins, and returns its number.
func (o *order) begin() int {
	o.begun++
	o.underWay[o.begun] = true
	if len(o.underWay) > 1 && o.floor == nil {
		o.floor, o.stale = new(o.priority), true
	}
	return o.begun
}

// mayBegin reports whether a claim may begin now.
func (o *order) mayBegin() bool {
	if len(o.underWay) == 0 {
		return true
	}
	return !o.strict && o.uniform && len(o.freed) == 0 && (o.floor == nil || *o.floor == o.priority)
}

// answered notes that a claim has its answer: the jobs. It began at from; all says that
// it took everything that could run from there on.
func (o *order) answered(claim int, from cursor, jobs []*job.Claimed, all bool) {
	delete(o.underWay, claim)
	if len(o.underWay) == 0 {
		o.floor = nil
	}
	o.stale = true
	if len(jobs) == 0 && !all {
		return
	}
	var last rank
	if len(jobs) > 0 {
		o.priority, o.uniform, last = jobs[0].Priority, true, rankOf(jobs[0])
	}
	for _, j := range jobs {
		o.uniform = o.uniform && j.Priority == o.priority
		if r := rankOf(j); r.compare(last) > 0 {
			last = r
		}
	}
	o.freed = slices.DeleteFunc(o.freed, func(f *freed) bool {
		if claim <= f.after || !from.finds(f.first) {
			return false
		}
		if all || last.compare(f.last) >= 0 {
			return true
		}
		if last.compare(f.first) > 0 {
			f.first = last
		}
		return false
	})
}

// settle forgets what went back and is free where nothing waits that could start too
// early.
func (o *order) settle(waiting int) {
	if waiting > 0 || len(o.underWay) > 0 || len(o.freed) == 0 {
		return
	}
	o.freed = slices.DeleteFunc(o.freed, func(f *freed) bool { return f.after != notFreeYet })
	o.stale = true
}

// allows reports whether a job may start.
func (o *order) allows(j *job.Claimed) bool {
	switch {
	case o.limit == nil:
		return true
	case o.strict:
		return rankOf(j).compare(*o.limit) <= 0
	}
	return j.Priority <= o.limit.priority
}

// lower makes r the limit, if it comes before the present one.
func (o *order) lower(r rank) {
	if o.limit == nil || r.compare(*o.limit) < 0 {
		o.limit = &r
	}
}

// startable reports whether the first job that waits may start. The caller holds the
// lock.
func (p *pool) startable() bool {
	if len(p.ready) == 0 {
		return false
	}
	o := &p.order
	if o.stale {
		o.stale, o.limit = false, nil
		for _, f := range o.freed {
			o.lower(f.first)
		}
		if o.floor != nil {
			o.lower(rank{priority: *o.floor})
		}
		if o.lockFirst > 0 {
			for oc := range p.openClaims {
				for _, a := range oc.jobs {
					if a.awaitsLock {
						o.lower(rankOf(a.job))
					}
				}
			}
		}
	}
	return p.closing || p.closed || o.allows(p.ready[0].job)
}

// offer gives a job to the slots, in its order. The caller holds the lock.
func (p *pool) offer(a *active) {
	p.lockKnown(a)
	before := len(p.ready)
	if before > 0 && rankOf(a.job).compare(rankOf(p.ready[before-1].job)) < 0 {
		before, _ = slices.BinarySearchFunc(p.ready, a, func(other, a *active) int {
			return rankOf(other.job).compare(rankOf(a.job))
		})
	}
	p.ready = slices.Insert(p.ready, before, a)
	p.wakeSlot()
}

// awaitLock keeps worse jobs from starting until a job's lock is known to be written.
// The caller holds the lock.
func (p *pool) awaitLock(a *active) {
	a.awaitsLock = true
	p.order.lockFirst++
	p.order.stale = true
}

// lockKnown is the end of awaitLock, whatever has become of the lock. The caller holds
// the lock.
func (p *pool) lockKnown(a *active) {
	if a.awaitsLock {
		a.awaitsLock = false
		p.order.lockFirst--
		p.order.stale = true
	}
}

// goesBack notes that a job goes back unstarted, with others if there are. Those are
// kept together until isFree. The caller holds the lock.
func (o *order) goesBack(with *freed, j *job.Claimed) *freed {
	r := rankOf(j)
	switch {
	case with == nil:
		with = &freed{first: r, last: r, after: notFreeYet}
		o.freed = append(o.freed, with)
	case r.compare(with.first) < 0:
		with.first = r
	case r.compare(with.last) > 0:
		with.last = r
	}
	o.stale = true
	return with
}

// isFree notes that claims from now on find what went back, as does the one with the
// number. The caller holds the lock.
func (o *order) isFree(f *freed, found int) {
	if f != nil {
		f.after = o.begun
		if found == o.begun {
			f.after--
		}
	}
}

// claimBegins notes that a claim begins, and returns its number.
func (p *pool) claimBegins() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.order.begin()
}

// claimEnded notes that a claim which began at from has its answer, and that its jobs
// wait for slots. all says that it took everything that could run from there on.
func (p *pool) claimEnded(claim int, from cursor, jobs []*job.Claimed, all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.order.answered(claim, from, jobs, all)
	if p.startable() {
		p.wakeSlot()
	}
}

// mayClaim reports whether a claim may begin now.
func (p *pool) mayClaim() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.order.mayBegin()
}

// missesFreed reports whether jobs that went back unstarted hold up others, so that a
// claim has to come; best is the first of them.
func (p *pool) missesFreed() (best rank, missing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.order.settle(len(p.ready))
	for _, f := range p.order.freed {
		if f.after != notFreeYet && (!missing || f.first.compare(best) < 0) {
			best, missing = f.first, true
		}
	}
	return best, missing
}
