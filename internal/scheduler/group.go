package scheduler

import (
	"slices"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
)

// group is a held claim: jobs that nobody else can touch while a transaction is
// open, although nothing is written about them yet. It ends in one of two ways:
//
//   - Its transaction commits. What has ended by then is finished with it; what
//     still runs is spilled, its lock is written, and it goes on as a job of an
//     ordinary claim does; what has not started is free again.
//   - Its transaction is lost, and with it everything but what this process
//     knows. Then its jobs are locked anew, as far as nobody else has taken them.
//
// All of it is guarded by the lock of the pool, so that a job is always exactly
// in one place: waiting, running, ended in its group, or in the releaser.
type group struct {
	pool    *pool
	jobs    []*active
	claimed []*job.Claimed // the same as they were claimed
	since   time.Time      // when the claim's answer was here

	state groupState
	// left counts the jobs whose end would be written with the group's.
	left    int
	wanted  bool    // somebody waits for the end of the group
	dropped int     // jobs that were withdrawn before the end
	freed   *freed  // they and those of the end
	next    int     // the claim that begins with the commit of the end; 0: none
	ended   []ended // what is to be finished with the group
	late    []ended // what ended too late for that
	over    chan struct{}
}

type groupState uint8

const (
	groupOpen   groupState = iota
	groupEnding            // its end is being written, or its jobs locked anew
	groupOver
)

// ending is what the end of a group has to write.
type ending struct {
	finish  []ended
	spill   []*active
	ask     []int64 // those of spill whose rows somebody may wait for
	dropped int     // jobs that had not started
}

// takes puts the group's jobs into the slots' queue. It reports false, and does
// nothing, if the pool takes no held jobs any more.
func (p *pool) takes(g *group) bool {
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		return false
	}
	var lost []*job.Claimed
	for _, a := range g.jobs {
		if !a.slow {
			g.left++
		}
		g.wanted = g.wanted || a.firm
		lost = append(lost, p.enter(a)...)
	}
	p.groups[g] = true
	p.mu.Unlock()
	p.interrupted(lost, errClaimedAgain)
	return true
}

// end takes the end of a run, if it is to be written with the group. The caller
// holds the pool's lock.
func (g *group) end(a *active, e ended) bool {
	switch {
	case g.state == groupOver:
		return false
	case g.state == groupEnding || a.slow:
		g.late = append(g.late, e)
	default:
		if g.ended == nil {
			g.ended = make([]ended, 0, len(g.jobs))
		}
		g.ended = append(g.ended, e)
		if g.left--; g.left == 0 {
			g.pool.attend()
		}
	}
	return true
}

// beginEnd decides what the end of the group writes. Jobs that have not started
// never will. next is the claim that follows in the same round trip.
func (p *pool) beginEnd(g *group, next int) ending {
	p.mu.Lock()
	defer p.mu.Unlock()
	g.state, g.next = groupEnding, next
	e := ending{finish: g.ended, dropped: g.dropped + p.withdraw(g)}
	p.withdrawBehind(g)
	for _, a := range g.jobs {
		if (a.started || a.firm) && !a.slow && a.here {
			e.spill = append(e.spill, a)
		}
	}
	return e
}

// dropOutdated sees to it that no held job starts that the server may have set free
// since: its session ends where a process was stopped for long. The caller holds the
// lock.
func (p *pool) dropOutdated(now time.Time) {
	for len(p.ready) > 0 {
		g := p.ready[0].group
		if g == nil || g.state != groupOpen || p.ready[0].slow || sinceByEitherClock(g.since, now) < p.startWithin {
			return
		}
		g.dropped += p.withdraw(g)
		g.wanted = true
		p.attend()
	}
}

// withdraw takes the group's jobs that have not started out of the slots' queue,
// but for those whose locks are written, or will be. The caller holds the lock.
func (p *pool) withdraw(g *group) (count int) {
	for _, a := range g.jobs {
		if !a.started && !a.slow && !a.firm && a.here {
			a.withdrawn = true
			p.drop(a)
			g.freed = p.order.goesBack(g.freed, a.job)
			g.left--
			count++
		}
	}
	if count > 0 {
		p.ready = slices.DeleteFunc(p.ready, func(a *active) bool { return a.withdrawn })
	}
	return count
}

// withdrawBehind has what other groups have claimed go back as well where it would wait
// for the jobs that this one gives back. The caller holds the lock.
func (p *pool) withdrawBehind(freed *group) {
	if freed.freed == nil {
		return
	}
	for g := range p.groups {
		if g == freed || g.state != groupOpen || len(p.ready) == 0 || p.startable() {
			continue
		}
		if count := p.withdraw(g); count > 0 {
			g.dropped += count
			g.wanted = true
			p.attend()
		}
	}
}

