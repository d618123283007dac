// Package history has what gworker records about jobs: events, statistics, and how much is
// recorded. The records stand in tables next to the queue's own, which Node's and Rust's
// workers do not see; gworker.Client reads them with JobHistory, Events and TaskStats.
//
//	event.go  what happened to a job, or by an administrator
//	stats.go  how many jobs of a task ended how, and how long they waited and ran
//
// The page docs/history.md says what is kept for how long, and what that costs.
package history

import "time"

// Level is how much is recorded. The zero value is the default where it stands: of
// gworker.Config that is Failures, and of gworker.TaskOptions it is the worker's.
type Level string

// The levels.
const (
	// Off records nothing.
	Off Level = "off"
	// Failures records statistics of all jobs, and an event for each run that did not
	// complete.
	Failures Level = "failures"
)

// The defaults of Retention.
const (
	DefaultEvents  = 7 * 24 * time.Hour  // the default of Events
	DefaultMinutes = 2 * 24 * time.Hour  // the default of Minutes
	DefaultHours   = 90 * 24 * time.Hour // the default of Hours
)

// Retention is how long records are kept; any worker of the queue drops older ones. Zero
// values are the defaults. Statistics of whole days are kept until history is uninstalled.
type Retention struct {
	// Events is how long events are kept, in whole days: at least one day. 0 means 7
	// days.
	Events time.Duration
	// Minutes is how long statistics of each minute and worker are kept, at least 2
	// hours. 0 means 2 days.
	Minutes time.Duration
	// Hours is how long statistics of each hour are kept, at least 2 days. 0 means 90
	// days.
	Hours time.Duration
}
