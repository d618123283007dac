// Package history records what happens to jobs in tables of gworker's own, and reads it, in
// these files:
//
//	recorder.go  what a worker notes of each run
//	rows.go      events, written by the transaction that changes the jobs
//	bins.go      durations as counts that can be added up
//	keeper.go    statistics of each minute, and the upkeep of the tables
//	read.go      what the tables say about jobs and tasks
//
// Ends of runs come in; statements go out. Statistics are counted in memory and written once
// a minute: a crash loses a minute of numbers, and never a job.
//
// The one thing not to break: a job does not suffer from its history. What cannot be
// recorded is dropped and counted (event.HistoryDropped), and its outcome is stored.
package history

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/wait"
)

// A Level is how much is recorded of a task.
type Level uint8

// The levels.
const (
	Off      Level = iota // nothing
	Failures              // statistics, and an event for each run that did not complete
)

// End is how a run ended.
type End uint8

// The ends.
const (
	Completed         End = iota
	Failed                // and is tried again
	PermanentlyFailed     // or cancelled
	Returned              // by a shutdown
	Snoozed
	ends
)

// Config is what a recorder goes by.
type Config struct {
	WorkerID string
	// Level is that of tasks that are not in Tasks.
	Level Level
	Tasks map[string]Level
	// Cap is how many events a second are recorded of one task.
	Cap    int
	Events *eventstream.Stream
}

// Recorder notes what a worker's jobs come to. A nil Recorder notes nothing.
type Recorder struct {
	Config

	on      atomic.Bool // the tables are there
	mu      sync.Mutex
	minute  map[string]*counts // since the last Flush
	second  time.Time          // since when taken counts
	taken   map[string]int
	paused  time.Time // until when nothing is recorded after an error
	dropped int       // since it was last told
	cause   error     // of the latest
	told    time.Time
	later   []Run         // to be recorded by the keeper
	noted   chan struct{} // told, without blocking, that there are some
}

// NewRecorder makes a recorder, which is to be told when to Start.
func NewRecorder(c Config) *Recorder { return &Recorder{Config: c, noted: make(chan struct{}, 1)} }

// counts are statistics of a task.
type counts struct {
	ends        [ends]int64
	run, wait   float64 // seconds
	runs, waits [Slots]int64
}

// Start lets it record: nothing is noted before the tables are known to be there.
func (r *Recorder) Start() { r.on.Store(true) }

// level is how much is recorded of a task.
func (r *Recorder) level(task string) Level {
	if level, ok := r.Tasks[task]; ok {
		return level
	}
	return r.Level
}

// Ran counts a run whose end the database has.
func (r *Recorder) Ran(task string, end End, waited, ran time.Duration) {
	if r == nil || !r.on.Load() || r.level(task) == Off {
		return
	}
	wait, run := waited.Seconds(), ran.Seconds()
	waitSlot, runSlot := slot(wait), slot(run)
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.minute[task]
	if c == nil {
		if r.minute == nil {
			r.minute = map[string]*counts{}
		}
		c = &counts{}
		r.minute[task] = c
	}
	c.ends[end]++
	c.run, c.wait = c.run+run, c.wait+wait
	c.runs[runSlot]++
	c.waits[waitSlot]++
}

// mostLater is how many runs wait for the keeper at most.
const mostLater = 1000

// Later has a run recorded by a transaction of its own, for which nobody waits: the worker
// has nothing to write about its job.
func (r *Recorder) Later(run Run) {
	if r == nil || !r.on.Load() || r.level(run.Task) == Off {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.later) == mostLater {
		r.dropped++
		r.cause = errCap
		return
	}
	r.later = append(r.later, run)
	wait.Wake(r.noted)
}

// pauseAfter is for how long nothing is recorded after the tables were found missing or
// locked, or out of this role's reach.
const pauseAfter = 30 * time.Second

// Records reports whether events are recorded at present.
func (r *Recorder) Records() bool {
	if r == nil || !r.on.Load() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().After(r.paused)
}

// takes reports whether an event of the task may be recorded now, and counts it as dropped
// otherwise. The caller holds the lock.
func (r *Recorder) takes(task string, now time.Time) bool {
	if now.Sub(r.second) >= time.Second {
		r.second = now
		clear(r.taken)
	}
	if r.taken == nil {
		r.taken = map[string]int{}
	}
	r.taken[task]++
	switch {
	case now.Before(r.paused):
		r.dropped++
		return false
	case r.taken[task] > r.Cap:
		r.dropped++
		r.cause = errCap
		return false
	}
	return true
}

// Dropped notes events that were not recorded, and leaves history alone for a while.
func (r *Recorder) Dropped(count int, cause error) {
	r.mu.Lock()
	r.dropped += count
	r.cause = cause
	r.paused = time.Now().Add(pauseAfter)
	r.mu.Unlock()
	r.tell(false)
}

// tellEvery is how often dropped events are told of.
const tellEvery = time.Minute

// tell tells of dropped events, not too often but at the end.
func (r *Recorder) tell(last bool) {
	now := time.Now()
	r.mu.Lock()
	dropped, cause := r.dropped, r.cause
	if dropped == 0 || !last && now.Sub(r.told) < tellEvery {
		r.mu.Unlock()
		return
	}
	r.dropped, r.told = 0, now
	r.mu.Unlock()
	r.Events.Emit(event.HistoryDropped{WorkerID: r.WorkerID, Count: dropped, Err: cause})
}
