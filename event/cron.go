package event

import (
	"log/slog"
	"time"

	"github.com/gworker/gworker/internal/logattr"
)

// CronStarting reports that cron registers its items and looks for minutes that were
// missed. It comes again after each CronFailed, and when items are added. Logged at debug.
type CronStarting struct {
	WorkerID string    // the worker's id
	Start    time.Time // the time from which cron goes on
	Items    []string  // the identifiers of the items that start
}

func (CronStarting) level() slog.Level { return slog.LevelDebug }
func (e CronStarting) line() (string, []slog.Attr) {
	return "cron starting", []slog.Attr{slog.Time("start", e.Start), logattr.List("items", e.Items)}
}

// CronStarted reports that the jobs of missed minutes are added, as far as the items'
// backfill periods go, and that cron waits for the next minute. Logged at info.
type CronStarted struct {
	WorkerID string    // the worker's id
	Start    time.Time // the time from which cron goes on
	Items    []string  // the identifiers of the items that have started
}

func (CronStarted) level() slog.Level { return slog.LevelInfo }
func (e CronStarted) line() (string, []slog.Attr) {
	return "cron started", []slog.Attr{slog.Time("start", e.Start), logattr.List("items", e.Items)}
}

// CronBackfilled reports that jobs of a missed minute were added. Logged at info.
type CronBackfilled struct {
	WorkerID string    // the worker's id
	Minute   time.Time // the minute that was missed
	Jobs     []CronJob // the jobs that were added
}

func (CronBackfilled) level() slog.Level { return slog.LevelInfo }
func (e CronBackfilled) line() (string, []slog.Attr) {
	return "cron made up for a missed minute", append(cronJobs(e.Jobs), slog.Time("minute", e.Minute))
}

// CronTick reports that items are due: their jobs are about to be added. Logged at debug.
type CronTick struct {
	WorkerID string    // the worker's id
	Minute   time.Time // the minute in which they are due
	Due      []string  // the identifiers of these items
}

func (CronTick) level() slog.Level { return slog.LevelDebug }
func (e CronTick) line() (string, []slog.Attr) {
	return "cron items are due", []slog.Attr{slog.Time("minute", e.Minute), logattr.List("items", e.Due)}
}

// CronScheduled reports that a minute is scheduled. Logged at debug.
type CronScheduled struct {
	WorkerID string    // the worker's id
	Minute   time.Time // the minute
	Due      []string  // the identifiers of the items that were due
	// Jobs are the jobs that this worker added. An item whose job another worker added
	// first is missing.
	Jobs []CronJob
}

func (CronScheduled) level() slog.Level { return slog.LevelDebug }
func (e CronScheduled) line() (string, []slog.Attr) {
	return "cron scheduled", append(cronJobs(e.Jobs), slog.Time("minute", e.Minute), logattr.List("due", e.Due))
}

// CronJob is a job that cron has added.
type CronJob struct {
	Identifier string // the identifier of the cron item
	Task       string // the identifier of the job's task
	JobID      int64  // the job's id
}

func cronJobs(jobs []CronJob) []slog.Attr {
	names, ids := make([]string, len(jobs)), make([]int64, len(jobs))
	for i, j := range jobs {
		names[i], ids[i] = j.Identifier, j.JobID
	}
	return []slog.Attr{logattr.List("items", names), logattr.List("job_ids", ids)}
}

// CronTimerEarly reports that cron woke before the minute that it waited for, for instance
// because a clock was set back. It waits on. Logged at debug.
type CronTimerEarly struct {
	WorkerID string    // the worker's id
	Minute   time.Time // the minute that it waits for
	Now      time.Time // the time when it woke
}

func (CronTimerEarly) level() slog.Level { return slog.LevelDebug }
func (e CronTimerEarly) line() (string, []slog.Attr) {
	return "cron woke too early; waiting on", []slog.Attr{slog.Time("minute", e.Minute), slog.Time("now", e.Now)}
}

// CronTimerLate reports that cron woke so late that minutes have passed. It catches up
// minute by minute. Logged at warn.
type CronTimerLate struct {
	WorkerID string    // the worker's id
	Minute   time.Time // the minute that it waited for, with which it begins
	Now      time.Time // the time when it woke
}

func (CronTimerLate) level() slog.Level { return slog.LevelWarn }
func (e CronTimerLate) line() (string, []slog.Attr) {
	return "cron woke late; catching up", []slog.Attr{slog.Time("minute", e.Minute), slog.Duration("late", e.Now.Sub(e.Minute))}
}

// CronFailed reports that cron could not read or write the database. It starts again.
// Logged at error.
type CronFailed struct {
	WorkerID string        // the worker's id
	Err      error         // why it failed
	RetryIn  time.Duration // when it starts again
}

func (CronFailed) level() slog.Level { return slog.LevelError }
func (e CronFailed) line() (string, []slog.Attr) {
	return "cron failed; starting it again", []slog.Attr{errAttr(e.Err), retryIn(e.RetryIn)}
}

// CronItemFailed reports that the database refused the job of one item for one minute. The
// job is not added, unless the item's backfill adds it at the next start; other items are
// not affected. Logged at error.
type CronItemFailed struct {
	WorkerID   string    // the worker's id
	Identifier string    // the identifier of the item
	Minute     time.Time // the minute
	Err        error     // the database's answer
}

func (CronItemFailed) level() slog.Level { return slog.LevelError }
func (e CronItemFailed) line() (string, []slog.Attr) {
	return "the job of a cron item was refused; its minute is given up",
		[]slog.Attr{slog.String("item", e.Identifier), slog.Time("minute", e.Minute), errAttr(e.Err)}
}
