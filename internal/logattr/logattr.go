// Package logattr makes the attributes that several kinds of log lines have, so that all
// of them write the same thing in the same way. docs/events.md lists the keys.
//
// The one thing not to break: an attribute's value calls no code of the user's that has
// not been contained before; errors are passed as they are, read by internal/contain.
package logattr

import (
	"log/slog"
	"time"

	"github.com/gworker/gworker/internal/contain"
)

// Duration is how long something took, in milliseconds, which every handler
// writes alike.
func Duration(d time.Duration) slog.Attr {
	return slog.Float64("duration_ms", float64(d.Round(time.Microsecond))/float64(time.Millisecond))
}

// Err is an error; without one it is no attribute.
func Err(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	return slog.Any("err", err)
}

// Stack is where the panic happened that an error of a handler's came of;
// without one it is no attribute.
func Stack(err error) slog.Attr {
	if stack := contain.Stack(err); stack != "" {
		return slog.String("stack", stack)
	}
	return slog.Attr{}
}

// List is a list, which is never null.
func List[T any](key string, values []T) slog.Attr {
	if values == nil {
		values = []T{}
	}
	return slog.Any(key, values)
}
