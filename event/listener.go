package event

import (
	"log/slog"
	"time"
)

// ListenerConnecting reports that the worker opens its connection for notifications.
// Logged at debug.
type ListenerConnecting struct {
	WorkerID string // the worker's id
}

func (ListenerConnecting) level() slog.Level { return slog.LevelDebug }
func (ListenerConnecting) line() (string, []slog.Attr) {
	return "listener connecting", nil
}

// ListenerConnected reports that notifications arrive from now on; earlier ones may have
// been missed. Logged at debug.
type ListenerConnected struct {
	WorkerID string // the worker's id
}

func (ListenerConnected) level() slog.Level { return slog.LevelDebug }
func (e ListenerConnected) line() (string, []slog.Attr) {
	return "listening for new jobs", []slog.Attr{workerAttr(e.WorkerID)}
}

// ListenerLost reports that notifications no longer arrive. The worker polls in the
// meantime. Logged at warn.
type ListenerLost struct {
	WorkerID string        // the worker's id
	Err      error         // how the connection was lost, or why there is none
	RetryIn  time.Duration // when the worker connects again
}

func (ListenerLost) level() slog.Level { return slog.LevelWarn }
func (e ListenerLost) line() (string, []slog.Attr) {
	return "listener lost its connection; polling meanwhile", []slog.Attr{errAttr(e.Err), retryIn(e.RetryIn)}
}

// ListenerPooled reports that the listener's connection leads through a pooler. If that
// pools transactions, no notification arrives, and jobs are found by polling alone. It
// comes once, and only where Config.NoPreparedStatements makes a pooler likely. Logged at
// warn.
type ListenerPooled struct {
	WorkerID string // the worker's id
}

func (ListenerPooled) level() slog.Level { return slog.LevelWarn }
func (ListenerPooled) line() (string, []slog.Attr) {
	return "the listener's connection leads through a pooler: if that pools transactions, no notification arrives, " +
		"and new jobs start when they are polled for; listen past it (ListenDatabaseURL, --listen-database-url) or not at all " +
		"(NoListen, --no-listen)", nil
}

// ListenerReleased reports that the worker shuts down and has closed its connection for
// notifications. Logged at debug.
type ListenerReleased struct {
	WorkerID string // the worker's id
}

func (ListenerReleased) level() slog.Level { return slog.LevelDebug }
func (ListenerReleased) line() (string, []slog.Attr) {
	return "listener closed", nil
}

// NotificationReceived reports that a NOTIFY arrived on one of the worker's channels. Equal
// ones that arrive together are one. It is made only if something may want it. Logged at
// debug.
type NotificationReceived struct {
	WorkerID string // the worker's id
	Channel  string // the channel
	Payload  string // the payload
}

func (NotificationReceived) level() slog.Level { return slog.LevelDebug }
func (e NotificationReceived) line() (string, []slog.Attr) {
	return "notification", []slog.Attr{slog.String("channel", e.Channel), slog.String("payload", e.Payload)}
}
