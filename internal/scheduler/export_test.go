package scheduler

import (
	"time"
)

// SetLateAnswer sets how long the answer to a claim may take before the worker makes
// sure of it, and returns what sets it back.
func SetLateAnswer(d time.Duration) (reset func()) {
	before := lateAnswer
	lateAnswer = d
	return func() { lateAnswer = before }
}

// Ran notes that a job of the task took so long.
func (s *Scheduler) Ran(task string, took time.Duration) { s.durations.tasks[task].ran(took) }

// SetFirstConnect sets how long claims wait for the first connection that holds jobs,
// and returns what sets it back.
func SetFirstConnect(d time.Duration) (reset func()) {
	before := firstConnect
	firstConnect = d
	return func() { firstConnect = before }
}

// Guarded reports whether something is known that may refuse what held claims write.
func (s *Scheduler) Guarded() bool { return s.holds.guarded.Load() }
