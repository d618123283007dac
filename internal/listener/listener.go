// Package listener keeps one PostgreSQL session listening. Channel names and a way to
// connect come in; batches of notifications go out, and states for monitoring.
//
// PostgreSQL stores no notifications for a session that is not connected, so a listener can
// only promise to say when some may be missing: that is Batch.Gap.
//
// The one thing not to break: after a notification that was sent while no session listened,
// or that did not fit into the buffer, the next batch has a Gap. A consumer that reads its
// tables on every Gap misses nothing.
package listener

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/wait"
)

const (
	defaultBuffer       = 1024
	defaultPingInterval = 30 * time.Second

	// PostgreSQL truncates longer identifiers, so that notifications would arrive
	// under another name.
	maxChannelBytes = 63
)

// ErrRunning is returned by Run while another Run is in progress.
var ErrRunning = errors.New("this listener is running already")

// Config configures a Listener.
type Config struct {
	// Connect opens the session that listens. It must respect its context: Run
	// cannot end before it returns. Every connection that it returns is the
	// listener's to close.
	Connect func(ctx context.Context) (*pgx.Conn, error)

	// Channels are the names to listen to, unquoted.
	Channels []string

	// OnState is called with each change, in order, on Run's goroutine. It must not
	// block, since nothing is read meanwhile. It may be nil.
	OnState func(State)

	// Take, if not nil, is asked about each notification as it arrives; true says that
	// nothing else is to be done about it, and no batch has it. It is called on Run's
	// goroutine, which saves waking the one that handles batches, and must not block.
	Take func(Notification) bool

	// Buffer is how many distinct notifications are kept while the consumer is
	// busy. 0 means 1024.
	Buffer int

	// PingInterval is how long the connection may be silent before it is checked. 0
	// means 30 s.
	PingInterval time.Duration
}

// FieldError says which field of a Config cannot be used, and why.
type FieldError struct{ Field, Problem string }

func (e *FieldError) Error() string { return "listener.Config." + e.Field + " " + e.Problem }

// Listener listens while it runs.
type Listener struct {
	config  Config
	running atomic.Bool
	present atomic.Pointer[present] // the session, while it listens

	// Time, as values for the tests.
	now    func() time.Time
	sleep  func(ctx context.Context, d time.Duration) error
	answer time.Duration
}

// New makes a listener. It does not connect yet.
func New(config Config) (*Listener, error) {
	if config.Connect == nil {
		return nil, &FieldError{"Connect", "is missing"}
	}
	if err := checkChannels(config.Channels); err != nil {
		return nil, err
	}
	if config.Buffer < 0 {
		return nil, &FieldError{"Buffer", fmt.Sprintf("is %d: it cannot be negative", config.Buffer)}
	}
	if config.PingInterval < 0 {
		return nil, &FieldError{"PingInterval", fmt.Sprintf("is %s: it cannot be negative", config.PingInterval)}
	}
	if config.Buffer == 0 {
		config.Buffer = defaultBuffer
	}
	if config.PingInterval == 0 {
		config.PingInterval = defaultPingInterval
	}
	if config.OnState == nil {
		config.OnState = func(State) {}
	}
	config.Channels = append([]string(nil), config.Channels...)
	return &Listener{config: config, now: time.Now, sleep: wait.Sleep, answer: answerTimeout}, nil
}

func checkChannels(channels []string) error {
	if len(channels) == 0 {
		return &FieldError{"Channels", "is empty: a listener needs at least one channel"}
	}
	seen := make(map[string]int, len(channels))
	for i, channel := range channels {
		wrong := func(format string, args ...any) error {
			return &FieldError{fmt.Sprintf("Channels[%d]", i), fmt.Sprintf(format, args...)}
		}
		switch {
		case channel == "":
			return wrong("is empty")
		case len(channel) > maxChannelBytes:
			return wrong("has %d bytes: PostgreSQL takes at most %d", len(channel), maxChannelBytes)
		case strings.ContainsRune(channel, 0):
			return wrong("(%q) contains a NUL, which PostgreSQL does not take", channel)
		case !utf8.ValidString(channel):
			return wrong("(%q) is not valid UTF-8", channel)
		}
		if first, twice := seen[channel]; twice {
			return wrong("(%q) is the same as Channels[%d]", channel, first)
		}
		seen[channel] = i
	}
	return nil
}

// Run listens until ctx ends, and returns nil. It reconnects after a lost connection, and
// tries without end. Everything that Run has started has ended when it returns. A listener
// may run again, but not twice at once.
//
// handle gets the batches. It is called on one goroutine, one call at a time, with a context
// that ends with ctx; Run waits for it. It may be slow: meanwhile, notifications are
// collected for the next batch. Those that are left when ctx ends are not delivered. A panic
// in handle is not caught and ends the process, as in any goroutine.
func (l *Listener) Run(ctx context.Context, handle func(ctx context.Context, b Batch)) error {
	if handle == nil {
		return errors.New("a listener needs a function that handles batches")
	}
	if !l.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer l.running.Store(false)

	pending := newQueue(l.config.Buffer)
	consumer, stop := context.WithCancel(ctx)
	consumed := make(chan struct{})
	go func() {
		defer close(consumed)
		pending.consume(consumer, handle)
	}()
	defer func() { // also if OnState or Connect panics
		stop()
		<-consumed
	}()

	waits := retry.ListenBackoff()
	for ctx.Err() == nil {
		lived, err := l.session(ctx, pending)
		if ctx.Err() != nil {
			break
		}
		delay := nextWait(waits, lived)
		l.config.OnState(State{Kind: Lost, Err: err, RetryIn: delay})
		_ = l.sleep(ctx, delay) // the loop ends with ctx
	}
	return nil
}

var errLeft = errors.New("told to connect anew")

// Reconnect drops the present connection, for example because its server still answers but
// is no longer the primary. It returns at once, and does nothing while there is no
// connection.
func (l *Listener) Reconnect() {
	if p := l.present.Load(); p != nil {
		p.leave(errLeft)
	}
}

// Check has the present connection, which may be dead, checked now and not after
// PingInterval. It returns at once, and does nothing while there is no connection.
func (l *Listener) Check() {
	if p := l.present.Load(); p != nil {
		p.check()
	}
}

// nextWait starts over after a connection that has lived longer than the wait. So a server
// that accepts connections and drops them at once is tried less and less often, like one
// that accepts none.
func nextWait(waits backoff.BackOff, lived time.Duration) time.Duration {
	wait := waits.NextBackOff()
	if lived >= wait {
		waits.Reset()
		wait = waits.NextBackOff()
	}
	return min(wait, retry.LongestListen) // jitter is added to the maximum too
}
