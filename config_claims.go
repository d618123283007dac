package gworker

import (
	"crypto/sha256"
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

// maxOutcomeDelay bounds the delays of outcomes, far below the 4 hours after which locks
// are reset.
const maxOutcomeDelay = time.Minute

// LocalQueueConfig configures how far a worker claims ahead of its free slots, for jobs that
// are so short that a claim takes longer than they do. Jobs in the local queue are locked:
// other workers cannot start them, jobs that are added later with a better priority run
// after them, and their named queues stay locked. The zero value is off. See
// docs/local-queue.md for when it is worth it.
//
// As in Node's worker, one claim fills the local queue, which is emptied before the next.
type LocalQueueConfig struct {
	// Size is how many jobs a claim takes; with more free slots than that, it takes one
	// for each. 0 means no local queue.
	Size int

	// TTL is how long jobs may wait in the local queue. Then they go back, with their
	// attempt restored, and the next claim is made when a slot is free. 0 means 5
	// minutes.
	TTL time.Duration

	// RefetchDelay makes a worker wait for its next claim after one that found few jobs.
	RefetchDelay RefetchDelayConfig
}

// RefetchDelayConfig saves the database claims that find few jobs, at the cost of latency:
// jobs that are added meanwhile wait.
type RefetchDelayConfig struct {
	// Duration is the time between a claim that found few jobs and the next one, varied
	// at random by up to half of it. It may not exceed Config.PollInterval. 0 means no
	// delay.
	Duration time.Duration

	// Threshold is the greatest number of jobs that counts as few.
	Threshold int

	// MaxAbortThreshold bounds how many jobs have to be announced to end a delay early.
	// The number is random each time, from 1 to this, so that the workers do not all
	// claim at once. 0 means 5 times the Size.
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

// claims fills in what the scheduler has to know about flags, limits, the local queue, delays
// and time.
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

// mostHold bounds HoldTime: while a transaction is open, vacuum removes no row that it might
// still see, and statements that need the row of a held job wait.
const mostHold = 10 * time.Second

// validateHold returns the hold time to use. If jobs cannot be held, the default becomes 0,
// and a time that was given is refused.
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
// held; "" if there is none. A local queue and outcomes that wait keep jobs for longer
// than a transaction may stay open. Recovery.Decide wants to be asked what becomes of jobs
// whose worker has died, and nobody is asked about held ones, which are free at once;
// Recovery.Delay would not apply to them. Poolers of transactions, which need unprepared
// statements, have few sessions to spare.
func (c Config) holdObstacle() string {
	for _, o := range []struct {
		name string
		is   bool
	}{
		{"a local queue", c.LocalQueue.Size > 0},
		{"CompletionDelay", c.CompletionDelay > 0},
		{"FailureDelay", c.FailureDelay > 0},
		{"statements that are not prepared", c.NoPreparedStatements},
		{"Recovery.Decide without Recovery.DecideTasks", c.Recovery.Decide != nil && c.Recovery.DecideTasks == nil},
		{"Recovery.Delay", c.Recovery.Delay > 0},
	} {
		if o.is {
			return o.name
		}
	}
	return ""
}

// neverHeld are the tasks whose runs write to their jobs' rows, and those about whose jobs
// Recovery.Decide is asked.
func (c Config) neverHeld() map[string]bool {
	never := make(map[string]bool)
	for _, task := range c.Tasks {
		if task.locks {
			never[task.identifier] = true
		}
	}
	if c.Recovery.Decide != nil {
		for _, task := range c.Recovery.DecideTasks {
			never[task] = true
		}
	}
	return never
}

// lockedFirst reports whether a job must not start before its lock is written: a job for
// which an outage is better than a second run, or one whose worker has died, since the job
// may have been the reason.
func (c Config) lockedFirst(j *job.Claimed) bool {
	return recovery.Recovered(j.LastError) ||
		slices.ContainsFunc(j.Flags, func(f string) bool { return slices.Contains(c.Recovery.ResilientFlags, f) })
}

// looksFor is the same text for workers that look for the same jobs, so that they can share
// the looking (package fleet), or "" for one that always looks itself: nobody knows of it
// (Recovery.Disabled), it hears of no job (NoListen), or what it looks for is more than a
// text can tell.
func (c Config) looksFor() string {
	if c.Recovery.Disabled || c.NoListen || c.LocalQueue.Size > 0 || c.ForbiddenFlagsFunc != nil || c.Now != nil {
		return ""
	}
	var lists [3][]string
	for _, task := range c.Tasks {
		lists[0] = append(lists[0], task.identifier)
	}
	lists[1], lists[2] = slices.Clone(c.ForbiddenFlags), slices.Clone(c.AcceptedFlags)
	for _, list := range lists {
		slices.Sort(list)
	}
	const rules = "1" // of who looks when: workers that go by others share nothing
	return fmt.Sprintf("%s:%x", rules, sha256.Sum256(fmt.Appendf(nil, "%q", lists)))[:34]
}
