package scheduler

import "time"

// SetLateAnswer sets how long the answer to a claim may take before the worker makes
// sure of it, and returns what sets it back.
func SetLateAnswer(d time.Duration) (reset func()) {
	before := lateAnswer
	lateAnswer = d
	return func() { lateAnswer = before }
}
