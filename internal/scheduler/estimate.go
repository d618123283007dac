package scheduler

import (
	"sync/atomic"
	"time"

	"github.com/gworker/gworker/internal/job"
)

// estimates are how long jobs take, from those that have ended: a moving average
// for each task and one over all. The tasks are fixed, so that nothing is locked
// on the way of a job.
type estimates struct {
	tasks map[string]*estimate
	all   estimate

	// These belong to the loop, and are of the jobs that were claimed lately: which
	// part is of slow tasks, and how many bytes a payload has.
	slowShare, payload float64
}

type estimate struct {
	mean atomic.Int64 // nanoseconds; 0: nothing is known
	// never says that jobs of the task shall not be held.
	never atomic.Bool
	waits waits
}

// averaging is the weight of an older value against the newest.
const averaging = 8

// payloadRoom bounds the payloads of the jobs that a claim takes, and of those that wait
// for a slot because it is expected to be free soon. One job may have more.
const payloadRoom = 16 << 20

func newEstimates(c Config) *estimates {
	e := &estimates{tasks: make(map[string]*estimate, len(c.Handlers))}
	for task := range c.Handlers {
		e.tasks[task] = &estimate{}
		e.tasks[task].waits.together.Store(suspectAfter)
		e.tasks[task].never.Store(c.Hold.Never[task])
	}
	return e
}

// ran notes how long a job took. It returns what is known of its task, if it is one of
// this worker's.
func (e *estimates) ran(task string, took time.Duration) *estimate {
	t := e.tasks[task]
	if t != nil {
		t.ran(took)
	}
	e.all.ran(took)
	return t
}

func (e *estimate) ran(took time.Duration) {
	// A value that another job writes meanwhile may be lost: it is an average.
	before, now := e.mean.Load(), max(1, int64(took))
	if before != 0 {
		now = before + (now-before)/averaging
	}
	e.mean.Store(max(1, now))
}

// atLeast raises the average: jobs that are not over yet take longer.
func (e *estimates) atLeast(d time.Duration) {
	if e.all.mean.Load() < int64(d) {
		e.all.mean.Store(int64(d))
	}
}

// slow reports whether the task's jobs are known to take longer than limit, or are
// not to be held for another reason.
func (e *estimate) slow(limit time.Duration) bool {
	return e.never.Load() || e.waits.locked() || time.Duration(e.mean.Load()) > limit
}

// firm reports whether the task's jobs shall not start before everybody can see
// their locks: those that write to their own rows, and those that may.
func (e *estimates) firm(task string) bool {
	t := e.tasks[task]
	return t == nil || t.never.Load() || t.waits.locked() || t.mean.Load() == 0
}

// slowTasks are the slow tasks, and those of which nothing is known yet: a task's
// first job may show that its jobs write to their own rows.
func (e *estimates) slowTasks(limit time.Duration) []string {
	tasks := []string{}
	for name, t := range e.tasks {
		if t.slow(limit) || t.mean.Load() == 0 {
			tasks = append(tasks, name)
		}
	}
	return tasks
}

// neverHold keeps the jobs of a task from being held from now on.
func (e *estimates) neverHold(task string) {
	if t := e.tasks[task]; t != nil {
		t.never.Store(true)
	}
}

// claimed notes that jobs were claimed.
func (e *estimates) claimed(jobs []*job.Claimed, limit time.Duration) {
	for _, j := range jobs {
		value := 0.0
		if t := e.tasks[j.Task]; t != nil && t.slow(limit) {
			value = 1
		}
		e.slowShare += (value - e.slowShare) / averaging
		e.payload += (float64(len(j.Payload)) - e.payload) / averaging
	}
}

// room is how many jobs so many slots work off within d, and have the memory for,
// as far as that is known.
func (e *estimates) room(d time.Duration, slots int) int {
	mean := time.Duration(e.all.mean.Load())
	if mean == 0 {
		return slots
	}
	room := int(d * time.Duration(slots) / mean)
	return min(room, max(slots, int(payloadRoom/max(1, e.payload))))
}
