package event

// ListenerPooled: the listener's connection leads through a proxy. If that pools
// transactions, no notification arrives, and jobs are found by polling alone.
type ListenerPooled struct{ WorkerID string }

func (ListenerPooled) event() {}
