package history

import "time"

// Interval is the time of one row of statistics.
type Interval string

// The intervals. They begin at full minutes and hours, and at midnight, in UTC.
const (
	Whole  Interval = ""       // the whole time in one row
	Minute Interval = "minute" // a row for each minute
	Hour   Interval = "hour"   // a row for each hour
	Day    Interval = "day"    // a row for each day
)

// StatsOptions say which statistics are read.
type StatsOptions struct {
	// Since is the beginning. The zero time means 24 hours ago. A time longer than 26 hours,
	// and one that is parted, begins at a full hour, and one longer than 60 days at a full
	// day.
	Since time.Time
	// Until is the end. The zero time means now.
	Until time.Time
	// Tasks are the tasks; none means all.
	Tasks []string
	// By parts the time. The zero value does not.
	By Interval
}

// TaskStats are statistics of one task in some time, of all workers. They are written once
// a minute, so those of the last one are missing.
type TaskStats struct {
	// Task is the task's identifier.
	Task string `json:"task_identifier"`
	// Since is the beginning of that time.
	Since time.Time `json:"since"`
	// Completed, Failed, PermanentlyFailed, Returned and Snoozed count runs by their
	// ends. Failed ones were tried again. Cancelled runs are among those that
	// PermanentlyFailed counts, and shutdowns make Returned ones.
	Completed         int64 `json:"completed"`
	Failed            int64 `json:"failed"`             // see Completed
	PermanentlyFailed int64 `json:"permanently_failed"` // see Completed
	Returned          int64 `json:"returned"`           // see Completed
	Snoozed           int64 `json:"snoozed"`            // see Completed
	// Ran is how long runs took, and Waited how long jobs could have run before.
	Ran    Durations `json:"ran"`
	Waited Durations `json:"waited"` // see Ran
}

// Total is the number of runs.
func (s TaskStats) Total() int64 {
	return s.Completed + s.Failed + s.PermanentlyFailed + s.Returned + s.Snoozed
}

// Durations are what is known of many durations. Percentiles are interpolated, and wrong
// by a factor of the square root of 2 at most.
type Durations struct {
	Mean time.Duration `json:"mean_ns"` // the mean
	P50  time.Duration `json:"p50_ns"`  // what half of them do not exceed
	P90  time.Duration `json:"p90_ns"`  // what 90 % of them do not exceed
	P99  time.Duration `json:"p99_ns"`  // what 99 % of them do not exceed
}
