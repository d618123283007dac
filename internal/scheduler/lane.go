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

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
)

// lane is a connection on which held claims follow one another. Its goroutine
// carries out one command at a time; what it does between two commands is to hold
// the present group's rows, by doing nothing.
type lane struct {
	h        *holds
	commands chan command
	kicked   chan struct{} // told, without blocking, that the database is back

	suspect atomic.Bool // the connection may lead nowhere

	conn  *pgx.Conn
	sent  time.Time // when the last claim was
	slow  []string  // the tasks that were slow then
	tasks taskNames

	// They belong to the loop.
	connected  bool
	connecting bool
	busy       bool
	asked      int    // what the claim that is under way may take
	group      *group // the open one
}

// command is what a lane is to do, in one round trip: end a group, claim the next.
type command struct {
	connect bool // nothing else
	end     *group
	claim   int
	survey  *surveyor // comes before the claim; nil: none is due
	from    place     // where the claim begins
	quiet   bool      // when it was given, the worker had nothing to do
	woken   int       // how often the loop had been woken by then
	number  int       // of the claim
}

// answer is what came of a command.
type answer struct {
	command
	lane  *lane
	group *group // what was claimed; nil for nothing
	count int
	found found         // what the claim tells beside them
	seen  int           // jobs that were there, if it took none
	more  bool          // there may be further jobs
	void  bool          // the claim was undone before anything came of it
	freed bool          // jobs may have become runnable by the end of the group
	err   error         // of the claim
	took  time.Duration // without the survey

	connected bool          // there is a connection now
	looked    time.Duration // how long the survey took
}

// stale reports whether a claim failed because its connection had died while nothing
// was held: that says nothing about the database, and another connection may do.
func (a answer) stale() bool {
	return a.claim > 0 && a.end == nil && !a.connected && (retry.Of(a.err) == retry.Connection || retry.Elsewhere(a.err))
}

