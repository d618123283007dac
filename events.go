package gworker

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/eventstream"
)

// DefaultSubscriptionBuffer is the default of SubscriptionConfig.Buffer.
const DefaultSubscriptionBuffer = 1024

// SubscriptionConfig configures a Subscription. The zero value means every event, and a
// buffer for 1024 of them.
type SubscriptionConfig struct {
	// Buffer is how many events wait for the reader before further ones are
	// dropped and counted. 0 or less means 1024.
	Buffer int

	// Types are the wanted types of events, each given by any value of it:
	//
	//	Types: []event.Event{event.JobFailed{}, event.JobPermanentlyFailed{}}
	//
	// Empty means all.
	Types []event.Event

	// Filter, if not nil, returns whether an event of these types is wanted. It is called
	// from many goroutines at once and the worker waits for it, so it should be quick. If
	// it panics, the event is left out, and ObserverPanicked reports it.
	Filter func(event.Event) bool
}

// Subscription is a buffered stream of a worker's events. The worker never waits for its
// reader. Make one with [Worker.Subscribe]. Its methods may be called from any goroutine.
type Subscription struct{ stream *eventstream.Subscription }

// Subscribe returns a new subscription, which gets all later events. It may be called before,
// while and after the worker runs, any number of times; after the worker has stopped, the
// subscription is already closed.
func (w *Worker) Subscribe(config SubscriptionConfig) *Subscription {
	if config.Buffer <= 0 {
		config.Buffer = DefaultSubscriptionBuffer
	}
	return &Subscription{stream: w.events.Subscribe(config.Buffer, config.Types, config.Filter)}
}

// Events returns the channel of events. It is closed after the last one: when Close
// is called, or when the worker has stopped (WorkerStopped is the last event then).
func (s *Subscription) Events() <-chan event.Event { return s.stream.Events() }

// Dropped returns how many events were dropped so far because the buffer was full. If none
// may be missed, use Config.Observers.
func (s *Subscription) Dropped() uint64 { return s.stream.Dropped() }

// Close ends the subscription and closes its channel; what is in the channel can
// still be read. Closing again does nothing.
func (s *Subscription) Close() { s.stream.Close() }

// LogObserver returns the observer that writes events to a log, each at the level and with
// the attributes that docs/events.md gives. Config.Logger installs it; use it for programs
// that log only some events, or to several logs. A nil logger means slog.Default() at the
// time of the call; slog.New(slog.DiscardHandler) writes nothing. If the logger's handler
// panics, the observer panics with the same value; if it ends its goroutine, with an error
// that says so.
func LogObserver(logger *slog.Logger) func(event.Event) {
	log := newEventLog(logger)
	return func(e event.Event) {
		if err := log.observe(e); err != nil {
			value, _ := contain.Cause(err)
			panic(value)
		}
	}
}

// observe writes the line of an event. The error is what the log's handler has done
// instead of returning.
func (l *eventLog) observe(e event.Event) (failure error) {
	level := event.Level(e)
	if !l.enabled(level) {
		return nil // an event whose level is off costs the question for it
	}
	message, attrs := event.Line(e)
	if failure = l.write(context.Background(), level, message, attrs...); failure == nil {
		failure = l.unreported()
	}
	return failure
}

// eventLog writes lines to a slog handler, which is the user's code: whatever its methods do,
// even panic or call runtime.Goexit, the goroutine that writes goes on. The same goes for
// methods of attributes that the handler calls.
//
// Each call of the handler runs on a separate goroutine, which costs a microsecond or two,
// with two exceptions. slog's own handlers are asked directly whether a level is enabled; the
// answers of others are used for askedEvery, since they are needed several times a job.
// gworker's own handlers (contain.Ours) are called directly.
type eventLog struct {
	handler slog.Handler
	ours    bool
	slogs   bool // the handler is one of slog's own

	answers [4]atomic.Int64 // debug to error: when it was asked, and whether it is enabled
	failed  atomic.Pointer[error]
}

// askedEvery is how long the answer of a handler is used.
const askedEvery = 10 * time.Millisecond

// epoch is what answers count from.
var epoch = time.Now().Add(-time.Hour)

func newEventLog(logger *slog.Logger) *eventLog {
	if logger == nil {
		logger = slog.Default()
	}
	l := &eventLog{handler: logger.Handler()}
	switch l.handler.(type) {
	case *slog.JSONHandler, *slog.TextHandler:
		l.slogs = true
	}
	l.ours = contain.IsOurs(l.handler)
	return l
}

// enabled reports whether lines of a level are written. It is true if the handler fails to
// answer; then unreported has what it did.
func (l *eventLog) enabled(level slog.Level) bool {
	if l.ours || l.slogs {
		return l.asked(level)
	}
	place := (level - slog.LevelDebug) / (slog.LevelInfo - slog.LevelDebug)
	answer := &l.answers[min(max(place, 0), slog.Level(len(l.answers)-1))]
	now := time.Since(epoch)
	if known := answer.Load(); known != 0 && now-time.Duration(known>>1) < askedEvery {
		return known&1 != 0
	}
	is, err := l.enabledIn(context.Background(), level)
	l.note(err)
	known := int64(now) << 1
	if is {
		known |= 1
	}
	answer.Store(known)
	return is
}

// asked asks a handler that does not end its goroutine; its level may still panic.
func (l *eventLog) asked(level slog.Level) (is bool) {
	defer func() {
		if value := recover(); value != nil {
			is = true
			l.note(contain.Recovered(value))
		}
	}()
	return l.handler.Enabled(context.Background(), level)
}

func (l *eventLog) note(failure error) {
	if failure != nil {
		l.failed.Store(&failure)
	}
}

// unreported is what the handler has done instead of saying whether a level is enabled;
// it is returned once.
func (l *eventLog) unreported() error {
	if l.failed.Load() == nil {
		return nil
	}
	if failure := l.failed.Swap(nil); failure != nil {
		return *failure
	}
	return nil
}

// enabledIn asks with a context. If the handler fails to answer, the level is enabled.
func (l *eventLog) enabledIn(ctx context.Context, level slog.Level) (is bool, failure error) {
	if failure = contain.Call(func() { is = l.handler.Enabled(ctx, level) }); failure != nil {
		return true, failure
	}
	return is, nil
}

// write writes a line whose level is enabled. Its record has no source position, which would
// always be in this file. The error is what the handler has done instead of returning; what
// it returns is ignored, as slog.Logger does.
//
// The goroutine also keeps stacks out of the log: handlers that add their caller's stack to
// errors (zapslog's does by default, and those of error-reporting services) would add the
// worker's own stack, which does not help the reader.
func (l *eventLog) write(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) error {
	record := slog.NewRecord(time.Now(), level, message, 0)
	for _, attr := range attrs {
		if attr.Key != "" {
			record.AddAttrs(attr)
		}
	}
	if l.ours {
		_ = l.handler.Handle(ctx, record)
		return nil
	}
	return contain.Call(func() { _ = l.handler.Handle(ctx, record) })
}

// withJob returns a logger whose lines name a job.
func withJob(logger *slog.Logger, j *JobRow) *slog.Logger {
	id, task, attempt := namesJob(j)
	return logger.With(id, task, attempt)
}

func namesJob(j *JobRow) (id, task, attempt slog.Attr) {
	return slog.Int64("job_id", j.ID), slog.String("task", j.Task), slog.Int("attempt", j.Attempts)
}
