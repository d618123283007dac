package scheduler

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler/completer"
	"github.com/gworker/gworker/internal/statement"
)

// Hold is how jobs are held by an open transaction instead of by a lock on their
// rows. The zero value is not at all.
type Hold struct {
	// Time is how long a transaction is kept open for jobs that run; 0 switches
	// held claims off.
	Time time.Duration
	// Connect opens a connection for held claims.
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

// longest is how long jobs may be known to take that are held. Little is won by holding
// longer ones, as many of them would be spilled, and a connection is taken by each claim.
func (h Hold) longest() time.Duration { return h.Time / 2 }

const (
	// claimConns is how many held claims there can be at once: one whose jobs run,
	// while another commits and claims.
	claimConns = 2
	// stoppedFor is how long a process may seem to be stopped while it holds
	// jobs before the server ends its transaction: far longer than a busy
	// machine keeps a process waiting, and far shorter than a sweep takes.
	stoppedFor = 5 * time.Second
)

// heldClaims is what the loop knows of held claims. Its fields belong to the loop, but
// for those that connections only read.
type heldClaims struct {
	config      Hold
	workerID    string
	timeout     time.Duration
	claims      *claimer
	idleTimeout string
	size        int
	pool        *pool
	durations   *durations
	queries     *dbgen.Queries
	out         *completer.Outcomes
	refused     *refusedJobs
	events      *eventstream.Stream
	complete    func(completer.Result)

	conns    []*claimConn
	answers  chan answer
	cut      context.CancelFunc
	claimCtx context.Context
	running  sync.WaitGroup
	aim      aim
	next     time.Time // when the first claim is to end, or may begin
	suspect  bool      // the database went away: what is held may be lost
	access   access

	guarded  atomic.Bool  // something may keep rows that the end of a claim writes
	blind    atomic.Bool  // the database does not tell who waits for rows
	rescuing atomic.Int32 // connections whose claim is lost, and not locked again yet
}

// newHeldClaims returns nil if nothing is to be held: where jobs are to wait in the local
// queue, or outcomes for others, they are locked.
func newHeldClaims(c Config, s *Scheduler) *heldClaims {
	if c.Hold.Time <= 0 || c.LocalQueue.Size > 0 || c.CompletionDelay > 0 || c.FailureDelay > 0 {
		return nil
	}
	h := &heldClaims{
		config: c.Hold, workerID: c.WorkerID, timeout: c.StatementTimeout, claims: s.claims, aim: heldAim(c),
		idleTimeout: milliseconds(c.Hold.Time + stoppedFor), size: c.Concurrency,
		pool: s.pool, durations: s.durations, queries: c.queries(), out: &s.completer.Outcomes, refused: s.claims.refused, events: c.Events,
		complete: func(e completer.Result) { s.completer.Add(e) },
		answers:  make(chan answer, claimConns),
	}
	// What refuses one outcome may refuse others.
	h.out.OnRefusal = func() { h.guarded.Store(true) }
	h.pool.startWithin = c.Hold.Time + stoppedFor/2 // well before the session may end
	for range claimConns {
		h.conns = append(h.conns, &claimConn{
			h: h, commands: make(chan command, 1), wake: make(chan struct{}, 1),
		})
	}
	return h
}

// start begins to carry out commands, until ctx ends.
//
// claiming is for claims by which nothing else is waited for, and ends a little after
// the worker was told to: what they have taken is free again with their transaction.
func (h *heldClaims) start(ctx, claiming context.Context) {
	if h == nil {
		return
	}
	ctx, h.cut = context.WithCancel(ctx)
	h.claimCtx = claiming
	connecting, stop := context.WithCancel(ctx)
	h.access.stop = stop
	for _, cc := range h.conns {
		h.running.Go(func() { cc.run(ctx, connecting) })
	}
}

// wake cuts the waits of connections short.
func (h *heldClaims) wake() {
	if h == nil {
		return
	}
	h.access.back.Store(true)
	for _, cc := range h.conns {
		wake(cc.wake)
	}
}

// checkConns has connections make sure of their connections before the next claim.
func (h *heldClaims) checkConns() {
	if h == nil {
		return
	}
	for _, cc := range h.conns {
		cc.suspect.Store(true)
	}
}

// idle reports whether no claim is held or under way.
func (h *heldClaims) idle() bool {
	if h == nil {
		return true
	}
	for _, cc := range h.conns {
		if cc.busy && !cc.connecting || cc.open != nil {
			return false
		}
	}
	return true
}

// rescued reports whether it is known what has become of all claims.
func (h *heldClaims) rescued() bool { return h == nil || h.rescuing.Load() == 0 }

// close ends all claims, and closes the returned channel when that is done. No
// held job starts from now on.
func (h *heldClaims) close() <-chan struct{} {
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
			for _, cc := range h.conns {
				if !cc.busy && cc.open != nil {
					cc.command(command{end: cc.open})
				}
			}
			a := <-h.answers
			a.conn.answered(a)
			if a.claim != nil {
				h.pool.claimEnded(a.claim.number, cursor{}, nil, false)
			}
		}
		for _, cc := range h.conns {
			close(cc.commands)
		}
		h.running.Wait()
	}()
	return done
}

// end waits until close is done, until over closes at the latest.
func (h *heldClaims) end(done, over <-chan struct{}) {
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
func (h *heldClaims) text(sql string) string { return h.config.Statements.Text(sql) }
