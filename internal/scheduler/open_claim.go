package scheduler

import (
	"slices"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// openClaim is a held claim: jobs that nobody else can touch while a transaction is
// open, although nothing is written about them yet. It ends in one of two ways:
//
//   - Its transaction commits. What has ended by then is finished with it; what
//     still runs is spilled, its lock is written, and it goes on as a job of an
//     ordinary claim does; what has not started is free again.
//   - Its transaction is lost, and with it everything but what this process
//     knows. Then its jobs are locked anew, as far as nobody else has taken them.
//
// All of it is guarded by the lock of the pool, so that a job is always exactly
// in one place: waiting, running, ended in its claim, or in the completer.
type openClaim struct {
	pool  *pool
	jobs  []*active
	since time.Time // when the claim's answer was here
	// lockAt is the time that locks name where it is not the transaction's.
	lockAt *time.Time

	state openClaimState
	// left counts the jobs whose end would be written with the claim's.
	left    int
	wanted  bool               // another session waits for the end of the claim
	dropped int                // jobs that were withdrawn before the end
	freed   *freed             // they and those of the end
	next    int                // the claim that begins with the commit of the end; 0: none
	ended   []completer.Result // what is to be finished with the claim
	late    []completer.Result // what ended too late for that
	over    chan struct{}
}

type openClaimState uint8

const (
	claimOpen   openClaimState = iota
	claimEnding                // its end is being written, or its jobs locked anew
	claimOver
)

// ending is what the end of a claim has to write.
type ending struct {
	finish  []completer.Result
	spill   []*active
	ask     []int64 // those of spill whose rows another session may wait for
	dropped int     // jobs that had not started
	lockAt  *time.Time
}

// takes puts the claim's jobs into the slots' queue. It reports false, and does
// nothing, if the pool no longer takes held jobs.
func (p *pool) takes(oc *openClaim) bool {
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		return false
	}
	var lost []*active
	for _, a := range oc.jobs {
		if !a.prelocked {
			oc.left++
		}
		oc.wanted = oc.wanted || a.lockFirst
		lost = append(lost, p.enter(a)...)
	}
	p.openClaims[oc] = true
	p.mu.Unlock()
	p.interrupted(lost, errClaimedAgain)
	return true
}

// end takes the end of a run, if it is to be written with the claim. The caller
// holds the pool's lock.
func (oc *openClaim) end(a *active, e completer.Result) bool {
	switch {
	case oc.state == claimOver:
		return false
	case oc.state == claimEnding || a.prelocked:
		oc.late = append(oc.late, e)
	default:
		if oc.ended == nil {
			oc.ended = make([]completer.Result, 0, len(oc.jobs))
		}
		oc.ended = append(oc.ended, e)
		if oc.left--; oc.left == 0 {
			oc.pool.nudge()
		}
	}
	return true
}

