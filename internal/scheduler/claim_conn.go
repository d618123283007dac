package scheduler

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
)

// claimConn is a connection on which held claims follow one another. Its goroutine
// carries out one command at a time; what it does between two commands is to hold
// the present claim's rows, by doing nothing.
type claimConn struct {
	h        *heldClaims
	commands chan command
	wake     chan struct{} // told, without blocking, that the database is back

	suspect atomic.Bool // the connection may lead nowhere

	conn      *pgx.Conn
	sent      time.Time // when the last claim was
	prelocked []string  // the tasks that were slow then
	tasks     taskNames

	// They belong to the loop.
	connected  bool
	connecting bool
	busy       bool
	asked      int        // what the claim that is under way may take
	open       *openClaim // the open one
}

// answered notes what a command has made of the connection.
func (cc *claimConn) answered(a answer) {
	cc.busy, cc.connecting, cc.open, cc.asked, cc.connected = false, false, a.open, 0, a.connected
}

// lateAnswer is how long the answer to a claim may take before it is old news: the
// server waits no longer for a worker that is stopped.
var lateAnswer = stoppedFor

const (
	beginHeld  = "begin isolation level read committed"
	commitHeld = "commit"
)

// run carries commands out. The contexts end when the worker can wait no longer, and
// when it needs no connection any more.
func (cc *claimConn) run(ctx, connecting context.Context) {
	defer cc.close()
	for c := range cc.commands {
		began := time.Now()
		a := answer{command: c, conn: cc}
		switch {
		case c.connect:
			a.err = cc.connect(connecting)
		case c.end != nil:
			a.err = cc.endAndClaim(ctx, c, &a)
		default:
			a.err = cc.claim(cc.h.claimCtx, c, &a)
		}
		a.took, a.connected = time.Since(began)-a.scanned, cc.conn != nil && !cc.conn.IsClosed()
		cc.h.answers <- a
	}
}

// claim begins a held claim where none is open.
func (cc *claimConn) claim(ctx context.Context, c command, a *answer) error {
	if c.scan != nil && cc.good(ctx) {
		began := time.Now()
		a.from = cc.scan(ctx, c.scan)
		a.scanned = time.Since(began)
		cc.sent = time.Now() // and well answered, or closed
	}
	ctx, cancel := cc.bounded(ctx)
	defer cancel()
	if !cc.good(ctx) {
		return cc.explain(ctx, c.claim, errGone)
	}
	batch := &pgx.Batch{}
	cc.queueClaim(batch, c.claim, a.from)
	results := cc.conn.SendBatch(ctx, batch)
	rows, err := cc.readClaim(results)
	if err = errors.Join(err, results.Close()); err == nil {
		err = cc.take(ctx, rows, c.claim, a)
	}
	return cc.explain(ctx, c.claim, err)
}

// scan carries out a scan. The connection holds nothing meanwhile, so it does not matter for what
// the scan has to wait. Where none can be made the claim walks everything, and tells
// of the database's error itself.
func (cc *claimConn) scan(ctx context.Context, s *scanPlanner) cursor {
	ctx, cancel := cc.bounded(ctx)
	defer cancel()
	s.queries = cc.h.config.Statements.On(cc.conn)
	from, _ := s.begin(ctx)
	return from
}

// endAndClaim ends the claim, and begins the next one in the same round trip.
func (cc *claimConn) endAndClaim(ctx context.Context, c command, a *answer) error {
	e := cc.h.pool.beginEnd(c.end, c.number)
	if e.dropped > 0 {
		// The slots did not work it off: jobs take longer than was known.
		cc.h.durations.atLeast(cc.h.config.Time)
	}
	bounded, cancel := cc.bounded(ctx)
	defer cancel()
	e.ask = cc.h.suspects(e.spill)
	batch := &pgx.Batch{}
	end := cc.queueEnd(batch, e, c.claim == 0)
	together := c.claim > 0 && c.scan == nil
	if together {
		cc.queueClaim(batch, c.claim, c.from)
	}
	results := cc.conn.SendBatch(bounded, batch)
	written, err := end.read(results)
	if err != nil {
		return cc.endFailed(ctx, c, e, errors.Join(err, results.Close()), a)
	}
	a.freed = cc.settle(ctx, c.end, e, written)
	if c.claim > 0 {
		// For a claim a shutdown does not wait as for outcomes.
		stop := context.AfterFunc(cc.h.claimCtx, cancel)
		defer stop()
	}
	if !together {
		if err := results.Close(); err != nil || c.claim == 0 {
			return cc.explain(bounded, c.claim, err)
		}
		return cc.claim(cc.h.claimCtx, c, a)
	}
	rows, err := cc.readClaim(results)
	err = errors.Join(err, results.Close())
	switch {
	case err != nil:
	case len(written.unchanged) > 0:
		// It may have taken what has just run, and is to be locked.
		err = cc.undo(bounded, a)
	default:
		err = cc.take(bounded, rows, c.claim, a)
	}
	return cc.explain(bounded, c.claim, err)
}

