package gworker

import (
	"slices"
	"time"

	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/recovery"
)

// mostHold bounds HoldTime: while a transaction is open, vacuum removes nothing
// that it might still see, and whoever needs the row of a held job waits.
const mostHold = 10 * time.Second

// validateHold returns the hold time to go by. Where jobs cannot be held, the
// default gives way without a word; a time that somebody has asked for does not.
func (c Config) validateHold() (*time.Duration, error) {
	obstacle := c.holdObstacle()
	switch {
	case c.HoldTime == nil && obstacle != "":
		return new(time.Duration), nil
	case c.HoldTime == nil:
		return new(DefaultHoldTime), nil
	case *c.HoldTime < 0 || *c.HoldTime > mostHold:
		return nil, problem("Config.HoldTime", "is %s: it can be 0, which is off, to %s", *c.HoldTime, mostHold)
	case *c.HoldTime > 0 && obstacle != "":
		return nil, problem("Config.HoldTime", "is %s, and jobs cannot be held together with %s: give one of them",
			*c.HoldTime, obstacle)
	}
	return new(*c.HoldTime), nil
}

// holdObstacle names the part of the configuration because of which jobs cannot be
// held; "" if there is none. Claims that go by more than the order, outcomes that
// wait and times that are not the database's are parts of locked claims alone.
// Whoever decides what becomes of jobs whose worker has died wants to be asked,
// and nobody is about jobs that are free at once. Poolers of transactions, which
// need unprepared statements, have few sessions to spare.
func (c Config) holdObstacle() string {
	for _, o := range []struct {
		name string
		is   bool
	}{
		{"forbidden flags", len(c.ForbiddenFlags) > 0},
		{"ForbiddenFlagsFunc", c.ForbiddenFlagsFunc != nil},
		{"accepted flags", len(c.AcceptedFlags) > 0},
		{"a local queue", c.LocalQueue.Size > 0},
		{"CompletionDelay", c.CompletionDelay > 0},
		{"FailureDelay", c.FailureDelay > 0},
		{"a clock of the worker's own", c.Now != nil},
		{"statements that are not prepared", c.NoPreparedStatements},
		{"Recovery.Decide", c.Recovery.Decide != nil},
		{"Recovery.Delay", c.Recovery.Delay > 0},
		{"a Concurrency of a task's own", slices.ContainsFunc(c.Tasks, func(t Task) bool { return t.options.Concurrency > 0 })},
	} {
		if o.is {
			return o.name
		}
	}
	return ""
}

// neverHeld are the tasks whose runs write to their jobs' rows.
func (c Config) neverHeld() map[string]bool {
	never := make(map[string]bool)
	for _, task := range c.Tasks {
		if task.locks {
			never[task.identifier] = true
		}
	}
	return never
}

// lockedFirst reports whether a job is not to start before its lock is written:
// one that takes an outage better than a second run, and one whose worker has
// died, as it may have been the reason.
func (c Config) lockedFirst(j *job.Claimed) bool {
	return recovery.Recovered(j.LastError) ||
		slices.ContainsFunc(j.Flags, func(f string) bool { return slices.Contains(c.Recovery.ResilientFlags, f) })
}
