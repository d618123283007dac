package scheduler

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
)

// Hold is how jobs are held by an open transaction instead of by a lock on their
// rows. The zero value is not at all.
type Hold struct {
	// Time is how long a transaction is kept open for jobs that run; 0 switches
	// held claims off.
	Time time.Duration
	// Connect opens a connection for the claims of a lane.
	Connect func(context.Context) (*pgx.Conn, error)
	// Statements renders their texts.
	Statements *statement.Set
	// Trouble, if not nil, is told of errors that make all connections to the server
	// doubtful.
	Trouble func(error)
	// Never are tasks whose jobs are locked and not held.
	Never map[string]bool
	// Lock, if not nil, reports whether a job is not to start before its lock is
	// written.
	Lock func(*job.Claimed) bool
}

const (
	// lanes is how many held claims there can be at once: one whose jobs run,
	// while another commits and claims.
	lanes = 2
	// mostHeld bounds a claim that goes beyond the free slots.
	mostHeld = 2000
	// stoppedFor is how long a process may seem to be stopped while it holds
	// jobs before the server ends its transaction: far longer than a busy
	// machine keeps a process waiting, and far shorter than a sweep takes.
	stoppedFor = 5 * time.Second
)

// holds is what the loop knows of held claims. Its fields belong to the loop, but
// for those that lanes only read.
type holds struct {
	config      Hold
	workerID    string
	timeout     time.Duration
	tasks       []string
	idleTimeout string
	size        int
	pool        *pool
	estimates   *estimates
	queries     *dbgen.Queries
	out         *outcomes
	survey      *surveyor
	refused     *refusedJobs
	events      *event.Stream
	release     func(ended)

	lanes     []*lane
	answers   chan answer
	cut       context.CancelFunc
	claimCtx  context.Context
	running   sync.WaitGroup
	timer     *time.Timer // for the first group that is to end
	plentiful bool        // the last claim took all that it asked for
	woken     int         // how often the loop was woken
	suspect   bool        // the database went away: what is held may be lost
	lookout   lookout
	access    access
	underWay  underWay // the ordinary claim

	guarded  atomic.Bool  // something may keep rows that the end of a group writes
	blind    atomic.Bool  // the database does not tell who waits for rows
	rescuing atomic.Int32 // lanes whose group is lost, and not locked again yet
}

// newHolds returns nil if nothing is to be held: where claims go by more than the
// order, or jobs are to wait in the local queue, they are locked.
func newHolds(c Config, s *Scheduler) *holds {
	if c.Hold.Time <= 0 || c.LocalQueue.Size > 0 || c.TaskLimits != nil || c.Now != nil || c.Flags.any() ||
		c.CompletionDelay > 0 || c.FailureDelay > 0 {
		return nil
	}
	h := &holds{
		config: c.Hold, workerID: c.WorkerID, timeout: c.StatementTimeout, tasks: s.claims.tasks,
		idleTimeout: milliseconds(c.Hold.Time + stoppedFor), size: c.Concurrency,
		pool: s.pool, estimates: s.estimates, queries: c.queries(), out: &s.release.out, survey: s.claims.survey, refused: s.claims.refused, events: c.Events,
		release: func(e ended) { s.release.add(e) },
		answers: make(chan answer, lanes), timer: stoppedTimer(),
	}
	// What refuses one outcome may refuse others.
	h.out.onRefusal = func() { h.guarded.Store(true) }
	h.pool.startWithin = c.Hold.Time + stoppedFor/2 // well before the session may end
	for range lanes {
		h.lanes = append(h.lanes, &lane{
			h: h, commands: make(chan command, 1), kicked: make(chan struct{}, 1), tasks: make(taskNames),
		})
	}
	return h
}

// start begins to carry out commands, until ctx ends.
//
// claiming is for claims by which nothing else is waited for, and ends a little after
// the worker was told to: what they have taken is free again with their transaction.
func (h *holds) start(ctx, claiming context.Context) {
	if h == nil {
		return
	}
	ctx, h.cut = context.WithCancel(ctx)
	h.claimCtx = claiming
	connecting, stop := context.WithCancel(ctx)
	h.access.stop = stop
	for _, l := range h.lanes {
		h.running.Go(func() { l.run(ctx, connecting) })
	}
}

// underWay is the ordinary claim that is under way; the zero value is none.
type underWay struct {
	asked  int
	lateAt time.Time // when it keeps lanes from claiming no more
	alone  bool      // unless it must be the only one
}

// blocks reports whether no lane may claim, and until when; zero is until it is over.
func (u underWay) blocks(now time.Time) (is bool, until time.Time) {
	switch {
	case u.asked == 0:
		return false, time.Time{}
	case u.alone:
		return true, time.Time{}
	}
	return now.Before(u.lateAt), u.lateAt
}

// late reports whether it waits for something.
func (u underWay) late(now time.Time) bool { return u.asked > 0 && !now.Before(u.lateAt) }