// undo gives all back that a claim has taken.
func (cc *claimConn) undo(ctx context.Context, a *answer) error {
	a.void = true
	_, err := cc.conn.Exec(ctx, "rollback")
	return err
}

// endFailed sees to the jobs of a claim whose end was refused, or lost. Then it claims,
// if the connection still serves.
func (cc *claimConn) endFailed(ctx context.Context, c command, e ending, err error, a *answer) error {
	refused := retry.Refused(err) && !retry.Passes(err)
	if refused {
		cc.h.guarded.Store(true)
	}
	bounded, cancel := cc.bounded(ctx)
	defer cancel()
	a.freed = true
	kept, unlockable, ok := cc.salvage(bounded, c.end, e)
	if ok {
		gone, lost := cc.rescued(c.end, kept, false)
		cc.giveUp(c.end, gone, lost, unlockable, false)
	} else {
		err = cc.explain(bounded, c.claim, err)
		cc.h.rescuing.Add(1)
		cc.rescue(ctx, c.end, err)
		cc.h.rescuing.Add(-1)
	}
	switch {
	case c.claim == 0:
		return nil // nothing was to be claimed; the loss of the ended claim is told
	case isRefusal(err) && cc.h.refused.any():
		// The next claim leaves out what would run again at once.
		return fmt.Errorf("ending a held claim: %w", err)
	case ok || refused && cc.conn != nil && !cc.conn.IsClosed():
		return cc.claim(cc.h.claimCtx, c, a)
	}
	return err
}

func (cc *claimConn) queueClaim(batch *pgx.Batch, jobs int, from cursor) {
	h := cc.h
	cc.sent, cc.prelocked = time.Now(), h.durations.slowTasks(h.config.Time)
	batch.Queue(beginHeld)
	batch.Queue(h.text(dbgen.BeginHold), h.idleTimeout)
	text, args := claimStatement(from, h.tasks, jobs, orEmpty(cc.prelocked), h.workerID)
	batch.Queue(h.text(text), args...)
}

// readClaim reads the answers to what queueClaim asked.
func (cc *claimConn) readClaim(results pgx.BatchResults) (*claimedRows, error) {
	if _, err := results.Exec(); err != nil {
		return nil, fmt.Errorf("beginning the transaction: %w", err)
	}
	var lockedAt time.Time
	if err := results.QueryRow().Scan(nil, nil, nil, nil, nil, &lockedAt); err != nil {
		return nil, fmt.Errorf("statement BeginHold: %w", err)
	}
	rows, err := results.Query()
	if err != nil {
		return nil, fmt.Errorf("statement ClaimJobs: %w", err)
	}
	claimed := &claimedRows{workerID: cc.h.workerID, lockedAt: lockedAt}
	if err := claimed.read(rows); err != nil {
		return nil, fmt.Errorf("statement ClaimJobs: %w", err)
	}
	return claimed, nil
}

// take makes the open claim of what was claimed.
func (cc *claimConn) take(ctx context.Context, rows *claimedRows, asked int, a *answer) error {
	if time.Since(cc.sent) >= lateAnswer {
		// The server may have ended the session since, and others may have done
		// the jobs.
		if err := cc.conn.Ping(ctx); err != nil {
			return fmt.Errorf("making sure of jobs whose claim took %s: %w", time.Since(cc.sent), err)
		}
	}
	if rows.unlocked {
		// Whose locks are not written is found out by an ordinary claim.
		cc.h.refused.unlocked()
		return cc.undo(ctx, a)
	}
	if err := cc.tasks.name(ctx, rows, cc.h.config.Statements.On(cc.conn)); err != nil {
		return err
	}
	oc := &openClaim{
		pool: cc.h.pool, since: time.Now(), over: make(chan struct{}),
		jobs: make([]*active, 0, len(rows.jobs)), claimed: rows.jobs,
	}
	// One allocation for all, which live and die together.
	runs := make([]active, len(rows.jobs))
	for i, j := range rows.jobs {
		runs[i] = active{job: j, claim: oc, prelocked: slices.Contains(cc.prelocked, j.Task)}
		runs[i].lockFirst = runs[i].prelocked && cc.h.durations.lockFirst(j.Task) || cc.h.config.Lock != nil && cc.h.config.Lock(j)
		oc.jobs = append(oc.jobs, &runs[i])
	}
	count := len(rows.jobs)
	oc.wanted = rows.found.cut(count) // the others are free then
	a.found, a.seen, a.more = rows.found, a.from.missed(asked, count, rows.found), a.from.more(asked, count, rows.found)
	if count > 0 && cc.h.pool.takes(oc) {
		a.open, a.count = oc, count
		return nil
	}
	// Nothing is held, so nothing may be kept open.
	_, err := cc.conn.Exec(ctx, "rollback")
	return err
}

