package gworker

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/recovery"
	"github.com/gworker/gworker/internal/scheduler"
)

// DefaultLocalQueueTTL is the default of LocalQueueConfig.TTL.
const DefaultLocalQueueTTL = 5 * time.Minute

// maxOutcomeDelay bounds the delays of outcomes, far below the 4 hours after
// which a lock is taken away.
const maxOutcomeDelay = time.Minute

// LocalQueueConfig configures how far a worker claims ahead of its free slots:
// for jobs so short that a claim takes longer than they do. Jobs that wait in the
// local queue are locked, so other workers cannot start them, a job that is added
// with a higher priority runs after them, and they hold their named queues. The
// zero value is off. See docs/local-queue.md for when it is worth it.
//
// As in Node's worker the local queue is filled by one claim and emptied before
// the next.
type LocalQueueConfig struct {
	// Size is how many jobs a claim takes, or as many as there are free slots
	// where that is more. 0 means no local queue.
	Size int

	// TTL is how long jobs may wait in the local queue. Then they go back, with
	// the attempt restored, and the next claim comes when a slot is free. 0
	// means 5 minutes.
	TTL time.Duration

	// RefetchDelay makes a worker that found little wait before it looks again.
	RefetchDelay RefetchDelayConfig
}

// RefetchDelayConfig spares the database claims that find little, at the cost of
// latency: jobs that are added meanwhile wait.
type RefetchDelayConfig struct {
	// Duration is the time between a claim that found little and the next one,
	// at random a half more or less. It may not exceed Config.PollInterval. 0
	// means no delay.
	Duration time.Duration

	// Threshold is what counts as little: so many jobs, or fewer.
	Threshold int

	// MaxAbortThreshold bounds how many jobs have to be announced to end a delay
	// early: each time, a random number from 1 to it, so that the workers of a
	// fleet do not all come at once. 0 means 5 times the Size.
	MaxAbortThreshold int
}

// validateClaims returns the configuration of claims and outcomes with its
// defaults filled in.
func (c Config) validateClaims() (Config, error) {
	for _, flags := range []struct {
		field string
		list  *[]string
	}{{"ForbiddenFlags", &c.ForbiddenFlags}, {"AcceptedFlags", &c.AcceptedFlags}} {
		for _, flag := range *flags.list {
			if err := checkText("Config."+flags.field, flag, math.MaxInt); err != nil {
				return c, err
			}
		}
		*flags.list = slices.Clone(*flags.list)
	}
	for _, delay := range []struct {
		field string
		value time.Duration
	}{{"CompletionDelay", c.CompletionDelay}, {"FailureDelay", c.FailureDelay}} {
		if delay.value < 0 || delay.value > maxOutcomeDelay {
			return c, problem("Config."+delay.field, "is %s: it can be 0 to %s", delay.value, maxOutcomeDelay)
		}
	}
	for i, task := range c.Tasks {
		if most := task.options.Concurrency; most < 0 {
			return c, problem(fmt.Sprintf("Config.Tasks[%d]", i), "(%q) has a Concurrency of %d: it cannot be negative", task.identifier, most)
		}
	}
	var err error
	c.LocalQueue, err = c.LocalQueue.validate(c.PollInterval)
	return c, err
}

func (c LocalQueueConfig) validate(pollInterval time.Duration) (LocalQueueConfig, error) {
	const mostJobs = 100_000
	refetch := &c.RefetchDelay
	switch {
	case c.Size < 0 || c.Size > mostJobs:
		return c, problem("Config.LocalQueue.Size", "is %d: it can be 0, for no local queue, to %d", c.Size, mostJobs)
	case c.Size == 0 && c != LocalQueueConfig{}:
		return c, problem("Config.LocalQueue.Size", "is 0, which means no local queue, and the rest of Config.LocalQueue has no effect")
	case c.TTL < 0:
		return c, problem("Config.LocalQueue.TTL", "is %s: it cannot be negative", c.TTL)
	case refetch.Duration < 0:
		return c, problem("Config.LocalQueue.RefetchDelay.Duration", "is %s: it cannot be negative", refetch.Duration)
	case refetch.Duration > pollInterval:
		return c, problem("Config.LocalQueue.RefetchDelay.Duration", "is %s: it cannot exceed the poll interval of %s",
			refetch.Duration, pollInterval)
	case refetch.Threshold < 0:
		return c, problem("Config.LocalQueue.RefetchDelay.Threshold", "is %d: it cannot be negative", refetch.Threshold)
	case refetch.MaxAbortThreshold < 0:
		return c, problem("Config.LocalQueue.RefetchDelay.MaxAbortThreshold", "is %d: it cannot be negative", refetch.MaxAbortThreshold)
	}
	if c.TTL == 0 {
		c.TTL = DefaultLocalQueueTTL
	}
	if refetch.MaxAbortThreshold == 0 {
		refetch.MaxAbortThreshold = 5 * c.Size
	}
	return c, nil
}

// claims fills in what the scheduler is to know of flags, limits, the local
// queue, delays and time.
func (c Config) claims(s scheduler.Config) scheduler.Config {
	s.Now = c.Now
	s.Flags = scheduler.Flags{Forbidden: c.ForbiddenFlags, Ask: c.ForbiddenFlagsFunc, Accepted: c.AcceptedFlags}
	s.Hold.Time, s.Hold.Never, s.Hold.Lock = *c.HoldTime, c.neverHeld(), c.lockedFirst
	s.CompletionDelay, s.FailureDelay = c.CompletionDelay, c.FailureDelay
	s.TrustLocks = c.Recovery.StaleAfter / 2
	s.LocalQueue = scheduler.LocalQueue{
		Size: c.LocalQueue.Size, TTL: c.LocalQueue.TTL, RefetchDelay: c.LocalQueue.RefetchDelay.Duration,
		Threshold: c.LocalQueue.RefetchDelay.Threshold, MaxAbortThreshold: c.LocalQueue.RefetchDelay.MaxAbortThreshold,
	}
	for _, task := range c.Tasks {
		if most := task.options.Concurrency; most > 0 {
			if s.TaskLimits == nil {
				s.TaskLimits = make(map[string]int)
			}
			s.TaskLimits[task.identifier] = most
		}
	}
	return s
}

// mostHold bounds HoldTime: while a transaction is open, vacuum removes nothing
// that it might still see, and whoever needs the row of a held job waits.
const mostHold = 10 * time.Second

// validateHold returns the hold time to go by. Where jobs cannot be held, the
// default gives way without a word; a time that was asked for does not.
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
