package event

import (
	"time"
)

// ListenerConnecting: the worker opens a connection for notifications.
type ListenerConnecting struct{ WorkerID string }

// ListenerConnected: notifications arrive from now on; earlier ones may be
// missed.
type ListenerConnected struct{ WorkerID string }

// ListenerLost: notifications do not arrive; polling goes on.
type ListenerLost struct {
	WorkerID string
	Err      error
	RetryIn  time.Duration
}

// ListenerPooled: the listener's connection leads through a proxy. If that pools
// transactions, no notification arrives, and jobs are found by polling alone.
type ListenerPooled struct{ WorkerID string }

// ListenerReleased: the worker shuts down and has closed its listening
// connection.
type ListenerReleased struct{ WorkerID string }

// NotificationReceived: a NOTIFY arrived on one of the worker's channels. Equal
// ones that arrive together are one.
type NotificationReceived struct {
	WorkerID string
	Channel  string
	Payload  string
}

func (ListenerConnecting) event()   {}
func (ListenerConnected) event()    {}
func (ListenerLost) event()         {}
func (ListenerPooled) event()       {}
func (ListenerReleased) event()     {}
func (NotificationReceived) event() {}
