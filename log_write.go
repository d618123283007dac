package gworker

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gworker/gworker/internal/contain"
)

// eventLog writes lines to a slog handler, which is the user's: whatever its methods
// do, also a panic or a runtime.Goexit, the goroutine that writes goes on. Where an
// attribute has a method that is called, that is contained with the handler.
//
// Each call of it is on a goroutine of its own, at about a microsecond, but for two
// cases. slog's own handlers are asked as they are whether a level is enabled; of others
// the answer is used for askedEvery, since it is asked for several times a job. Handlers
// of our own (contain.Ours) are trusted.
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

// enabled reports whether lines of a level are written. They are if the handler cannot
// say: then unreported has what it did.
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

// asked asks a handler that does not end its goroutine. Its level may still panic.
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

// enabledIn asks for a context. Of a handler that cannot say, the level is enabled.
func (l *eventLog) enabledIn(ctx context.Context, level slog.Level) (is bool, failure error) {
	if failure = contain.Call(func() { is = l.handler.Enabled(ctx, level) }); failure != nil {
		return true, failure
	}
	return is, nil
}

// write writes a line whose level is enabled. Its record has no source position:
// that would be one in here, whatever the line is about. The error is what the handler
// has done instead of returning; what it returns is ignored, as slog.Logger does.
//
// The goroutine also keeps stacks out of the log: handlers that add the stack of their
// caller to errors (zapslog's does by default, and those of services that collect
// errors) would add the worker's own, many lines about nothing that the reader wrote.
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
