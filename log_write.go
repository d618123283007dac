package gworker

import (
	"context"
	"log/slog"
	"time"

	"github.com/gworker/gworker/internal/contain"
)

// eventLog writes lines to a slog handler.
type eventLog struct {
	handler slog.Handler
	stacks  bool // it may add stacks to errors
}

func newEventLog(logger *slog.Logger) eventLog {
	if logger == nil {
		logger = slog.Default()
	}
	l := eventLog{handler: logger.Handler(), stacks: true}
	switch l.handler.(type) {
	case *slog.JSONHandler, *slog.TextHandler:
		l.stacks = false
	}
	return l
}

func (l eventLog) enabled(level slog.Level) bool {
	return l.handler.Enabled(context.Background(), level)
}

// write writes a line whose level is enabled. Its record has no source position:
// that would be one in here, whatever the line is about.
//
// Handlers that add the stack of their caller to errors (zapslog's does by default,
// and those of services that collect errors) would add the worker's own, many lines
// about nothing that the reader wrote. So such lines are handed over on a goroutine
// that has no stack to speak of, unless the handler is one of slog's own.
func (l eventLog) write(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	record := slog.NewRecord(time.Now(), level, message, 0)
	for _, attr := range attrs {
		if attr.Key != "" {
			record.AddAttrs(attr)
		}
	}
	if level < slog.LevelError || !l.stacks {
		_ = l.handler.Handle(ctx, record) // as slog.Logger does
		return
	}
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		_ = l.handler.Handle(ctx, record)
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
}

// withJob returns a logger whose lines name a job.
func withJob(logger *slog.Logger, j *JobRow) *slog.Logger {
	return logger.With(slog.Int64("job_id", j.ID), slog.String("task", j.Task), slog.Int("attempt", j.Attempts))
}

// durationAttr is how long something took, in milliseconds, which every handler
// writes alike.
func durationAttr(d time.Duration) slog.Attr {
	return slog.Float64("duration_ms", float64(d.Round(time.Microsecond))/float64(time.Millisecond))
}

// errAttr is an error; without one it is no attribute.
func errAttr(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	return slog.Any("err", err)
}

// stackAttr is where the panic happened that an error of a handler's came of;
// without one it is no attribute.
func stackAttr(err error) slog.Attr {
	if stack := contain.Stack(err); stack != "" {
		return slog.String("stack", stack)
	}
	return slog.Attr{}
}

// listAttr is a list, which is never null.
func listAttr[T any](key string, values []T) slog.Attr {
	if values == nil {
		values = []T{}
	}
	return slog.Any(key, values)
}
