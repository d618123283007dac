package event

import (
	"log/slog"
	"time"

	"github.com/gworker/gworker/internal/logattr"
)

// LocalQueueMode is what a local queue is doing.
type LocalQueueMode uint8

// The modes of a local queue.
const (
	// LocalQueueStarting: the worker has not claimed yet.
	LocalQueueStarting LocalQueueMode = iota
	// LocalQueuePolling: the queue is empty and looks for jobs.
	LocalQueuePolling
	// LocalQueueWaiting: jobs in the queue wait for a free slot; none are claimed.
	LocalQueueWaiting
	// LocalQueueTTLExpired: the jobs in the queue waited for too long and went back; it
	// looks for jobs when a slot is free.
	LocalQueueTTLExpired
	// LocalQueueReleased: the worker stops.
	LocalQueueReleased
)

// String returns the mode as log lines have it, such as "polling".
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

// LocalQueueStarted reports that the worker claims ahead of its slots. Logged at debug.
type LocalQueueStarted struct {
	WorkerID string        // the worker's id
	Size     int           // the most jobs that the queue holds
	TTL      time.Duration // how long a job waits in it before it goes back
}

func (LocalQueueStarted) level() slog.Level { return slog.LevelDebug }
func (e LocalQueueStarted) line() (string, []slog.Attr) {
	return "claiming ahead into a local queue", []slog.Attr{slog.Int("size", e.Size), slog.Duration("ttl", e.TTL)}
}

// LocalQueueModeChanged reports that the local queue does something else from now on.
// Logged at debug.
type LocalQueueModeChanged struct {
	WorkerID string         // the worker's id
	From     LocalQueueMode // the mode before
	To       LocalQueueMode // the mode from now on
}

func (LocalQueueModeChanged) level() slog.Level { return slog.LevelDebug }
func (e LocalQueueModeChanged) line() (string, []slog.Attr) {
	return "local queue changed its mode", []slog.Attr{slog.String("from", e.From.String()), slog.String("to", e.To.String())}
}

// LocalQueueFetched reports that a claim for the local queue ended. Logged at debug.
type LocalQueueFetched struct {
	WorkerID string // the worker's id
	Count    int    // the jobs that it took
	Asked    int    // the most jobs that it could have taken
}

func (LocalQueueFetched) level() slog.Level { return slog.LevelDebug }
func (e LocalQueueFetched) line() (string, []slog.Attr) {
	return "local queue fetched", []slog.Attr{slog.Int("jobs", e.Count), slog.Int("asked", e.Asked)}
}

// LocalQueueReturned reports that jobs that had not started are about to go back to the
// database, with their attempts restored. Logged at info.
type LocalQueueReturned struct {
	WorkerID string  // the worker's id
	JobIDs   []int64 // the jobs
	// Reason is why: they waited for too long, a flag became forbidden, or the worker
	// stops (gworker.ErrShutdown).
	Reason error
}

func (LocalQueueReturned) level() slog.Level { return slog.LevelInfo }
func (e LocalQueueReturned) line() (string, []slog.Attr) {
	return "returning jobs of the local queue", []slog.Attr{logattr.List("job_ids", e.JobIDs), slog.Any("reason", e.Reason)}
}

// RefetchDelayStarted reports that a claim took few jobs, so that the next one waits.
// Logged at debug.
type RefetchDelayStarted struct {
	WorkerID       string        // the worker's id
	Count          int           // the jobs that the claim took
	Threshold      int           // the most jobs that a claim takes for the next one to wait
	Delay          time.Duration // how long the next one waits
	AbortThreshold int           // how many jobs have to be announced to end the wait
}

func (RefetchDelayStarted) level() slog.Level { return slog.LevelDebug }
func (e RefetchDelayStarted) line() (string, []slog.Attr) {
	return "few jobs; waiting before the next claim", []slog.Attr{
		slog.Int("jobs", e.Count), slog.Int("threshold", e.Threshold),
		slog.Duration("delay", e.Delay), slog.Int("abort_threshold", e.AbortThreshold),
	}
}

// RefetchDelayAborted reports that enough jobs were announced to end the wait: the next
// claim comes now. Logged at debug.
type RefetchDelayAborted struct {
	WorkerID       string // the worker's id
	Count          int    // the jobs that were announced
	AbortThreshold int    // how many had to be
}

func (RefetchDelayAborted) level() slog.Level { return slog.LevelDebug }
func (e RefetchDelayAborted) line() (string, []slog.Attr) {
	return "many jobs announced; claiming now", []slog.Attr{slog.Int("announced", e.Count), slog.Int("abort_threshold", e.AbortThreshold)}
}

// RefetchDelayExpired reports that the wait before the next claim is over. Logged at debug.
type RefetchDelayExpired struct {
	WorkerID string // the worker's id
}

func (RefetchDelayExpired) level() slog.Level { return slog.LevelDebug }
func (RefetchDelayExpired) line() (string, []slog.Attr) {
	return "waited long enough before the next claim", nil
}