// answered notes what a command has made of the lane.
func (l *lane) answered(a answer) {
	l.busy, l.connecting, l.group, l.asked, l.connected = false, false, a.group, 0, a.connected
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
func (l *lane) run(ctx, connecting context.Context) {
	defer l.close()
	for c := range l.commands {
		began := time.Now()
		a := answer{command: c, lane: l}
		switch {
		case c.connect:
			a.err = l.connect(connecting)
		case c.end != nil:
			a.err = l.endAndClaim(ctx, c, &a)
		default:
			a.err = l.claim(l.h.claimCtx, c, &a)
		}
		a.took, a.connected = time.Since(began)-a.looked, l.conn != nil && !l.conn.IsClosed()
		l.h.answers <- a
	}
}

// claim begins a group where none is open.
func (l *lane) claim(ctx context.Context, c command, a *answer) error {
	if c.survey != nil && l.good(ctx) {
		began := time.Now()
		a.from = l.look(ctx, c.survey)
		a.looked = time.Since(began)
		l.sent = time.Now() // and well answered, or closed
	}
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	if !l.good(ctx) {
		return l.explain(ctx, c.claim, errGone)
	}
	batch := &pgx.Batch{}
	l.queueClaim(batch, c.claim, a.from)
	results := l.conn.SendBatch(ctx, batch)
	rows, err := l.readClaim(results)
	if err = errors.Join(err, results.Close()); err == nil {
		err = l.take(ctx, rows, c.claim, a)
	}
	return l.explain(ctx, c.claim, err)
}

// look makes a survey. The lane holds nothing meanwhile, so it does not matter for what
// the survey has to wait. Where none can be made the claim walks everything, and tells
// of the database's error itself.
func (l *lane) look(ctx context.Context, s *surveyor) place {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	s.queries = l.h.config.Statements.On(l.conn)
	from, _ := s.begin(ctx)
	return from
}

// endAndClaim ends the group, and claims the next one in the same round trip.
func (l *lane) endAndClaim(ctx context.Context, c command, a *answer) error {
	e := l.h.pool.beginEnd(c.end, c.number)
	if e.dropped > 0 {
		// The slots did not work it off: jobs take longer than was known.
		l.h.estimates.atLeast(l.h.config.Time)
	}
	bounded, cancel := l.bounded(ctx)
	defer cancel()
	e.ask = l.h.suspects(e.spill)
	batch := &pgx.Batch{}
	end := l.queueEnd(batch, e, c.claim == 0)
	together := c.claim > 0 && c.survey == nil
	if together {
		l.queueClaim(batch, c.claim, c.from)
	}
	results := l.conn.SendBatch(bounded, batch)
	written, err := end.read(results)
	if err != nil {
		return l.endFailed(ctx, c, e, errors.Join(err, results.Close()), a)
	}
	a.freed = l.settle(ctx, c.end, e, written)
	if !together {
		if err := results.Close(); err != nil || c.claim == 0 {
			return l.explain(bounded, c.claim, err)
		}
		return l.claim(l.h.claimCtx, c, a)
	}
	rows, err := l.readClaim(results)
	err = errors.Join(err, results.Close())
	switch {
	case err != nil:
	case len(written.unchanged) > 0:
		// It may have taken what has just run, and is to be locked.
		err = l.undo(bounded, a)
	default:
		err = l.take(bounded, rows, c.claim, a)
	}
	return l.explain(bounded, c.claim, err)
}

// undo gives all back that a claim has taken.
func (l *lane) undo(ctx context.Context, a *answer) error {
	a.void = true
	_, err := l.conn.Exec(ctx, "rollback")
	return err
}

// endFailed sees to the jobs of a group whose end was refused, or lost. Then it claims,
// if the connection still serves.
func (l *lane) endFailed(ctx context.Context, c command, e ending, err error, a *answer) error {
	refused := retry.Refused(err) && !retry.Passes(err)
	if refused {
		l.h.guarded.Store(true)
	}
	bounded, cancel := l.bounded(ctx)
	defer cancel()
	a.freed = true
	kept, unlockable, ok := l.salvage(bounded, c.end, e)
	if ok {
		gone, lost := l.rescued(c.end, kept, false)
		l.giveUp(c.end, gone, lost, unlockable, false)
	} else {
		err = l.explain(bounded, c.claim, err)
		l.h.rescuing.Add(1)
		l.rescue(ctx, c.end, err)
		l.h.rescuing.Add(-1)
	}
	switch {
	case c.claim == 0:
		return nil // nothing was to be claimed; the group's own loss is told
	case isRefusal(err) && l.h.refused.any():
		// The next claim leaves out what would run again at once.
		return fmt.Errorf("ending a held claim: %w", err)
	case ok || refused && l.conn != nil && !l.conn.IsClosed():
		return l.claim(l.h.claimCtx, c, a)
	}
	return err
}

func (l *lane) queueClaim(batch *pgx.Batch, jobs int, from place) {
	h := l.h
	l.sent, l.slow = time.Now(), h.estimates.slowTasks(h.config.Time)
	batch.Queue(beginHeld)
	batch.Queue(h.text(dbgen.BeginHold), h.idleTimeout)
	text, args := claimStatement(from, h.tasks, jobs, orEmpty(l.slow), h.workerID)
	batch.Queue(h.text(text), args...)
}

// readClaim reads the answers to what queueClaim asked.
func (l *lane) readClaim(results pgx.BatchResults) (*claimedRows, error) {
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
	claimed := &claimedRows{workerID: l.h.workerID, lockedAt: lockedAt}
	if err := claimed.read(rows); err != nil {
		return nil, fmt.Errorf("statement ClaimJobs: %w", err)
	}
	return claimed, nil
}

// take makes the open group of what was claimed.
func (l *lane) take(ctx context.Context, rows *claimedRows, asked int, a *answer) error {
	if time.Since(l.sent) >= lateAnswer {
		// The server may have ended the session since, and others may have done
		// the jobs.
		if err := l.conn.Ping(ctx); err != nil {
			return fmt.Errorf("making sure of jobs whose claim took %s: %w", time.Since(l.sent), err)
		}
	}
	if rows.unlocked {
		// Whose locks are not written is found out by an ordinary claim.
		l.h.refused.unlocked()
		return l.undo(ctx, a)
	}
	if err := l.tasks.name(ctx, rows, l.h.config.Statements.On(l.conn)); err != nil {
		return err
	}
	g := &group{
		pool: l.h.pool, since: time.Now(), over: make(chan struct{}),
		jobs: make([]*active, 0, len(rows.jobs)), claimed: rows.jobs,
	}
	// One allocation for all, which live and die together.
	runs := make([]active, len(rows.jobs))
	for i, j := range rows.jobs {
		runs[i] = active{job: j, group: g, slow: slices.Contains(l.slow, j.Task)}
		runs[i].firm = runs[i].slow && l.h.estimates.firm(j.Task) || l.h.config.Lock != nil && l.h.config.Lock(j)
		g.jobs = append(g.jobs, &runs[i])
	}
	count := len(rows.jobs)
	g.wanted = rows.found.cut(count) // the others are free then
	a.found, a.seen, a.more = rows.found, a.from.missed(asked, count, rows.found), a.from.more(asked, count, rows.found)
	if count > 0 && l.h.pool.takes(g) {
		a.group, a.count = g, count
		return nil
	}
	// Nothing is held, so nothing may be kept open.
	_, err := l.conn.Exec(ctx, "rollback")
	return err
}

// explain closes the connection after an error, unless the server has only
// refused a statement, and says what was going on.
func (l *lane) explain(ctx context.Context, jobs int, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(context.Cause(ctx), errNoAnswer) {
		err = &statement.TimeoutError{Statement: "ClaimJobs", After: l.h.timeout, Err: err}
	}
	if l.h.config.Trouble != nil && (statement.IsReadOnly(err) || statement.Unanswered(err)) {
		l.h.config.Trouble(err)
	}
	keep := l.conn != nil && !l.conn.IsClosed() && retry.Refused(err) && !retry.Elsewhere(err) && !statement.IsReadOnly(err)
	if keep {
		_, rollbackErr := l.conn.Exec(ctx, "rollback")
		keep = rollbackErr == nil
	}
	if !keep {
		l.close()
	}
	if jobs == 0 {
		return fmt.Errorf("ending a held claim: %w", err)
	}
	return fmt.Errorf("claiming up to %d jobs to hold: %w", jobs, err)
}

func (l *lane) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, l.h.timeout, errNoAnswer)
}

