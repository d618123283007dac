package scheduler

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/retry"
)

// Held claims need connections besides the pool, and the server may have none to spare.
// So they are made in the background, one at a time; while there is none, claims are
// ordinary ones.

// firstConnect is how long claims wait for the first connection.
var firstConnect = 100 * time.Millisecond

// The waits after a try that failed.
const connectAgain, connectAgainMost = time.Second, 10 * time.Second

// access is what the loop knows of the connections for held claims.
type access struct {
	trying bool
	began  time.Time
	tries  int       // in a row, that failed
	next   time.Time // not before
	stale  int       // claims in a row that failed with their connections
	stop   context.CancelFunc
	back   atomic.Bool // the database answers again
}

// usable reports whether a held claim can be had now or in a moment.
func (h *heldClaims) usable(now time.Time) bool {
	a := &h.access
	switch {
	case slices.ContainsFunc(h.conns, func(cc *claimConn) bool { return cc.connected }):
		return true
	case a.trying:
		return a.tries == 0 && now.Before(a.began.Add(firstConnect))
	}
	return a.tries == 0
}

// connect has one of them opened that may claim, unless another is. It returns when
// claims wait for that no more; zero if they do not.
func (h *heldClaims) connect(now time.Time) (until time.Time) {
	a := &h.access
	if a.back.Swap(false) {
		a.next = time.Time{}
	}
	if !a.trying && !now.Before(a.next) {
		for _, cc := range h.conns {
			if !cc.connected && !cc.busy && cc.open == nil {
				a.trying, a.began = true, now
				cc.command(command{connect: true})
				break
			}
		}
	}
	if until := a.began.Add(firstConnect); a.trying && a.tries == 0 && now.Before(until) {
		return until
	}
	return time.Time{}
}

// connected notes what came of it.
func (h *heldClaims) connected(err error) {
	a := &h.access
	a.trying = false
	if err == nil {
		a.tries = 0
		return
	}
	wait := min(connectAgain<<min(a.tries, 10), connectAgainMost)
	a.tries++
	a.next = time.Now().Add(wait)
	// Where the server is full, those that are connected are as well as before.
	var full *pgconn.PgError
	if retry.Of(err) == retry.Connection && !(errors.As(err, &full) && full.Code == pgerrcode.TooManyConnections) {
		h.suspect = true
	}
	h.events.Emit(event.HoldUnavailable{WorkerID: h.workerID, Err: err, RetryIn: wait})
}

// The connection itself. Its goroutine calls these.

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
	cc.learnToRecord(ctx)
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
