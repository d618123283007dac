package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/scheduler/completer"
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
	records   bool      // what records events is prepared

	// They belong to the loop.
	connected  bool
	connecting bool
	busy       bool
	claiming   bool
	open       *openClaim // the open one
}

// command has the connection carry a command out, which has to wait for none.
func (cc *claimConn) command(c command) {
	cc.busy, cc.connecting, cc.claiming, cc.open = true, c.connect, c.claim != nil, nil
	cc.commands <- c
}

// answered notes what a command has made of the connection.
func (cc *claimConn) answered(a answer) {
	cc.busy, cc.connecting, cc.claiming, cc.open, cc.connected = false, false, false, a.open, a.connected
}

// lateAnswer is how long the answer to a claim may take before it is old news: the
// server waits no longer for a worker that is stopped.
var lateAnswer = stoppedFor

const (
	beginHeld  = "begin isolation level read committed"
	commitHeld = "commit"
)

// run carries commands out. The contexts end when the worker can wait no longer, and
// when it no longer needs a connection.
func (cc *claimConn) run(ctx, connecting context.Context) {
	defer cc.close()
	for c := range cc.commands {
		began := time.Now()
		a := answer{command: c, claim: c.claim, conn: cc}
		switch {
		case c.connect:
			a.err = cc.connect(connecting)
		case c.end != nil:
			a.err = cc.endAndClaim(ctx, c, &a)
		default:
			a.err = cc.claim(cc.h.claimCtx, c.claim, &a)
		}
		a.connected = cc.conn != nil && !cc.conn.IsClosed()
		if c.claim != nil {
			cc.answer(&a, began)
		}
		cc.h.answers <- a
	}
}

// answer completes the answer to a claim. The time that it took includes the end of the
// claim before where both were one round trip, and not the scan before.
func (cc *claimConn) answer(a *answer, began time.Time) {
	c := a.claim
	if cc.sent.After(began) {
		began = cc.sent
	}
	c.took, c.err = time.Since(began), a.err
	c.walked, c.answered = c.err == nil && !c.void && !c.selects, c.err == nil
	if c.selects && c.more {
		c.found.seen = 1 // there are further jobs, whatever kept them from being taken
	}
	c.stale = a.command.end == nil && !a.connected && c.err != nil && (retry.Of(c.err) == retry.Connection || retry.Elsewhere(c.err))
}

// claim begins a held claim where none is open.
func (cc *claimConn) claim(ctx context.Context, c *claim, a *answer) error {
	var err error
	if c.selection.forbidden, err = cc.h.claims.flags.forbidden(ctx, cc.h.timeout); err != nil {
		c.unsent = true
		return err
	}
	if c.scan != nil && cc.good(ctx) {
		c.from = cc.scan(ctx, c.scan)
		cc.sent = time.Now() // and well answered, or closed
	}
	ctx, cancel := cc.bounded(ctx)
	defer cancel()
	if !cc.good(ctx) {
		return cc.explain(ctx, c.asked, errGone)
	}
	if !cc.records && cc.h.out.Records() {
		cc.learnToRecord(ctx)
	}
	batch := &pgx.Batch{}
	cc.queueClaim(batch, c)
	results := cc.conn.SendBatch(ctx, batch)
	rows, err := cc.readClaim(results, c)
	if err = errors.Join(err, results.Close()); err == nil {
		err = cc.take(ctx, rows, c, a)
	}
	return cc.explain(ctx, c.asked, err)
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
	next, asked := 0, 0
	if c.claim != nil {
		next, asked = c.claim.number, c.claim.asked
	}
	e := cc.h.pool.beginEnd(c.end, next)
	bounded, cancel := cc.bounded(ctx)
	defer cancel()
	e.ask = cc.h.suspects(e.spill)
	batch := &pgx.Batch{}
	end := cc.queueEnd(batch, e, c.claim == nil)
	// User code is not waited for while rows are held.
	together := c.claim != nil && c.claim.scan == nil && cc.h.claims.flags.Ask == nil
	if together {
		c.claim.selection.forbidden = cc.h.claims.flags.Forbidden
		cc.queueClaim(batch, c.claim)
		// The server answers both at once, and a shutdown does not wait for a claim. What
		// became of the end is then found out as after a lost connection.
		stop := context.AfterFunc(cc.h.claimCtx, cancel)
		defer stop()
	}
	results := cc.conn.SendBatch(bounded, batch)
	written, err := end.read(results)
	closeResults := results.Close
	var unrecorded *recordRefused
	if errors.As(err, &unrecorded) {
		_ = results.Close() // it says the same
		closeResults, together = func() error { return nil }, false
		err = cc.commitUnrecorded(bounded, end, unrecorded)
	}
	if err != nil {
		return cc.endFailed(ctx, c, e, errors.Join(err, closeResults()), a)
	}
	a.freed = cc.settle(ctx, c.end, e, written)
	if !together {
		if err := closeResults(); err != nil || c.claim == nil {
			return cc.explain(bounded, asked, err)
		}
		return cc.claim(cc.h.claimCtx, c.claim, a)
	}
	rows, err := cc.readClaim(results, c.claim)
	err = errors.Join(err, results.Close())
	switch {
	case err != nil:
	case len(written.unchanged) > 0:
		// It may have taken what has just run, and is to be locked.
		err = cc.undo(bounded, c.claim)
	default:
		err = cc.take(bounded, rows, c.claim, a)
	}
	return cc.explain(bounded, asked, err)
}

