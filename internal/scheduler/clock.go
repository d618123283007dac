package scheduler

import (
	"sync"
	"time"
)

// clock is what a worker goes by instead of the database's clock.
type clock struct {
	now func() time.Time // nil: the database's

	mu   sync.Mutex
	last time.Time // of the last claim's lock
}

// claim returns the time that run_at is compared with, and the time that a claim
// writes into locked_at. That one is part of what tells one claim from another,
// so it moves on by PostgreSQL's microsecond at least, even where a clock stands
// still or is set back.
func (c *clock) claim() (at, lockAt *time.Time) {
	if c.now == nil {
		return nil, nil
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	lock := now.Truncate(time.Microsecond)
	if !lock.After(c.last) {
		lock = c.last.Add(time.Microsecond)
	}
	c.last = lock
	return &now, &lock
}