// explain closes the connection after an error, unless the server has only
// refused a statement, and says what was going on.
func (cc *claimConn) explain(ctx context.Context, jobs int, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(context.Cause(ctx), errNoAnswer) {
		err = &statement.TimeoutError{Statement: "ClaimJobs", After: cc.h.timeout, Err: err}
	}
	if cc.h.config.Trouble != nil && (statement.IsReadOnly(err) || statement.Unanswered(err)) {
		cc.h.config.Trouble(err)
	}
	keep := cc.conn != nil && !cc.conn.IsClosed() && retry.Refused(err) && !retry.Elsewhere(err) && !statement.IsReadOnly(err)
	if keep {
		_, rollbackErr := cc.conn.Exec(ctx, "rollback")
		keep = rollbackErr == nil
	}
	if !keep {
		cc.close()
	}
	if jobs == 0 {
		return fmt.Errorf("ending a held claim: %w", err)
	}
	return fmt.Errorf("claiming up to %d jobs to hold: %w", jobs, err)
}

func (cc *claimConn) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, cc.h.timeout, errNoAnswer)
}

var (
	errNoAnswer = errors.New("statement time-out")
	errGone     = fmt.Errorf("the connection leads nowhere: %w", net.ErrClosed)
)

const (
	// unused is how long a connection may not have been used before it is asked
	// whether it still leads to the server, and unusedTimeout how long it may take to
	// say so.
	unused        = 15 * time.Second
	unusedTimeout = 3 * time.Second
)

// good reports whether the connection can be used. It asks where there is a doubt.
func (cc *claimConn) good(ctx context.Context) bool {
	doubtful := cc.suspect.Swap(false)
	return !cc.conn.IsClosed() && (!doubtful && time.Since(cc.sent) <= unused || cc.answers(ctx))
}

// connect opens the connection.
func (cc *claimConn) connect(ctx context.Context) error {
	cc.close()
	cc.suspect.Store(false)
	ctx, cancel := cc.bounded(ctx)
	defer cancel()
	conn, err := cc.h.config.Connect(ctx)
	if err != nil {
		return fmt.Errorf("connecting to hold jobs: %w", err)
	}
	cc.conn, cc.sent = conn, time.Now()
	cc.guard(ctx)
	cc.learnToAsk(ctx)
	return nil
}

// answers asks for a sign of life.
func (cc *claimConn) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, unusedTimeout)
	defer cancel()
	return cc.conn.Ping(ctx) == nil
}

func (cc *claimConn) close() {
	if cc.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = cc.conn.Close(ctx) // the server rolls back what was open
	cc.conn = nil
}

// settle reports what the commit has made true, and hands on what goes on.
func (cc *claimConn) settle(ctx context.Context, oc *openClaim, e ending, w claimEndWritten) (freed bool) {
	for _, end := range e.finish {
		if w.locked[end.job.ID] {
			cc.h.complete(end) // before the claim lets go of it, so that it is never unknown
		}
	}
	for _, a := range e.spill {
		if w.awaited[a.job.ID] {
			cc.h.durations.lock(a.job.Task) // before the run may end
		}
	}
	unspilled := map[int64]bool{}
	for _, j := range w.unspilled {
		unspilled[j.ID] = true
		cc.h.refused.tell(cc.h.events, cc.h.workerID, j, errUnchanged)
		cc.h.refused.queues.Store(true)
	}
	cc.h.pool.committed(oc, func(a *active) bool { return !unspilled[a.job.ID] }, cc.h.complete)
	if len(e.spill) > 0 && cc.h.events.WantsFrequent() {
		cc.h.events.Emit(event.JobsSpilled{WorkerID: cc.h.workerID, Count: len(e.spill)})
	}
	if len(w.unspilled) > 0 {
		cc.h.pool.lose(w.unspilled, errUnchanged)
	}
	unchanged := make(map[int64]bool, len(w.unchanged))
	for _, end := range w.unchanged {
		unchanged[end.job.ID] = true
	}
	if len(unchanged) > 0 {
		cc.keepUnchanged(ctx, w.unchanged)
	}
	for _, end := range e.finish {
		if unchanged[end.job.ID] || w.locked[end.job.ID] {
			continue
		}
		freed = freed || end.job.Queue != "" || end.outcome.Kind == job.Returned || end.outcome.Kind == job.Snoozed
		if end.outcome.Kind == job.Lost {
			cc.h.events.Emit(event.JobLost{WorkerID: cc.h.workerID, Job: eventJob(end.job), Err: end.outcome.Err})
			continue
		}
		done := w.failed[end.job.ID]
		done.locked = true
		cc.h.out.report(end, done)
	}
	return freed || e.dropped > 0
}

// milliseconds is a time-out as a setting of PostgreSQL.
func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
