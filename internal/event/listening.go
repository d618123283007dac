package event

// ListenerConnecting: the worker opens a connection for notifications.
type ListenerConnecting struct{ WorkerID string }

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
func (ListenerReleased) event()     {}
func (NotificationReceived) event() {}
