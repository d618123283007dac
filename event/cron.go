package event

import "time"

// CronStarting: cron looks which of its items are known to the database, and
// what was missed. Start is the time from which it goes on. It comes again after
// each CronFailed, and when items are added.
type CronStarting struct {
	WorkerID string
	Start    time.Time
	// Items are the identifiers of the items that start.
	Items []string
}

// CronStarted: what was missed is made up for, as far as it shall be.
type CronStarted struct {
	WorkerID string
	Start    time.Time
	Items    []string
}

// CronBackfilled: jobs of a missed minute were added.
type CronBackfilled struct {
	WorkerID string
	Minute   time.Time
	Jobs     []CronJob
}

// CronTick: items are due at this minute, and their jobs are about to be added.
// Due are their identifiers.
type CronTick struct {
	WorkerID string
	Minute   time.Time
	Due      []string
}

// CronScheduled: the minute is scheduled. Jobs are those that this worker has
// added; another worker that had an item's minute first has added its job.
type CronScheduled struct {
	WorkerID string
	Minute   time.Time
	Due      []string
	Jobs     []CronJob
}

// CronJob is a job that cron has added.
type CronJob struct {
	Identifier string // of the item
	Task       string
	JobID      int64
}

// CronTimerEarly: cron woke before the minute that it waited for, as happens
// when a clock is set back, and waits on.
type CronTimerEarly struct {
	WorkerID string
	Minute   time.Time
	Now      time.Time
}

// CronTimerLate: cron woke so late that minutes have passed, and catches up
// minute by minute, beginning with Minute.
type CronTimerLate struct {
	WorkerID string
	Minute   time.Time
	Now      time.Time
}

// CronFailed: the database refused or was away; cron starts again after RetryIn.
type CronFailed struct {
	WorkerID string
	Err      error
	RetryIn  time.Duration
}

// CronItemFailed: the database refused an item's job of a minute. The minute is
// given up for this item, as far as its fill does not make up for it at the next
// start; the other items are not concerned.
type CronItemFailed struct {
	WorkerID   string
	Identifier string
	Minute     time.Time
	Err        error
}

func (CronStarting) event()   {}
func (CronStarted) event()    {}
func (CronBackfilled) event() {}
func (CronTick) event()       {}
func (CronScheduled) event()  {}
func (CronTimerEarly) event() {}
func (CronTimerLate) event()  {}
func (CronFailed) event()     {}
func (CronItemFailed) event() {}
