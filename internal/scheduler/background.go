package scheduler

import (
	"context"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
)

// While jobs are held, the loop is what ends their claims. Should it wait for a
// statement itself, and that for a lock which is asked for behind the rows of a held claim,
// or for a connection that a handler has, then both would wait for each other, and
// PostgreSQL sees nothing of it. So what the loop wants to know is found out by others:
// scans by the connections, which hold nothing at that moment, and ordinary claims, polls and
// looks at locks in the background.

// claimIsLate is after what time an ordinary claim that is under way keeps held ones
// back no more: it waits for something that they may not need.
const claimIsLate = 50 * time.Millisecond

// background is what is done while the loop goes on.
type background struct {
	done  chan func() // what is to be done in the loop when it is over
	count int
}

func newBackground() background { return background{done: make(chan func())} }

// run has something done while the loop goes on. What it returns is called by the loop.
func (b *background) run(work func() (then func())) {
	b.count++
	go func() { b.done <- work() }()
}

func (b *background) ended(then func()) {
	b.count--
	then()
}

// wait waits for all of it, once the loop has ended.
func (b *background) wait() {
	for b.count > 0 {
		b.ended(<-b.done)
	}
}

// direct is an ordinary claim that is under way: whose answer the loop awaits.
type direct struct {
	*ordinary
	ask       int
	number    int // of the claim
	began     time.Time
	quiet     bool // when it began, the worker had nothing to do
	late      bool // so connections claim meanwhile
	recovers  bool // it first looks for the jobs of a claim whose answer was lost
	recovered []*job.Claimed
	forbidden []string
	err       error // of what comes before the claim
}

// free reports whether an ordinary claim may begin. One that looks for lost jobs must
// know of all that connections have claimed.
func (l *loop) free() bool {
	return l.direct == nil && !l.checking && !(l.claims.unknownOutcome() && l.holds.claiming())
}

// claimUnderWay tells the connections of the ordinary claim. Once it is late, there may be
// jobs for them.
func (l *loop) claimUnderWay() underWay {
	d := l.direct
	if d == nil {
		return underWay{}
	}
	u := underWay{asked: d.ask, lateAt: d.began.Add(claimIsLate), alone: d.recovers}
	if !d.late && u.late(time.Now()) {
		d.late, l.more = true, true
	}
	return u
}

// claim takes up to ask jobs and starts them, as far as slots are free. It reports
// whether that is done already.
func (l *loop) claim(ctx context.Context, ask int) (done bool) {
	d := &direct{ask: ask, number: l.pool.claimBegins(), began: time.Now(), quiet: l.once && l.idle(), recovers: l.claims.unknownOutcome()}
	if l.config.Events.WantsFrequent() {
		l.config.Events.Emit(event.ClaimStarted{WorkerID: l.config.WorkerID, Asked: ask})
	}
	d.ordinary = l.claims.plan(ask)
	l.direct, l.more, l.polled = d, false, false
	if l.holds == nil {
		l.carryOut(ctx, d)
		l.directEnded(ctx, d)
		return !l.pausing.paused
	}
	l.background.run(func() func() {
		l.carryOut(ctx, d)
		return func() { l.directEnded(ctx, d) }
	})
	return false
}

// carryOut has the database do it.
func (s *Scheduler) carryOut(ctx context.Context, d *direct) {
	if d.recovers {
		if d.recovered, d.err = s.claims.recoverLostClaim(s.claiming, s.known); d.err != nil {
			return
		}
		s.local.put(d.recovered)
	}
	if d.forbidden, d.err = s.config.Flags.forbidden(ctx, s.config.StatementTimeout); d.err != nil {
		return
	}
	if d.limit = d.ask - len(d.recovered); d.limit > 0 {
		d.selection = s.selection(d.forbidden)
		s.claims.carryOut(s.claiming, d.ordinary)
	} else {
		d.answered, d.more = true, true
	}
}

// directEnded starts what an ordinary claim has taken. Once the worker is to end that
// goes back.
func (l *loop) directEnded(ctx context.Context, d *direct) {
	l.direct = nil
	err := l.claims.learn(d.ordinary)
	if d.err != nil {
		err = d.err
	}
	if ctx.Err() != nil || l.over {
		l.local.put(d.jobs)
		l.pool.claimEnded(d.number, cursor{}, nil, false)
		if err != nil {
			l.config.Events.Emit(event.ClaimFailed{WorkerID: l.config.WorkerID, Err: err})
		}
		return
	}
	l.start(d.jobs, d.forbidden)
	from := cursor{} // claims that select are without one
	if d.walked {
		from = d.from
	}
	l.pool.claimEnded(d.number, from, d.jobs, err == nil && len(d.jobs) < d.ask && !d.found.cut(len(d.jobs)))
	if err != nil {
		l.more = true
		l.fail(ctx, err)
		return
	}
	count := len(d.recovered) + len(d.jobs)
	l.tellClaimed(count, d.ask, time.Since(d.began))
	l.local.fetched(count, d.ask)
	if d.quiet && count == 0 && !d.searched && l.idle() {
		if !l.claims.scan.partial() {
			l.claimed(l.config.PollInterval)
			l.over = true
			return
		}
		l.claims.scan.forget() // nothing is to run anywhere, not only from there on
		d.more = true
	}
	l.more = l.more || d.more
	l.claimed(l.claims.recheck(l.config.PollInterval))
}