// stopHolding takes no held jobs any more, and starts none that wait.
func (p *pool) stopHolding() (withdrawn int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	for g := range p.groups {
		if g.state == groupOpen {
			withdrawn += p.withdraw(g)
		}
	}
	return withdrawn
}

// committed ends the group: those of its jobs that are left are locked now, if locked
// reports it. What
// ended too late is handed on under the lock, as in finish.
func (p *pool) committed(g *group, locked func(*active) bool, handOn func(ended)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range g.late {
		handOn(e)
	}
	p.startFirm(g, locked, handOn)
	p.closeGroup(g)
}

// startFirm lets the jobs start that have waited for their locks; at the end of the
// worker they go back. The caller holds the lock.
func (p *pool) startFirm(g *group, locked func(*active) bool, handOn func(ended)) {
	for _, a := range g.jobs {
		switch {
		case !a.firm || !a.here:
		case !locked(a):
			p.drop(a)
		case a.superseded:
			handOn(returned(ended{job: a.job, unstarted: true}))
			p.drop(a)
		case p.closing:
			handOn(ended{job: a.job, outcome: job.Outcome{Kind: job.Returned, Err: ErrShutdown}, unstarted: true})
			p.drop(a)
		default:
			p.offer(a)
		}
	}
}

// rescued ends a group whose transaction was lost. kept are those of its jobs that
// are locked again; lost are those that ran until now, and are not. A run that was
// given up for a later claim of its job has no use for its lock.
func (p *pool) rescued(g *group, kept map[int64]bool, handOn func(ended)) (gone []ended, lost []*job.Claimed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range append(g.ended, g.late...) {
		switch {
		case !kept[e.job.ID]:
			gone = append(gone, e)
		case e.outcome.Kind == job.Lost:
			handOn(returned(e))
		default:
			handOn(e)
		}
	}
	p.startFirm(g, func(a *active) bool { return kept[a.job.ID] }, handOn)
	for _, a := range g.jobs {
		switch {
		case !a.here:
		case !kept[a.job.ID] && !a.started:
			a.withdrawn = true
			p.drop(a)
		case !kept[a.job.ID]:
			lost = append(lost, a.job)
		case a.superseded:
			a.returns = true // when it ends, so that it does not overlap with yet another run
		}
	}
	p.ready = slices.DeleteFunc(p.ready, func(a *active) bool { return a.withdrawn })
	p.closeGroup(g)
	return gone, lost
}

// returned gives the lock of a run back whose job another claim has.
func returned(e ended) ended {
	e.outcome = job.Outcome{Kind: job.Returned, Err: errClaimedAgain}
	return e
}

// closeGroup is the end of a group. The caller holds the lock.
func (p *pool) closeGroup(g *group) {
	g.state = groupOver
	p.order.isFree(g.freed, g.next)
	now := time.Now()
	for _, a := range g.jobs {
		a.group = nil
		if a.here && a.started && !a.asked {
			a.spilled = now
		}
	}
	delete(p.groups, g)
	close(g.over)
}

// relock lists what a lost group may still have, as statement arguments.
func (p *pool) relock(g *group, workerID string) dbgen.RelockJobsParams {
	p.mu.Lock()
	defer p.mu.Unlock()
	params := dbgen.RelockJobsParams{WorkerID: workerID}
	for _, a := range g.jobs {
		if a.withdrawn {
			continue
		}
		appendRelock(&params, a.job)
	}
	return params
}

// held lists the jobs of groups that are not over.
func (p *pool) held() []*job.Claimed {
	p.mu.Lock()
	defer p.mu.Unlock()
	var jobs []*job.Claimed
	for g := range p.groups {
		for _, a := range g.jobs {
			if !a.withdrawn {
				jobs = append(jobs, a.job)
			}
		}
	}
	return jobs
}

// want asks for the end of the group that a job is in, and returns what closes
// then; nil if the job is in none.
func (p *pool) want(j *job.Claimed) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.latest[j.ID] // a batch's part is another value than the job
	if a == nil || a.job.Lock != j.Lock || a.group == nil {
		return nil
	}
	a.group.wanted = true
	p.attend()
	return a.group.over
}

// attend makes the loop look at the groups.
func (p *pool) attend() {
	select {
	case p.attention <- struct{}{}:
	default:
	}
}