// channels for the loop; nil where there is nothing to hear.
func (h *holds) heard() <-chan answer {
	if h == nil {
		return nil
	}
	return h.answers
}

func (h *holds) due() <-chan time.Time {
	if h == nil {
		return nil
	}
	return h.timer.C
}

// kick cuts the waits of lanes short.
func (h *holds) kick() {
	if h == nil {
		return
	}
	h.access.back.Store(true)
	for _, l := range h.lanes {
		select {
		case l.kicked <- struct{}{}:
		default:
		}
	}
}

// doubt has lanes make sure of their connections before the next claim.
func (h *holds) doubt() {
	if h == nil {
		return
	}
	for _, l := range h.lanes {
		l.suspect.Store(true)
	}
}

// idle reports whether no claim is held or under way.
func (h *holds) idle() bool {
	if h == nil {
		return true
	}
	for _, l := range h.lanes {
		if l.busy && !l.connecting || l.group != nil {
			return false
		}
	}
	return true
}

// rescued reports whether it is known what has become of all groups.
func (h *holds) rescued() bool { return h == nil || h.rescuing.Load() == 0 }

// claiming reports whether a claim of a lane is under way.
func (h *holds) claiming() bool {
	return h != nil && slices.ContainsFunc(h.lanes, func(l *lane) bool { return l.asked > 0 })
}

// prefers reports whether the next claim is to be a held one: if there is a connection
// for it. Where most jobs are slow nothing is won by it, unless an ordinary claim
// cannot be had now. None is held while jobs are known whose locks are refused.
func (h *holds) prefers(late bool) bool {
	return h != nil && (late || h.wants()) && !h.refused.any() && h.usable(time.Now())
}

// wants reports whether something is won by holding jobs.
func (h *holds) wants() bool { return h.estimates.slowShare < 0.5 }

// ask is how many jobs a claim shall hold now: as many as the slots are expected
// to have worked off within half the hold time, together with those that are here.
func (h *holds) ask() int {
	here := h.pool.running()
	if !h.underWay.late(time.Now()) {
		here += h.underWay.asked
	}
	for _, l := range h.lanes {
		here += l.asked
	}
	room := min(h.estimates.room(h.config.Time/2, h.size), 2*mostHeld)
	h.pool.wantBelow(max(h.size, room*3/4))
	free := max(0, h.size-here)
	ask := max(free, min(room-here, mostHeld))
	if _, missing := h.pool.missesFreed(); missing {
		return max(ask, h.size)
	}
	if free == 0 && ask < room/4 {
		return 0 // soon it is worth more
	}
	return ask
}

// tend ends the groups that are to end, and, if it may, claims for lanes that have
// nothing to do. It reports whether there still may be jobs that no claim under
// way will find.
func (h *holds) tend(may, quiet bool, other underWay) (more bool) {
	now, next := time.Now(), h.lookout.next
	if !next.IsZero() && !next.After(now) {
		may, h.lookout.next, next = true, time.Time{}, time.Time{}
	}
	h.underWay = other
	blocked, until := other.blocks(now)
	if blocked {
		next = earlier(next, until)
	}
	late := other.late(now)
	wants := may
	may = may && !blocked && h.trusted()
	free := h.free()
	for _, l := range h.lanes {
		if l.busy || l.group == nil {
			continue
		}
		if at := h.endAt(l.group, may && free == 0); at.After(now) {
			next = earlier(next, at)
			continue
		}
		ask := 0
		if may && h.prefers(late) && h.pool.mayClaim() {
			ask = h.ask()
		}
		may = h.send(l, command{end: l.group, claim: ask}) && may
	}
	for _, l := range h.lanes {
		if !may || !h.prefers(late) || l.busy || l.group != nil || !l.connected || !h.pool.mayClaim() {
			continue
		}
		if ask := h.ask(); ask > 0 {
			may = h.send(l, command{claim: ask, quiet: quiet})
		}
	}
	if may && (late || h.wants()) {
		next = earlier(next, h.connect(now))
	}
	h.timer.Stop()
	if !next.IsZero() {
		h.timer.Reset(time.Until(next))
	}
	return may || wants && (blocked || !h.trusted())
}

// free is how many lanes can find what there is to claim: a claim under way does, and
// so will a lane that is to have its connection in a moment.
func (h *holds) free() (lanes int) {
	for _, l := range h.lanes {
		switch {
		case l.asked > 0, l.connecting && h.access.tries == 0:
			lanes++
		case !l.busy && l.group == nil && (l.connected || h.access.tries == 0):
			lanes++
		}
	}
	return lanes
}

