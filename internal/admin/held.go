package admin

import (
	"time"

	"github.com/gworker/gworker/internal/job"
)

// Held is the jobs and queues that the worker of this process holds by an open transaction,
// without a lock in their rows. Everything that reads jobs shows them as if their locks were
// written. The zero value is empty.
//
// Make it before running the statement that uses it: a job that ends or is locked in between
// is then shown as it is, or as it was at the beginning. In the other order, a job that has
// just been locked could be shown as free.
type Held struct {
	worker string
	jobs   map[int64]*job.Claimed
	queues map[string]*job.Claimed // the job for which each is held

	// The same as statement arguments.
	ids              []int64
	names            []string
	jobAts, queueAts []time.Time
}

// NewHeld makes a Held of the jobs that are held.
func NewHeld(claimed []*job.Claimed) Held {
	if len(claimed) == 0 {
		return Held{}
	}
	h := Held{jobs: make(map[int64]*job.Claimed, len(claimed)), queues: make(map[string]*job.Claimed)}
	for _, c := range claimed {
		h.worker = c.Lock.By
		// A returned job can be in the next claim before its previous claim is
		// forgotten.
		if before := h.jobs[c.ID]; before == nil || before.Lock.At.Before(c.Lock.At) {
			h.jobs[c.ID] = c
		}
		if before := h.queues[c.Queue]; c.Queue != "" && (before == nil || before.Lock.At.Before(c.Lock.At)) {
			h.queues[c.Queue] = c
		}
	}
	for id, c := range h.jobs {
		h.ids, h.jobAts = append(h.ids, id), append(h.jobAts, c.Lock.At)
	}
	for name, c := range h.queues {
		h.names, h.queueAts = append(h.names, name), append(h.queueAts, c.Lock.At)
	}
	return h
}

// show completes a job that was read with Held's arguments.
func (h Held) show(j *Job) {
	if c := h.jobs[j.ID]; c != nil && j.State == job.StateRunning && j.LockedAt.IsZero() {
		j.LockedBy, j.LockedAt, j.Attempts = c.Lock.By, c.Lock.At, c.Lock.Attempt
	}
	if c := h.queues[j.Queue]; c != nil && j.QueueLockedAt.IsZero() {
		j.QueueLockedBy, j.QueueLockedAt = c.Lock.By, c.Lock.At
	}
}

// showUntouched completes a job that a change has not touched. The statement has waited for
// the lock, does not know the held jobs, and returns the row as it was before.
func (h Held) showUntouched(j *Job) {
	if h.jobs[j.ID] != nil && j.LockedAt.IsZero() {
		j.State = job.StateRunning
	}
	h.show(j)
}
