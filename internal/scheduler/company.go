package scheduler

import (
	"time"

	"github.com/gworker/gworker/internal/job"
)

// company is how long outcomes wait for others of their kind, for those who want
// fewer statements than the grouping by itself makes: the first of a kind decides
// when all of the kind are written. It is used under the releaser's lock.
type company struct {
	delays map[job.Kind]time.Duration // nil: nothing waits
	due    map[job.Kind]time.Time     // of the kinds that wait
	timer  *time.Timer                // for the next of them
}

func newCompany(completion, failure time.Duration) company {
	c := company{timer: stoppedTimer()}
	for kind, delay := range map[job.Kind]time.Duration{job.Completed: completion, job.Failed: failure} {
		if delay > 0 {
			if c.delays == nil {
				c.delays, c.due = make(map[job.Kind]time.Duration), make(map[job.Kind]time.Time)
			}
			c.delays[kind] = delay
		}
	}
	return c
}

// joined notes an outcome that has begun to wait.
func (c *company) joined(e ended) {
	delay := c.delays[e.outcome.Kind]
	if delay == 0 {
		return
	}
	if _, waits := c.due[e.outcome.Kind]; !waits {
		c.due[e.outcome.Kind] = time.Now().Add(delay)
	}
}

// end makes the kinds of these outcomes due, and reports whether one was not.
func (c *company) end(these []ended) (late bool) {
	if c.delays == nil {
		return false
	}
	now := time.Now()
	for _, e := range these {
		kind := e.outcome.Kind
		if c.delays[kind] > 0 && (c.due[kind].IsZero() || c.due[kind].After(now)) {
			c.due[kind], late = now, true
		}
	}
	return late
}

// part takes what is due out of what waits, and sets the timer for the rest.
func (c *company) part(waiting []ended) (due, rest []ended) {
	if c.delays == nil {
		return waiting, nil
	}
	now := time.Now()
	for _, e := range waiting {
		if at, waits := c.due[e.outcome.Kind]; waits && at.After(now) {
			rest = append(rest, e)
		} else {
			due = append(due, e)
		}
	}
	var next time.Time
	for kind, at := range c.due {
		switch {
		case !at.After(now):
			delete(c.due, kind)
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	if !next.IsZero() {
		c.timer.Reset(next.Sub(now))
	}
	return due, rest
}