var (
	errNoAnswer = errors.New("statement time-out")
	errGone     = fmt.Errorf("the connection leads nowhere: %w", net.ErrClosed)
)

const (
	// unused is how long a lane's connection may not have been used before it is asked
	// whether it still leads to the server, and unusedTimeout how long it may take to
	// say so.
	unused        = 15 * time.Second
	unusedTimeout = 3 * time.Second
)

// good reports whether the connection can be used. It asks where there is a doubt.
func (l *lane) good(ctx context.Context) bool {
	doubtful := l.suspect.Swap(false)
	return !l.conn.IsClosed() && (!doubtful && time.Since(l.sent) <= unused || l.answers(ctx))
}

// connect opens the connection.
func (l *lane) connect(ctx context.Context) error {
	l.close()
	l.suspect.Store(false)
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	conn, err := l.h.config.Connect(ctx)
	if err != nil {
		return fmt.Errorf("connecting to hold jobs: %w", err)
	}
	l.conn, l.sent = conn, time.Now()
	l.guard(ctx)
	l.learnToAsk(ctx)
	return nil
}

// answers asks for a sign of life.
func (l *lane) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, unusedTimeout)
	defer cancel()
	return l.conn.Ping(ctx) == nil
}

func (l *lane) close() {
	if l.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = l.conn.Close(ctx) // the server rolls back what was open
	l.conn = nil
}

// settle reports what the commit has made true, and hands on what goes on.
func (l *lane) settle(ctx context.Context, g *group, e ending, w groupWritten) (freed bool) {
	for _, end := range e.finish {
		if w.locked[end.job.ID] {
			l.h.release(end) // before the group lets go of it, so that it is never unknown
		}
	}
	for _, a := range e.spill {
		if w.awaited[a.job.ID] {
			l.h.estimates.lock(a.job.Task) // before the run may end
		}
	}
	unspilled := map[int64]bool{}
	for _, j := range w.unspilled {
		unspilled[j.ID] = true
		l.h.refused.tell(l.h.events, l.h.workerID, j, errUnchanged)
		l.h.refused.leavesQueues(true)
	}
	l.h.pool.committed(g, func(a *active) bool { return !unspilled[a.job.ID] }, l.h.release)
	if len(e.spill) > 0 && l.h.events.WantsFrequent() {
		l.h.events.Emit(event.JobsSpilled{WorkerID: l.h.workerID, Count: len(e.spill)})
	}
	if len(w.unspilled) > 0 {
		l.h.pool.lose(w.unspilled, errUnchanged)
	}
	unchanged := make(map[int64]bool, len(w.unchanged))
	for _, end := range w.unchanged {
		unchanged[end.job.ID] = true
	}
	if len(unchanged) > 0 {
		l.keepUnchanged(ctx, w.unchanged)
	}
	for _, end := range e.finish {
		if unchanged[end.job.ID] || w.locked[end.job.ID] {
			continue
		}
		freed = freed || end.job.Queue != "" || end.outcome.Kind == job.Returned || end.outcome.Kind == job.Snoozed
		if end.outcome.Kind == job.Lost {
			l.h.events.Emit(event.JobLost{WorkerID: l.h.workerID, Job: end.job, Err: end.outcome.Err})
			continue
		}
		done := w.failed[end.job.ID]
		done.held = true
		l.h.out.report(end, done)
	}
	return freed || e.dropped > 0
}

// milliseconds is a time-out as a setting of PostgreSQL.
func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
