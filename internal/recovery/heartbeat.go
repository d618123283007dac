package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/elapsed"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
)

const (
	// closeTimeout bounds the deregistration, as the server may not answer.
	closeTimeout = 5 * time.Second
	// After unused without a statement, the connection is tested before its next use;
	// the test may take unusedTimeout.
	unused        = time.Minute
	unusedTimeout = 5 * time.Second
)

// Heartbeat keeps a worker registered, on its own connection, so that no busy pool and no
// locked table delays it. While polls write the heartbeat it only watches. It is used by
// one goroutine, except for Late and Suspect, and by an IdlePoll.
type Heartbeat struct {
	WorkerID   string
	Metadata   Metadata
	Interval   time.Duration
	Connect    func(context.Context) (*pgx.Conn, error)
	Statements *statement.Set
	Events     *eventstream.Stream
	// Dead, if not nil, is called when another process has declared the worker dead.
	Dead func()
	// Paused, if not nil, is called when a heartbeat was late by more than its
	// interval: then those of other workers may be late, too.
	Paused func()
	// Alike, if not nil, is told with each heartbeat which workers look for the same jobs
	// (Metadata.LooksFor), this one included, and for how long it may go by that.
	Alike func(workers []string, lasts time.Duration)
	// Trouble, if not nil, is called with errors that cast doubt on all connections to
	// the server: it no longer accepts writes, because another server is or will be the
	// primary; or it does not answer.
	Trouble func(error)

	conn    *pgx.Conn
	used    time.Time   // the connection
	suspect atomic.Bool // it may be dead

	next deadline

	// written is when a heartbeat was last known to be written.
	mu      sync.Mutex
	written time.Time
}

// Late reports whether the last heartbeat is so long ago that something must be blocking
// it. When heartbeats are written again, Paused is called before Late returns false. It may
// be called from any goroutine.
func (h *Heartbeat) Late() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.written) > 2*h.Interval
}

func (h *Heartbeat) wrote() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.written = time.Now()
}

// Suspect says that the connection may be dead: the next heartbeat is sent at once and
// tests it. It may be called from any goroutine.
func (h *Heartbeat) Suspect() {
	h.suspect.Store(true)
	h.next.expire()
}

// dueWithin reports whether the heartbeat is due before wait has passed.
func (h *Heartbeat) dueWithin(wait time.Duration) bool { return h.next.within(wait) }

// carried notes a heartbeat that a poll has written, and how long after the previous one;
// nil means that the poll could not write it.
func (h *Heartbeat) carried(silentFor *float64, alike []string) {
	if silentFor == nil {
		h.next.set(0)
		return
	}
	h.heard(*silentFor, alike)
	h.next.set(h.Interval)
}

// heard notes a heartbeat that was written, and the workers that are alike.
func (h *Heartbeat) heard(silentFor float64, alike []string) {
	if h.Paused != nil && elapsed.Seconds(silentFor) > 2*h.Interval {
		h.Paused()
	}
	h.wrote()
	if h.Alike != nil {
		h.Alike(alike, h.heardWithin())
	}
}

// heardWithin is the silence after which a worker is no longer counted on. It is not dead
// yet: that takes longer.
func (h *Heartbeat) heardWithin() time.Duration { return 5 * h.Interval / 2 }

// Register registers the worker. Call it before the first claim.
func (h *Heartbeat) Register(ctx context.Context) error {
	if err := h.register(ctx); err != nil {
		h.drop(ctx)
		return fmt.Errorf("registering worker %s: %w", h.WorkerID, err)
	}
	h.wrote()
	return nil
}

func (h *Heartbeat) register(ctx context.Context) error {
	metadata, err := json.Marshal(h.Metadata)
	if err != nil {
		return fmt.Errorf("describing the worker: %w", err)
	}
	return h.tell(ctx, func(q *dbgen.Queries) error {
		if err := q.RegisterWorker(ctx, dbgen.RegisterWorkerParams{WorkerID: h.WorkerID, Metadata: string(metadata)}); err != nil {
			return err
		}
		switch registered, err := q.IsRegistered(ctx, h.WorkerID); {
		case err != nil:
			return err
		case !registered:
			return errUnwritten
		}
		return nil
	})
}

// errUnwritten is the refusal of a database that reports no error.
var errUnwritten = errors.New("the worker's row is not written, although the statement succeeded; " +
	"look for a trigger on the table _private_workers that returns null or the old row")

