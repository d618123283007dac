package gworker

import (
	"slices"

	"github.com/gworker/gworker/internal/admin"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/store"
)

// A worker with a HoldTime holds jobs by an open transaction, without a lock in their rows.
// The worker's own client shows these jobs as running, and if it changes one, the worker
// ends the transaction at once and not only after the hold time. A client of another
// process, or one that NewClient has made, sees only the rows, and waits.

// holder is what the client of a worker asks about jobs that it holds.
type holder interface {
	Held() []*job.Claimed
	ReleaseEarly(concerns func(*job.Claimed) bool)
}

// held is what the worker holds at this moment.
func (c *operations) held() admin.Held { return c.heldFor(func(*job.Claimed) bool { return true }) }

// heldFor returns the held jobs with a queue, and of the others those that the caller needs.
func (c *operations) heldFor(concerns func(*job.Claimed) bool) admin.Held {
	if c.holder == nil {
		return admin.Held{}
	}
	return admin.NewHeld(slices.DeleteFunc(c.holder.Held(), func(j *job.Claimed) bool {
		return j.Queue == "" && !concerns(j)
	}))
}

// releaseIDs is called before jobs are changed.
func (c *operations) releaseIDs(ids ...int64) {
	if c.holder == nil || len(ids) == 0 {
		return
	}
	named := make(map[int64]bool, len(ids))
	for _, id := range ids {
		named[id] = true
	}
	c.holder.ReleaseEarly(func(j *job.Claimed) bool { return named[j.ID] })
}

// releaseKeys is called before jobs are changed by their keys.
func (c *operations) releaseKeys(specs ...store.Spec) {
	if c.holder == nil {
		return
	}
	named := make(map[string]bool)
	for _, s := range specs {
		if s.Key != "" {
			named[s.Key] = true
		}
	}
	if len(named) > 0 {
		c.holder.ReleaseEarly(func(j *job.Claimed) bool { return j.Key != "" && named[j.Key] })
	}
}