// beginEnd decides what the end of the claim writes. Jobs that have not started
// never will. next is the claim that follows in the same round trip.
func (p *pool) beginEnd(oc *openClaim, next int) ending {
	p.mu.Lock()
	defer p.mu.Unlock()
	oc.state, oc.next = claimEnding, next
	e := ending{finish: oc.ended, lockAt: oc.lockAt, dropped: oc.dropped + p.withdraw(oc)}
	p.withdrawBehind(oc)
	for _, a := range oc.jobs {
		if (a.started || a.lockFirst) && !a.prelocked && a.here {
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
		oc := p.ready[0].claim
		if oc == nil || oc.state != claimOpen || p.ready[0].prelocked || sinceByEitherClock(oc.since, now) < p.startWithin {
			return
		}
		oc.dropped += p.withdraw(oc)
		oc.wanted = true
		p.nudge()
	}
}

// withdraw takes the claim's jobs that have not started out of the slots' queue,
// but for those whose locks are written, or will be. The caller holds the lock.
func (p *pool) withdraw(oc *openClaim) (count int) {
	for _, a := range oc.jobs {
		if !a.started && !a.prelocked && !a.lockFirst && a.here {
			a.withdrawn = true
			p.drop(a)
			oc.freed = p.order.goesBack(oc.freed, a.job)
			oc.left--
			count++
		}
	}
	if count > 0 {
		p.ready = slices.DeleteFunc(p.ready, func(a *active) bool { return a.withdrawn })
	}
	return count
}

// withdrawBehind has what other claims have taken go back as well where it would wait
// for the jobs that this one gives back. The caller holds the lock.
func (p *pool) withdrawBehind(freed *openClaim) {
	if freed.freed == nil {
		return
	}
	for oc := range p.openClaims {
		if oc == freed || oc.state != claimOpen || len(p.ready) == 0 || p.startable() {
			continue
		}
		if count := p.withdraw(oc); count > 0 {
			oc.dropped += count
			oc.wanted = true
			p.nudge()
		}
	}
}

// stopHolding takes no further held jobs, and starts none that wait.
func (p *pool) stopHolding() (withdrawn int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	for oc := range p.openClaims {
		if oc.state == claimOpen {
			withdrawn += p.withdraw(oc)
		}
	}
	return withdrawn
}

// committed ends the claim: those of its jobs that are left are locked now, if locked
// reports it. What
// ended too late is handed on under the lock, as in finish.
func (p *pool) committed(oc *openClaim, locked func(*active) bool, handOn func(completer.Result)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range oc.late {
		handOn(e)
	}
	p.startLockFirst(oc, locked, handOn)
	p.closeClaim(oc)
}

// startLockFirst lets the jobs start that have waited for their locks; at the end of the
// worker they go back. The caller holds the lock.
func (p *pool) startLockFirst(oc *openClaim, locked func(*active) bool, handOn func(completer.Result)) {
	for _, a := range oc.jobs {
		switch {
		case !a.lockFirst || !a.here:
		case !locked(a):
			p.drop(a)
		case a.superseded:
			handOn(lockReturned(completer.Result{Job: a.job, Unstarted: true}))
			p.drop(a)
		case p.closing:
			handOn(completer.Result{Job: a.job, Outcome: job.Outcome{Kind: job.Returned, Err: ErrShutdown}, Unstarted: true})
			p.drop(a)
		default:
			p.offer(a)
		}
	}
}

// rescued ends a claim whose transaction was lost. kept are those of its jobs that
// are locked again; lost are those that ran until now, and are not. A run that was
// given up for a later claim of its job has no use for its lock.
func (p *pool) rescued(oc *openClaim, kept map[int64]bool, handOn func(completer.Result)) (gone []completer.Result, lost []*job.Claimed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range append(oc.ended, oc.late...) {
		switch {
		case !kept[e.Job.ID]:
			gone = append(gone, e)
		case e.Outcome.Kind == job.Lost:
			handOn(lockReturned(e))
		default:
			handOn(e)
		}
	}
	p.startLockFirst(oc, func(a *active) bool { return kept[a.job.ID] }, handOn)
	for _, a := range oc.jobs {
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
	p.closeClaim(oc)
	return gone, lost
}

// lockReturned gives the lock of a run back whose job another claim has.
func lockReturned(e completer.Result) completer.Result {
	e.Outcome = job.Outcome{Kind: job.Returned, Err: errClaimedAgain}
	return e
}

// closeClaim is the end of a claim. The caller holds the lock.
func (p *pool) closeClaim(oc *openClaim) {
	oc.state = claimOver
	p.order.isFree(oc.freed, oc.next)
	now := time.Now()
	for _, a := range oc.jobs {
		a.claim = nil
		if a.here && a.started && !a.asked {
			a.spilled = now
		}
	}
	delete(p.openClaims, oc)
	close(oc.over)
}

// relock lists what a lost claim may still have, as statement arguments.
func (p *pool) relock(oc *openClaim, workerID string) dbgen.RelockJobsParams {
	p.mu.Lock()
	defer p.mu.Unlock()
	params := dbgen.RelockJobsParams{WorkerID: workerID}
	for _, a := range oc.jobs {
		if a.withdrawn {
			continue
		}
		appendRelock(&params, a.job)
	}
	return params
}

// held lists the jobs of claims that are not over.
func (p *pool) held() []*job.Claimed {
	p.mu.Lock()
	defer p.mu.Unlock()
	var jobs []*job.Claimed
	for oc := range p.openClaims {
		for _, a := range oc.jobs {
			if !a.withdrawn {
				jobs = append(jobs, a.job)
			}
		}
	}
	return jobs
}

// want asks for the end of the claim that a job is in, and returns what closes
// then; nil if the job is in none.
func (p *pool) want(j *job.Claimed) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.latest[j.ID] // a batch's part is another value than the job
	if a == nil || a.job.Lock != j.Lock || a.claim == nil {
		return nil
	}
	a.claim.wanted = true
	p.nudge()
	return a.claim.over
}