// Run keeps the heartbeat until ctx ends. Errors of the database do not end it.
func (h *Heartbeat) Run(ctx context.Context) {
	due := h.next.set(h.Interval)
	defer h.next.stop()
	waits := retry.HeartbeatBackoff(h.Interval)
	for {
		select {
		case <-ctx.Done():
			return
		case <-due:
		}
		wait := h.Interval
		err := h.beat(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			h.drop(ctx)
			if h.Trouble != nil && (statement.IsReadOnly(err) || statement.Unanswered(err)) {
				h.Trouble(err)
			}
			wait = waits.NextBackOff()
			h.Events.Emit(event.HeartbeatFailed{WorkerID: h.WorkerID, Err: err, RetryIn: wait})
		default:
			waits.Reset()
		}
		h.next.set(wait)
	}
}

// beat writes the heartbeat, and finds out whether the worker was declared dead. It touches
// only the registration: a worker that waits for the jobs table is not dead.
func (h *Heartbeat) beat(ctx context.Context) error {
	var silence []dbgen.HeartbeatRow
	err := h.tell(ctx, func(q *dbgen.Queries) (err error) {
		if silence, err = q.Heartbeat(ctx, dbgen.HeartbeatParams{
			WorkerID: h.WorkerID, LooksFor: h.Metadata.LooksFor, HeardWithin: h.heardWithin().Seconds(),
		}); err != nil || len(silence) > 0 {
			return err
		}
		registered, err := q.IsRegistered(ctx, h.WorkerID)
		if err == nil && registered {
			err = errUnwritten
		}
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("writing the heartbeat: %w", err)
	case len(silence) > 0 && !silence[0].Written:
		return fmt.Errorf("writing the heartbeat: %w", errUnwritten)
	case len(silence) > 0:
		h.heard(silence[0].SilentFor, silence[0].Alike)
		return nil
	}
	if h.Paused != nil {
		h.Paused()
	}
	if h.Dead != nil {
		defer h.Dead()
	}
	h.Events.Emit(event.WorkerDeclaredDead{WorkerID: h.WorkerID})
	if err := h.register(ctx); err != nil {
		return fmt.Errorf("registering again: %w", err)
	}
	h.wrote()
	return nil
}

// Deregister removes the registration and closes the connection, within 5 s. If that fails,
// a sweep of another worker removes it.
func (h *Heartbeat) Deregister(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	defer h.drop(ctx)
	err := h.tell(ctx, func(q *dbgen.Queries) error { return q.DeregisterWorker(ctx, h.WorkerID) })
	if err != nil {
		return fmt.Errorf("deregistering worker %s: %w", h.WorkerID, err)
	}
	return nil
}

// tell runs a statement that may safely run twice. If the connection has ended since its
// last use, for example because of idle_session_timeout, that says nothing about the
// server, and a new connection is tried at once.
func (h *Heartbeat) tell(ctx context.Context, say func(*dbgen.Queries) error) error {
	before := h.conn
	q, err := h.queries(ctx)
	if err == nil {
		err = say(q)
	}
	if err == nil || before == nil || before != h.conn || !retry.AtOnce(err) || ctx.Err() != nil {
		return err
	}
	h.drop(ctx)
	if q, err = h.queries(ctx); err != nil {
		return err
	}
	return say(q)
}

// queries are the statements on the heartbeat's connection, which is opened if necessary.
func (h *Heartbeat) queries(ctx context.Context) (*dbgen.Queries, error) {
	doubtful := h.suspect.Swap(false) || time.Since(h.used) > unused
	if h.conn != nil && (h.conn.IsClosed() || doubtful && !h.answers(ctx)) {
		h.drop(ctx)
	}
	h.used = time.Now()
	if h.conn == nil {
		ctx, cancel := context.WithTimeoutCause(ctx, h.Statements.Timeout(), errConnectTimeout)
		defer cancel()
		conn, err := h.Connect(ctx)
		if err != nil {
			return nil, fmt.Errorf("connecting: %w", err)
		}
		h.conn = conn
	}
	return h.Statements.On(h.conn), nil
}

// answers tests a connection that was not used for a while: a firewall may have dropped it,
// or the server may have ended it.
func (h *Heartbeat) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, unusedTimeout)
	defer cancel()
	return h.conn.Ping(ctx) == nil
}

var errConnectTimeout = errors.New("the server did not answer in time")

// drop closes the connection, which may be broken.
func (h *Heartbeat) drop(ctx context.Context) {
	if h.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = h.conn.Close(ctx)
	h.conn = nil
}
