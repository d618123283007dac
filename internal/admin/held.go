package admin

import (
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/job"
)

// Held is what the worker of this process holds by an open transaction, of which
// nothing stands in the rows. Everything that reads jobs shows it as if its locks
// were written. The zero value is nothing.
//
// It has to be made before the statement that it goes with: a job that ends or is
// locked in between is then read as it is, or shown as it was when it was asked
// for. The other way round a job that has just been locked could be shown as free.
type Held struct {
	worker string
	jobs   map[int64]*job.Claimed
	queues map[string]*job.Claimed // the job that each is held for

	// The same as statement arguments.
	ids              []int64
	names            []string
	jobAts, queueAts []pgtype.Timestamptz
}

// NewHeld makes one of the jobs that are held.
func NewHeld(claimed []*job.Claimed) Held {
	if len(claimed) == 0 {
		return Held{}
	}
	h := Held{jobs: make(map[int64]*job.Claimed, len(claimed)), queues: make(map[string]*job.Claimed)}
	for _, c := range claimed {
		h.worker = c.Lock.By
		// A job that went back can be in the next claim before the one that it was
		// in is forgotten.
		if before := h.jobs[c.ID]; before == nil || before.Lock.At.Before(c.Lock.At) {
			h.jobs[c.ID] = c
		}
		if before := h.queues[c.Queue]; c.Queue != "" && (before == nil || before.Lock.At.Before(c.Lock.At)) {
			h.queues[c.Queue] = c
		}
	}
	for id, c := range h.jobs {
		h.ids, h.jobAts = append(h.ids, id), append(h.jobAts, timestamp(c.Lock.At))
	}
	for name, c := range h.queues {
		h.names, h.queueAts = append(h.names, name), append(h.queueAts, timestamp(c.Lock.At))
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

// showUntouched completes a job that a change has left alone. Its statement has
// waited for the lock, does not name the held jobs, and tells the row as it was
// before.
func (h Held) showUntouched(j *Job) {
	if h.jobs[j.ID] != nil && j.LockedAt.IsZero() {
		j.State = job.StateRunning
	}
	h.show(j)
}