// undo gives all back that a claim has taken.
func (cc *claimConn) undo(ctx context.Context, c *claim) error {
	c.void = true
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
		asked := 0
		if c.claim != nil {
			asked = c.claim.asked
		}
		err = cc.explain(bounded, asked, err)
		cc.h.rescuing.Add(1)
		cc.rescue(ctx, c.end, err)
		cc.h.rescuing.Add(-1)
	}
	switch {
	case c.claim == nil:
		return nil // nothing was to be claimed; the loss of the ended claim is told
	case completer.IsRefusal(err) && cc.h.refused.any():
		// The next claim leaves out what would run again at once.
		return fmt.Errorf("ending a held claim: %w", err)
	case ok || refused && cc.conn != nil && !cc.conn.IsClosed():
		return cc.claim(cc.h.claimCtx, c.claim, a)
	}
	return err
}

func (cc *claimConn) queueClaim(batch *pgx.Batch, c *claim) {
	h := cc.h
	cc.sent, cc.prelocked = time.Now(), h.durations.slowTasks(h.config.longest())
	batch.Queue(beginHeld)
	batch.Queue(h.text(dbgen.BeginHold), h.idleTimeout)
	if c.selects = h.claims.selects(c.selection); c.selects {
		p := h.claims.selected(c.asked, c.selection)
		p.LockTasks, c.lockAt = orEmpty(cc.prelocked), p.LockAt
		batch.Queue(h.text(dbgen.ClaimSelectedJobs), selectedArgs(p)...)
		return
	}
	text, args := claimStatement(c.from, h.claims.tasks, c.asked, orEmpty(cc.prelocked), h.workerID)
	batch.Queue(h.text(text), args...)
}

// readClaim reads the answers to what queueClaim asked.
func (cc *claimConn) readClaim(results pgx.BatchResults, c *claim) (*claimedRows, error) {
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
	if c.lockAt != nil {
		lockedAt = *c.lockAt
	}
	claimed := &claimedRows{workerID: cc.h.workerID, lockedAt: lockedAt}
	if c.selects {
		err = claimed.readSelected(rows, cc.prelocked)
	} else {
		err = claimed.read(rows)
	}
	if err != nil {
		return nil, fmt.Errorf("statement ClaimJobs: %w", err)
	}
	return claimed, nil
}

// take makes the open claim of what was claimed.
func (cc *claimConn) take(ctx context.Context, rows *claimedRows, c *claim, a *answer) error {
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
		return cc.undo(ctx, c)
	}
	if c.selects {
		c.more, rows.found.seen = rows.more, 0
	} else if err := cc.h.claims.names.name(ctx, rows, cc.h.config.Statements.On(cc.conn)); err != nil {
		return err
	}
	oc := &openClaim{
		pool: cc.h.pool, since: time.Now(), over: make(chan struct{}),
		jobs: make([]*active, 0, len(rows.jobs)), lockAt: c.lockAt,
	}
	// One allocation for all, which live and die together.
	runs := make([]active, len(rows.jobs))
	for i, j := range rows.jobs {
		runs[i] = active{job: j, claim: oc, prelocked: slices.Contains(cc.prelocked, j.Task)}
		runs[i].lockFirst = runs[i].prelocked && cc.h.durations.lockFirst(j.Task) || cc.h.config.Lock != nil && cc.h.config.Lock(j)
		oc.jobs = append(oc.jobs, &runs[i])
	}
	count := len(rows.jobs)
	oc.wanted = rows.found.cut(count) || rows.passed // the others are free then
	c.found = rows.found
	if count > 0 && cc.h.pool.takes(oc) {
		a.open, c.jobs = oc, rows.jobs
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

// settle reports what the commit has made true, and hands on what goes on.
func (cc *claimConn) settle(ctx context.Context, oc *openClaim, e ending, w claimEndWritten) (freed bool) {
	for _, end := range e.finish {
		if w.locked[end.Job.ID] {
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
		cc.h.refused.tell(cc.h.events, cc.h.workerID, j, completer.ErrUnchanged)
		cc.h.refused.queues.Store(true)
	}
	cc.h.pool.committed(oc, func(a *active) bool { return !unspilled[a.job.ID] }, cc.h.complete)
	if len(e.spill) > 0 && cc.h.events.WantsFrequent() {
		cc.h.events.Emit(event.JobsSpilled{WorkerID: cc.h.workerID, Count: len(e.spill)})
	}
	if len(w.unspilled) > 0 {
		cc.h.pool.lose(w.unspilled, completer.ErrUnchanged)
	}
	unchanged := make(map[int64]bool, len(w.unchanged))
	for _, end := range w.unchanged {
		unchanged[end.Job.ID] = true
	}
	if len(unchanged) > 0 {
		cc.keepUnchanged(ctx, w.unchanged)
	}
	for _, end := range e.finish {
		if unchanged[end.Job.ID] || w.locked[end.Job.ID] {
			continue
		}
		freed = freed || end.Job.Queue != "" || end.Outcome.Kind == job.Returned || end.Outcome.Kind == job.Snoozed
		if end.Outcome.Kind == job.Lost {
			cc.h.out.ReportLost(end, end.Outcome.Err, false)
			continue
		}
		done := w.failed[end.Job.ID]
		done.Locked = true
		cc.h.out.Report(end, done)
	}
	return freed || e.dropped > 0
}

// milliseconds is a time-out as a setting of PostgreSQL.
func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
