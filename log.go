package gworker

import (
	"context"
	"log/slog"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/contain"
)

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
