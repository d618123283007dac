// Package listener keeps one PostgreSQL session that listens, for as long as it is
// asked to. Channel names and a way to connect come in; batches of notifications go
// out, and states for the code that monitors it.
//
// PostgreSQL keeps nothing for a session that is away, so a listener can only promise
// to say when something may be missing: that is Batch.Gap.
//
// The one thing not to break: between a notification that was sent while no session
// listened, or that did not fit, and the next call of the consumer there is always a
// Gap. A consumer that looks at its tables on every Gap misses nothing.
package listener

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
)

const (
	defaultBuffer       = 1024
	defaultPingInterval = 30 * time.Second

	// PostgreSQL cuts longer identifiers, and then notifications come from a
	// channel of another name.
	maxChannelBytes = 63
)

// ErrRunning is returned by a Run that begins while another one goes on.
var ErrRunning = errors.New("this listener is running already")

// Config configures a Listener.
type Config struct {
	// Connect opens the session that listens. It must respect its context: Run
	// cannot end before it returns. Every connection that it returns is the
	// listener's to close.
	Connect func(ctx context.Context) (*pgx.Conn, error)

	// Channels are the names to listen to, as they are: quoting is done here.
	Channels []string

	// OnState is told of each change, in order, from Run's goroutine. It must
	// not block: nothing is read meanwhile. nil means nobody is told.
	OnState func(State)

	// Buffer is how many distinct notifications are kept while the consumer is
	// busy. 0 means 1024.
	Buffer int

	// PingInterval is how long the connection may be silent before it is
	// checked. 0 means 30 s.
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
	sleep  func(ctx context.Context, d time.Duration)
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
	return &Listener{config: config, now: time.Now, sleep: sleep, answer: answerTimeout}, nil
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

// Run listens until ctx ends and returns nil; a lost connection is opened again for
// as long as that takes. Everything that Run started is over when it
// returns. A listener may run again, but not twice at once.
//
// handle gets what came in. It is called on one goroutine, one call at a time,
// with a context that ends with ctx; Run waits for it. It may take its time:
// meanwhile notifications gather for the next batch. What has gathered when ctx
// ends is no longer delivered. A panic in handle is not caught and ends the
// process as in any goroutine.
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

	waits := newBackoff()
	for ctx.Err() == nil {
		lived, err := l.session(ctx, pending)
		if ctx.Err() != nil {
			break
		}
		wait := nextWait(waits, lived)
		l.config.OnState(State{Kind: Lost, Err: err, RetryIn: wait})
		l.sleep(ctx, wait)
	}
	return nil
}

var errLeft = errors.New("told to connect anew")

// Reconnect gives the present connection up, for a server that still answers but
// is no longer the one to listen to. It returns at once, and does nothing while
// there is no connection.
func (l *Listener) Reconnect() {
	if p := l.present.Load(); p != nil {
		p.leave(errLeft)
	}
}

// Check has the present connection checked now instead of after PingInterval: it may
// lead nowhere. It returns at once, and does nothing while there is no connection.
func (l *Listener) Check() {
	if p := l.present.Load(); p != nil {
		p.check()
	}
}

// newBackoff grows from 50 ms by e, to at most 60 s.
func newBackoff() *backoff.ExponentialBackOff {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = 50 * time.Millisecond
	waits.Multiplier = math.E
	waits.MaxInterval = 60 * time.Second
	waits.RandomizationFactor = 0.3
	waits.Reset()
	return waits
}

// nextWait begins anew after a connection that was good for longer than the
// wait. A server that takes connections and drops them at once is thus asked
// ever less often, as if it took none.
func nextWait(waits *backoff.ExponentialBackOff, lived time.Duration) time.Duration {
	wait := waits.NextBackOff()
	if lived >= wait {
		waits.Reset()
		wait = waits.NextBackOff()
	}
	return min(wait, waits.MaxInterval) // jitter is added to the maximum too
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
