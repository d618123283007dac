// Package announce tells workers about the jobs that a client has added, in few
// notifications however many adds there are.
//
// A transaction that notifies takes a server-wide lock when it commits, and holds it
// while the commit waits for the disk: adds that each notify commit one at a time,
// across all databases. So an add notifies in its own commit only while its client is
// quiet, that is, no other add of the client is in flight and none has ended in the
// last few milliseconds. Then no other add waits behind it, and the notification costs
// nothing extra. The adds of a busy client do not notify. One notification announces
// all that have been committed, at once and then every Interval, in a transaction that
// does not wait for the disk.
//
// Adds that begin and end come in, notifications go out. The one thing not to break:
// every add that may have been committed is followed by a notification that starts
// after its commit. Only if the database refuses several times in a row, the pool is
// closed first, or the process ends first, is the job left to the workers' polling,
// which exists for lost notifications of every kind.
package announce

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/puddle/v2"

	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/wait"
)

const (
	// Interval is the least time between two notifications of a busy client. A worker
	// shall start a job within 10 ms of its commit; about half of that is needed for
	// the round trip to the server.
	Interval = 4 * time.Millisecond
	// tries is how often a notification is sent before its jobs are left to polling.
	tries = 4
)

// Announcer announces the adds of one client. It is safe for concurrent use. Its
// one goroutine lives while there is something to announce.
type Announcer struct {
	pool *pgxpool.Pool
	set  *statement.Set
	// handOff passes on connections of adds that have just ended. It is unbuffered: a
	// connection is passed on only if an announcement waits for it.
	handOff chan *pgxpool.Conn
	closing chan struct{}
	sending context.Context // ends when Close has waited long enough
	giveUp  context.CancelFunc

	mu       sync.Mutex
	closed   bool
	inFlight int
	ended    time.Time     // the last add or announcement
	sent     time.Time     // the last announcement that was not part of an add
	pending  int64         // jobs that were not announced yet
	running  chan struct{} // closed when the goroutine ends; nil without one
}

// New makes an announcer. Close it before the pool.
func New(pool *pgxpool.Pool, set *statement.Set) *Announcer {
	a := &Announcer{pool: pool, set: set, handOff: make(chan *pgxpool.Conn), closing: make(chan struct{})}
	a.sending, a.giveUp = context.WithCancel(context.Background())
	return a
}

// Begin begins an add; End must follow. It reports whether the add has to notify in its
// own commit.
func (a *Announcer) Begin() (notify bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inFlight++
	quiet := a.inFlight == 1 && a.running == nil && time.Since(a.ended) >= Interval
	return quiet || a.closed
}

// End ends an add. jobs is how many jobs have been committed, or may have been,
// without a notification.
func (a *Announcer) End(jobs int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inFlight--
	a.ended = time.Now()
	if jobs == 0 {
		return
	}
	a.pending += int64(jobs)
	if a.running == nil {
		a.running = make(chan struct{})
		go a.run(a.running)
	}
}

// Close announces the jobs that were not announced yet, tries once, and waits for that until
// ctx ends. Adds that end later are announced too, if the pool is still open.
func (a *Announcer) Close(ctx context.Context) {
	a.mu.Lock()
	if !a.closed {
		a.closed = true
		close(a.closing)
	}
	running := a.running
	a.mu.Unlock()
	if running != nil {
		defer context.AfterFunc(ctx, a.giveUp)()
		<-running
	}
}

// run announces until there is nothing left to announce.
func (a *Announcer) run(ended chan struct{}) {
	defer close(ended)
	failed, delay := 0, Interval-time.Since(a.sent) // only this goroutine writes it
	var waits backoff.BackOff
	for {
		if delay > 0 {
			wait.For(context.Background(), a.closing, delay)
		}
		jobs, err := a.announce()
		if err != nil {
			failed++
		} else {
			failed = 0
		}
		a.mu.Lock()
		a.ended = time.Now()
		a.sent = a.ended
		if err != nil && failed < tries && !a.closed && !errors.Is(err, puddle.ErrClosedPool) {
			// It may have been sent nevertheless; a second one does no harm.
			a.pending += jobs
			a.mu.Unlock()
			if failed == 1 {
				waits = retry.AnnounceBackoff()
			}
			delay = waits.NextBackOff()
			continue
		}
		if a.pending == 0 || err != nil {
			a.pending = 0
			a.running = nil
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		delay = Interval
	}
}

// announce sends one notification and returns how many jobs it is about.
func (a *Announcer) announce() (jobs int64, err error) {
	ctx, cancel := context.WithTimeout(a.sending, a.set.Timeout())
	defer cancel()
	conn, err := a.connection(ctx)
	// It covers everything that was added until now.
	a.mu.Lock()
	jobs, a.pending = a.pending, 0
	a.mu.Unlock()
	if err != nil {
		return jobs, err
	}
	defer conn.Release()
	return jobs, a.set.On(conn).Announce(ctx, jobs)
}
