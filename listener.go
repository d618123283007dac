package gworker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/connect"
	"github.com/gworker/gworker/internal/connstring"
	"github.com/gworker/gworker/internal/dial"
	"github.com/gworker/gworker/internal/listener"
	"github.com/gworker/gworker/internal/logattr"
)

// ErrListenerRunning is returned by a Listener's Run that begins while another
// one goes on.
var ErrListenerRunning = listener.ErrRunning

// ListenerConfig configures a Listener. Only Channels must be given.
type ListenerConfig struct {
	// Pool has the configuration of the connection; the caller closes it. The listener's
	// connection is not one of the pool's, but is made like them: with BeforeConnect,
	// AfterConnect, and then, once, PrepareConn or BeforeAcquire. It is kept as long as
	// it works, whatever lifetimes the pool has. nil means DatabaseURL.
	Pool *pgxpool.Pool

	// DatabaseURL is a connection string in URL or keyword form. It must be
	// empty if Pool is given. Empty without a Pool means libpq's PG*
	// environment variables. It must not lead through a transaction-pooling proxy, behind
	// which no notification arrives.
	DatabaseURL string

	// Channels are the names to listen to, 1 to 63 bytes each, unquoted: upper case stays
	// upper case.
	Channels []string

	// OnState is called with each change, in order, on Run's goroutine. It must not
	// block, since nothing is read meanwhile. It may be nil.
	OnState func(ListenerState)

	// Logger gets each change, too: lost connections at warn, the others at debug. nil
	// means slog.Default() at the time of NewListener. For no log, use
	// slog.New(slog.DiscardHandler). If its handler panics, the line is lost.
	Logger *slog.Logger

	// Buffer is how many distinct notifications are kept while the consumer is
	// busy. More are dropped, counted, and reported as a gap. 0 means 1024.
	Buffer int

	// PingInterval is how long the connection may be silent before it is
	// checked. 0 means 30 s.
	PingInterval time.Duration
}

// ListenerBatch is what has arrived since the last batch. If Gap is set,
// notifications may be missing, as after every connection: look at the tables.
type ListenerBatch struct {
	// Notifications are in the order of their first arrival. Those with the same
	// channel and payload are kept once per batch, as PostgreSQL itself does within a
	// transaction.
	Notifications []ListenerNotification

	// Gap says that notifications may be missing. It is set in the first batch of every
	// connection, including the first one, and after the buffer was full. A batch may
	// have a Gap and nothing else.
	Gap bool

	// Dropped counts the notifications that the full buffer had no room for.
	Dropped int
}

// ListenerNotification is one NOTIFY.
type ListenerNotification struct {
	Channel string // the channel
	Payload string // the payload, or ""
}

// ListenerState is a change of what a listener is doing. The end of Run's context is not
// one.
type ListenerState struct {
	// Kind is what the listener is doing now.
	Kind ListenerStateKind
	// Err is why the connection was lost, in ListenerStateLost.
	Err error
	// RetryIn is the wait before the next try, in ListenerStateLost.
	RetryIn time.Duration
}

// ListenerStateKind is what a listener is doing.
type ListenerStateKind uint8

// The kinds of a ListenerState.
const (
	// ListenerStateConnecting: it is opening a connection. Notifications are missed.
	ListenerStateConnecting ListenerStateKind = iota
	// ListenerStateConnected: it is listening to all its channels.
	ListenerStateConnected
	// ListenerStateLost: the connection was lost, or could not be opened.
	ListenerStateLost
)

// String returns the kind's name, such as "connected".
func (k ListenerStateKind) String() string { return listener.StateKind(k).String() }

// Listener is a LISTEN that survives lost connections, for services that want notifications
// without a worker. PostgreSQL stores no notifications for sessions that are not connected; a
// listener says when some may be missing, and a consumer that then reads its tables misses
// nothing.
type Listener struct{ inner *listener.Listener }

