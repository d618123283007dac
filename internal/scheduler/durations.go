package scheduler

import (
	"sync/atomic"
	"time"

	"github.com/gworker/gworker/internal/job"
)

// durations are how long jobs take, from those that have ended: a moving average
// for each task and one over all. The tasks are fixed, so that nothing is locked
// on the way of a job.
type durations struct {
	tasks map[string]*taskDuration
	all   allDuration

	// These belong to the loop, and are of the jobs that were claimed lately: which
	// part is of slow tasks, and how many bytes a payload has.
	slowShare, payload float64
}

type taskDuration struct {
	mean atomic.Int64 // nanoseconds; 0: nothing is known
	// never says that jobs of the task shall not be held.
	never atomic.Bool
	waits waits
}

// allDuration is how long a job typically takes, of whatever task: a moving average in which
// no job counts for more than typicalAtMost times of it. Few long jobs among many short ones so
// hardly matter; that they keep slots busy is seen by the slots (pool.stuck).
type allDuration struct {
	mean atomic.Int64 // nanoseconds; 0: nothing is known
}

const typicalAtMost = 4

// averaging is the weight of an older value against the newest.
const averaging = 8

// payloadCapacity bounds the payloads of the jobs that a claim takes, and of those that wait
// for a slot because it is expected to be free soon. One job may have more.
const payloadCapacity = 16 << 20

func newDurations(c Config) *durations {
	d := &durations{tasks: make(map[string]*taskDuration, len(c.Handlers))}
	for task := range c.Handlers {
		d.tasks[task] = &taskDuration{}
		d.tasks[task].waits.together.Store(suspectAfter)
		d.tasks[task].never.Store(c.Hold.Never[task])
	}
	return d
}

// ran notes how long a job took. It returns what is known of its task, if it is one of
// this worker's.
func (d *durations) ran(task string, took time.Duration) *taskDuration {
	t := d.tasks[task]
	if t != nil {
		t.ran(took)
	}
	d.all.ran(took)
	return t
}

func (d *taskDuration) ran(took time.Duration) {
	// A value that another job writes meanwhile may be lost: it is an average.
	before, now := d.mean.Load(), max(1, int64(took))
	if before != 0 {
		now = before + (now-before)/averaging
	}
	d.mean.Store(max(1, now))
}

func (d *allDuration) ran(took time.Duration) {
	before, now := d.mean.Load(), int64(took)
	if before != 0 {
		now = before + (min(now, typicalAtMost*before)-before)/averaging
	}
	d.mean.Store(max(1, now))
}

// tooLong is how long a job has run that is no typical one: who knows when it will end. It is
// longer than a busy machine keeps a short one waiting.
func (d *durations) tooLong() time.Duration {
	return max(leastTooLong, typicalAtMost*time.Duration(d.all.mean.Load()))
}

const leastTooLong = 10 * time.Millisecond

// slow reports whether the task's jobs are known to take longer than limit, or are
// not to be held for another reason.
func (d *taskDuration) slow(limit time.Duration) bool {
	return d.never.Load() || d.waits.locked() || time.Duration(d.mean.Load()) > limit
}

// lockFirst reports whether the task's jobs shall not start before everybody can see
// their locks: those that write to their own rows, and those that may.
func (d *durations) lockFirst(task string) bool {
	t := d.tasks[task]
	return t == nil || t.never.Load() || t.waits.locked() || t.mean.Load() == 0
}

// slowTasks are the slow tasks, and those of which nothing is known yet: a task's
// first job may show that its jobs write to their own rows.
func (d *durations) slowTasks(limit time.Duration) []string {
	tasks := []string{}
	for name, t := range d.tasks {
		if t.slow(limit) || t.mean.Load() == 0 {
			tasks = append(tasks, name)
		}
	}
	return tasks
}

// neverHold keeps the jobs of a task from being held from now on.
func (d *durations) neverHold(task string) {
	if t := d.tasks[task]; t != nil {
		t.never.Store(true)
	}
}

// claimed notes that jobs were claimed.
func (d *durations) claimed(jobs []*job.Claimed, limit time.Duration) {
	for _, j := range jobs {
		value := 0.0
		if t := d.tasks[j.Task]; t != nil && t.slow(limit) {
			value = 1
		}
		d.slowShare += (value - d.slowShare) / averaging
		d.payload += (float64(len(j.Payload)) - d.payload) / averaging
	}
}

// capacity is how many jobs so many slots work off within that time, and have the memory for,
// as far as that is known.
func (d *durations) capacity(within time.Duration, slots int) int {
	mean := time.Duration(d.all.mean.Load())
	if mean == 0 {
		return slots
	}
	return d.fitting(int(within*time.Duration(slots)/mean), slots)
}

// finished is how many jobs so many busy slots finish within that time, rounded; 0 if
// nothing is known.
func (d *durations) finished(within time.Duration, slots int) int {
	mean := time.Duration(d.all.mean.Load())
	if mean == 0 {
		return 0
	}
	return int((within*time.Duration(slots) + mean/2) / mean)
}

// fitting is that many jobs, or as many as there is memory for; at least one a slot.
func (d *durations) fitting(jobs, slots int) int {
	return min(jobs, max(slots, int(payloadCapacity/max(1, d.payload))))
}
