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

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
)

const (
	// closeTimeout bounds the goodbye of a worker to a server that may not answer.
	closeTimeout = 5 * time.Second
	// firstRetry is the wait after a heartbeat that failed.
	firstRetry = 200 * time.Millisecond
	// unused is how long the connection may not have been used before it is asked
	// whether it still is one, and unusedTimeout how long it may take to say so.
	unused        = time.Minute
	unusedTimeout = 5 * time.Second
)

// Keeper keeps a worker registered: on a connection of its own, so that no busy
// pool and no locked table keeps it waiting. While polls carry the heartbeat it only
// watches. It is used by one goroutine, but for Late and by a Poller.
type Keeper struct {
	WorkerID   string
	Metadata   Metadata
	Interval   time.Duration
	Connect    func(context.Context) (*pgx.Conn, error)
	Statements *statement.Set
	Events     *event.Stream
	// Dead, if not nil, is told that somebody has taken the worker for dead.
	Dead func()
	// Paused, if not nil, is told that a heartbeat was late by more than its
	// interval: so those of other workers may be.
	Paused func()
	// Trouble, if not nil, is told of errors that make all connections to the server
	// doubtful: it takes no writes any more, as there is a new primary, or will be; or
	// it does not answer.
	Trouble func(error)

	conn    *pgx.Conn
	used    time.Time   // the connection
	suspect atomic.Bool // it may lead nowhere

	next appointment

	// written is when a heartbeat was last known to be written.
	mu      sync.Mutex
	written time.Time
}

// Late reports whether the heartbeat is missing for so long that something keeps
// it away. When it is there again, Paused is told before Late is false. It may be
// called from any goroutine.
func (k *Keeper) Late() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Since(k.written) > 2*k.Interval
}

func (k *Keeper) wrote() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.written = time.Now()
}

// Suspect tells that the connection may lead nowhere: the next heartbeat comes at once
// and makes sure of it. It may be called from any goroutine.
func (k *Keeper) Suspect() {
	k.suspect.Store(true)
	k.next.sooner()
}

// dueWithin reports whether the heartbeat is due before so much time has passed.
func (k *Keeper) dueWithin(wait time.Duration) bool { return k.next.within(wait) }

// carried tells of a heartbeat that somebody else has written, how long after the one
// before; nil means that there was nothing to write it to.
func (k *Keeper) carried(silentFor *float64) {
	if silentFor == nil {
		k.next.in(0)
		return
	}
	k.heard(*silentFor)
	k.next.in(k.Interval)
}

// heard notes a heartbeat that was written.
func (k *Keeper) heard(silentFor float64) {
	if k.Paused != nil && seconds(silentFor) > 2*k.Interval {
		k.Paused()
	}
	k.wrote()
}

// Register registers the worker. It is to be called before the first claim.
func (k *Keeper) Register(ctx context.Context) error {
	if err := k.register(ctx); err != nil {
		k.drop(ctx)
		return fmt.Errorf("registering worker %s: %w", k.WorkerID, err)
	}
	k.wrote()
	return nil
}

func (k *Keeper) register(ctx context.Context) error {
	metadata, err := json.Marshal(k.Metadata)
	if err != nil {
		return fmt.Errorf("describing the worker: %w", err)
	}
	return k.tell(ctx, func(q *dbgen.Queries) error {
		if err := q.RegisterWorker(ctx, dbgen.RegisterWorkerParams{WorkerID: k.WorkerID, Metadata: string(metadata)}); err != nil {
			return err
		}
		switch registered, err := q.IsRegistered(ctx, k.WorkerID); {
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
func (k *Keeper) Run(ctx context.Context) {
	due := k.next.in(k.Interval)
	defer k.next.never()
	again := firstRetry
	for {
		select {
		case <-ctx.Done():
			return
		case <-due:
		}
		wait := k.Interval
		err := k.beat(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			k.drop(ctx)
			if k.Trouble != nil && (statement.IsReadOnly(err) || statement.Unanswered(err)) {
				k.Trouble(err)
			}
			wait = min(again, k.Interval)
			again *= 2
			k.Events.Emit(event.HeartbeatFailed{WorkerID: k.WorkerID, Err: err, RetryIn: wait})
		default:
			again = firstRetry
		}
		k.next.in(wait)
	}
}

// beat says that the worker lives, and sees whether others think so. It touches
// nothing but the registration: who waits for the jobs table is not dead.
func (k *Keeper) beat(ctx context.Context) error {
	var silence []dbgen.HeartbeatRow
	err := k.tell(ctx, func(q *dbgen.Queries) (err error) {
		if silence, err = q.Heartbeat(ctx, k.WorkerID); err != nil || len(silence) > 0 {
			return err
		}
		registered, err := q.IsRegistered(ctx, k.WorkerID)
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
		k.heard(silence[0].SilentFor)
		return nil
	}
	if k.Paused != nil {
		k.Paused()
	}
	if k.Dead != nil {
		defer k.Dead()
	}
	k.Events.Emit(event.WorkerDeclaredDead{WorkerID: k.WorkerID})
	if err := k.register(ctx); err != nil {
		return fmt.Errorf("registering again: %w", err)
	}
	k.wrote()
	return nil
}

// Deregister says goodbye and closes the connection, within 5 s. What cannot be said
// is found out by others.
func (k *Keeper) Deregister(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	defer k.drop(ctx)
	err := k.tell(ctx, func(q *dbgen.Queries) error { return q.DeregisterWorker(ctx, k.WorkerID) })
	if err != nil {
		return fmt.Errorf("deregistering worker %s: %w", k.WorkerID, err)
	}
	return nil
}

// tell carries out a statement that does no harm if it is carried out twice. If the
// connection has ended since it was used last, as by idle_session_timeout, that says
// nothing about the server: a new one is tried at once.
func (k *Keeper) tell(ctx context.Context, say func(*dbgen.Queries) error) error {
	before := k.conn
	q, err := k.queries(ctx)
	if err == nil {
		err = say(q)
	}
	if err == nil || before == nil || before != k.conn || !retry.AtOnce(err) || ctx.Err() != nil {
		return err
	}
	k.drop(ctx)
	if q, err = k.queries(ctx); err != nil {
		return err
	}
	return say(q)
}

// queries are the statements on the keeper's connection, which is opened if
// need be.
func (k *Keeper) queries(ctx context.Context) (*dbgen.Queries, error) {
	doubtful := k.suspect.Swap(false) || time.Since(k.used) > unused
	if k.conn != nil && (k.conn.IsClosed() || doubtful && !k.answers(ctx)) {
		k.drop(ctx)
	}
	k.used = time.Now()
	if k.conn == nil {
		ctx, cancel := context.WithTimeoutCause(ctx, k.Statements.Timeout(), errConnectTimeout)
		defer cancel()
		conn, err := k.Connect(ctx)
		if err != nil {
			return nil, fmt.Errorf("connecting: %w", err)
		}
		k.conn = conn
	}
	return k.Statements.On(k.conn), nil
}

// answers asks whether there is a server at the other end of a connection that was
// not used for a while: a firewall may have forgotten it, or the server ended it.
func (k *Keeper) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, unusedTimeout)
	defer cancel()
	return k.conn.Ping(ctx) == nil
}

var errConnectTimeout = errors.New("the server did not answer in time")

// drop closes the connection, which may be broken.
func (k *Keeper) drop(ctx context.Context) {
	if k.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = k.conn.Close(ctx)
	k.conn = nil
}