// NewListener makes a listener. It does not connect yet. Errors name the field
// of the configuration that cannot be used.
func NewListener(config ListenerConfig) (*Listener, error) {
	l, err := newListener(config)
	if err != nil {
		return nil, fmt.Errorf("making a listener: %w", err)
	}
	return l, nil
}

func newListener(config ListenerConfig) (*Listener, error) {
	connect, err := listenerConnect(config)
	if err != nil {
		return nil, err
	}
	inner, err := listener.New(listener.Config{
		Connect:      connect,
		Channels:     config.Channels,
		OnState:      config.onState(),
		Buffer:       config.Buffer,
		PingInterval: config.PingInterval,
	})
	var field *listener.FieldError
	if errors.As(err, &field) {
		return nil, problem("ListenerConfig."+field.Field, "%s", field.Problem)
	}
	if err != nil {
		return nil, err
	}
	return &Listener{inner: inner}, nil
}

// onState reports changes to the log and OnState.
func (c ListenerConfig) onState() func(listener.State) {
	log, channels := newEventLog(c.Logger), slices.Clone(c.Channels)
	line := func(level slog.Level, message string, attrs ...slog.Attr) {
		if log.enabled(level) {
			attrs = append(attrs, logattr.List("channels", channels))
			_ = log.write(context.Background(), level, message, attrs...) // there is nowhere to report an error
		}
	}
	return func(changed listener.State) {
		s := listenerState(changed)
		switch s.Kind {
		case ListenerStateConnecting:
			line(slog.LevelDebug, "listener connecting")
		case ListenerStateConnected:
			line(slog.LevelDebug, "listener connected")
		case ListenerStateLost:
			line(slog.LevelWarn, "listener lost its connection; trying again", logattr.Err(s.Err), slog.Duration("retry_in", s.RetryIn))
		}
		if c.OnState != nil {
			c.OnState(s)
		}
	}
}

// listenerConnect is how a listener without a pool opens its connection.
func listenerConnect(config ListenerConfig) (func(context.Context) (*pgx.Conn, error), error) {
	if config.Pool != nil {
		if config.DatabaseURL != "" {
			return nil, problem("ListenerConfig.DatabaseURL", "is given as well as ListenerConfig.Pool: give one of them")
		}
		return func(ctx context.Context) (*pgx.Conn, error) {
			return connect.Outside(ctx, &dial.Dialer{}, config.Pool.Config())
		}, nil
	}
	// Parsed as for a pool, so that one connection string serves both.
	parsed, err := connstring.Parse(config.DatabaseURL)
	if err != nil {
		return nil, problem("ListenerConfig.DatabaseURL", "cannot be used: %v", err)
	}
	connect.Prepare(parsed.ConnConfig, true)
	return func(ctx context.Context) (*pgx.Conn, error) {
		return connect.Outside(ctx, &dial.Dialer{}, parsed.Copy())
	}, nil
}

// Run listens until ctx ends, and returns nil, as Worker.Run does. It reconnects after a lost
// connection, with waits that grow from 50 ms to 60 s. Everything that Run has started has
// ended when it returns. A listener may run again, but not twice at once.
//
// handle gets the batches. It is called on one goroutine, one call at a time, with a context
// that ends with ctx; Run waits for it. It may be slow: meanwhile, notifications are
// collected for the next batch, equal ones once. Those that are left when ctx ends are not
// delivered. A panic in handle is not caught.
func (l *Listener) Run(ctx context.Context, handle func(ctx context.Context, batch ListenerBatch)) error {
	return l.inner.Run(ctx, func(ctx context.Context, b listener.Batch) {
		handle(ctx, listenerBatch(b))
	})
}

func listenerBatch(b listener.Batch) ListenerBatch {
	return ListenerBatch{Gap: b.Gap, Dropped: b.Dropped, Notifications: converted(b.Notifications,
		func(n listener.Notification) ListenerNotification { return ListenerNotification(n) })}
}

func listenerState(s listener.State) ListenerState {
	return ListenerState{Kind: ListenerStateKind(s.Kind), Err: s.Err, RetryIn: s.RetryIn}
}
