package event

import "time"

// LocalQueueMode is what a local queue is doing.
type LocalQueueMode uint8

const (
	// LocalQueueStarting: the worker has not claimed yet.
	LocalQueueStarting LocalQueueMode = iota
	// LocalQueuePolling: no job waits in it, so it looks for some.
	LocalQueuePolling
	// LocalQueueWaiting: jobs wait in it for a free slot, and none are claimed.
	LocalQueueWaiting
	// LocalQueueTTLExpired: its jobs waited for too long and went back; it
	// looks for jobs when a slot is free.
	LocalQueueTTLExpired
	// LocalQueueReleased: the worker stops.
	LocalQueueReleased
)

func (m LocalQueueMode) String() string {
	switch m {
	case LocalQueueStarting:
		return "starting"
	case LocalQueuePolling:
		return "polling"
	case LocalQueueWaiting:
		return "waiting"
	case LocalQueueTTLExpired:
		return "ttl expired"
	case LocalQueueReleased:
		return "released"
	}
	return "unknown"
}

// LocalQueueStarted: the worker claims ahead of its slots.
type LocalQueueStarted struct {
	WorkerID string
	Size     int
	TTL      time.Duration
}

// LocalQueueModeChanged: the local queue does something else from now on.
type LocalQueueModeChanged struct {
	WorkerID string
	From, To LocalQueueMode
}

// LocalQueueFetched: a claim for the local queue ended. Count is how many jobs
// it took, Asked how many it could have taken.
type LocalQueueFetched struct {
	WorkerID string
	Count    int
	Asked    int
}

// LocalQueueReturned: jobs that had not started are on their way back to the
// queue, with the attempt restored. Reason says why.
type LocalQueueReturned struct {
	WorkerID string
	JobIDs   []int64
	Reason   error
}

// RefetchDelayStarted: a claim took no more jobs than Threshold, so the next one
// waits for Delay, or until AbortThreshold jobs were announced.
type RefetchDelayStarted struct {
	WorkerID       string
	Count          int
	Threshold      int
	Delay          time.Duration
	AbortThreshold int
}

// RefetchDelayAborted: so many jobs were announced that the next claim comes at
// once.
type RefetchDelayAborted struct {
	WorkerID       string
	Count          int
	AbortThreshold int
}

// RefetchDelayExpired: the next claim may come.
type RefetchDelayExpired struct{ WorkerID string }

func (LocalQueueStarted) event()     {}
func (LocalQueueModeChanged) event() {}
func (LocalQueueFetched) event()     {}
func (LocalQueueReturned) event()    {}
func (RefetchDelayStarted) event()   {}
func (RefetchDelayAborted) event()   {}
func (RefetchDelayExpired) event()   {}