// earlier is the first of two times of which each may be none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// trusted reports whether jobs may be claimed. While it is not known what has
// become of lost groups, this worker must not take their jobs for free ones.
func (h *holds) trusted() bool {
	if h == nil {
		return true
	}
	if h.suspect {
		for _, l := range h.lanes {
			if l.group != nil || l.busy {
				return false
			}
		}
		h.suspect = false
	}
	return h.rescuing.Load() == 0
}

// ended tells the survey of a held claim. Its time includes the end of the claim
// before, which makes surveys come a little more often than they need to.
func (s *surveyor) ended(a answer) {
	var jobs []*job.Claimed
	if a.group != nil {
		jobs = a.group.claimed
	}
	s.claimed(a.from, a.claim, jobs, a.found, a.took)
}

// lookAgain plans the next claim after one that found jobs and could take none.
func (h *holds) lookAgain(a answer) {
	if a.count > 0 || a.seen == 0 {
		h.lookout.over()
		return
	}
	now := time.Now()
	for _, l := range h.lanes {
		if l != a.lane && (l.busy || l.group != nil) {
			// Most likely it was this worker, and the end of that group brings the
			// next claim.
			now = now.Add(h.config.Time)
			break
		}
	}
	h.lookout.again(now)
}

// endAt is when a group is to end at the latest. scarce says that there are jobs to
// claim and no lane for it.
func (h *holds) endAt(g *group, scarce bool) time.Time {
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	if g.left == 0 || g.wanted || h.suspect {
		return time.Time{}
	}
	patience := h.config.Time
	if scarce && h.pool.count < h.size {
		// Slots are idle, because the group waits for its last jobs.
		patience = min(patience, time.Duration(h.estimates.all.mean.Load())+time.Millisecond)
	}
	return g.since.Add(patience)
}

// send gives a lane a command, and reports whether there may be more to claim than
// what it asks for.
func (h *holds) send(l *lane, c command) (more bool) {
	l.busy, l.group, l.asked = true, nil, c.claim
	c.woken = h.woken
	if c.claim > 0 {
		c.number = h.pool.claimBegins()
		if c.survey = h.survey.send(nil); c.survey == nil {
			c.from = h.survey.from()
		}
	}
	if c.claim > 0 && h.events.WantsFrequent() {
		h.events.Emit(event.ClaimStarted{WorkerID: h.workerID, Asked: c.claim})
	}
	l.commands <- c
	return c.claim == 0 || h.plentiful
}

// answered notes what came of a command, and reports whether there may be more.
func (h *holds) answered(a answer, more bool) bool {
	a.lane.answered(a)
	h.survey.back(a.survey)
	if a.freed {
		more = true
	}
	switch {
	case a.connect:
		h.connected(a.err)
		return true
	case a.claim == 0:
		return more
	case a.err != nil:
		h.pool.claimEnded(a.number, place{}, nil, false)
		h.plentiful = false
		if a.stale() {
			h.access.next = time.Time{}
			return true
		}
		h.suspect = h.suspect || retry.Of(a.err) == retry.Connection
		return true
	}
	if a.void {
		h.pool.claimEnded(a.number, place{}, nil, false)
		return true
	}
	h.plentiful = a.more
	h.survey.ended(a)
	var jobs []*job.Claimed
	if a.group != nil {
		jobs = a.group.claimed
		h.estimates.claimed(jobs, h.config.Time)
	}
	h.pool.claimEnded(a.number, a.from, jobs, len(jobs) < a.claim && !a.found.cut(len(jobs)))
	h.lookAgain(a)
	switch {
	case a.count > 0:
		h.events.Emit(event.JobsClaimed{WorkerID: h.workerID, Count: a.count, Asked: a.claim, Duration: a.took})
	case h.events.WantsFrequent():
		h.events.Emit(event.ClaimEmpty{WorkerID: h.workerID, Asked: a.claim, Duration: a.took})
	}
	if a.more {
		return true
	}
	return more && (h.woken != a.woken || a.freed)
}

// close ends all groups, and closes the returned channel when that is done. No
// held job starts any more from now on.
func (h *holds) close() <-chan struct{} {
	done := make(chan struct{})
	if h == nil {
		close(done)
		return done
	}
	h.pool.stopHolding()
	h.access.stop()
	go func() {
		defer close(done)
		for !h.idle() {
			for _, l := range h.lanes {
				if !l.busy && l.group != nil {
					h.send(l, command{end: l.group})
				}
			}
			a := <-h.answers
			a.lane.answered(a)
			if a.claim > 0 {
				h.pool.claimEnded(a.number, place{}, nil, false)
			}
		}
		for _, l := range h.lanes {
			close(l.commands)
		}
		h.running.Wait()
	}()
	return done
}

// end waits until close is done, until over closes at the latest.
func (h *holds) end(done, over <-chan struct{}) {
	if h == nil {
		return
	}
	select {
	case <-done:
	case <-over:
	}
	h.cut()
	<-done
}

// text is a statement as it is sent.
func (h *holds) text(sql string) string { return h.config.Statements.Text(sql) }
