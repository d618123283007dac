// Package admin administers a queue: it reads, counts, changes and deletes jobs, removes
// locks, and cleans up.
//
//	jobs.go     jobs by id or key, and the schema's functions that change them
//	list.go     listings in pages
//	stats.go    counts by state, task and queue, and single queues
//	workers.go  registered workers, their locks, and how to remove these
//	cleanup.go  the three cleanup tasks
//	held.go     what the worker of this process holds without a lock on the rows
//
// Validated arguments come in, rows go out. The one thing not to break: jobs are
// changed only by the schema's own functions, so that every runtime's rule holds (a
// job that has been locked for less than 4 hours is left alone), and each job that was
// not changed is reported with the reason.
//
// Cleanup is the exception, for which the schema has no function. Jobs refer to their
// task and queue without a foreign key, so deleting such a row while a job of it is
// being added would leave a job that no worker ever finds. The rows are therefore
// deleted under a lock that keeps every transaction from adding jobs. One gap remains:
// a transaction at repeatable read or above that took its snapshot before the cleanup
// and adds its first job after it.
//
// Costs are bounded for a queue of a million jobs: single jobs, and pages by id or
// claim order, come from indexes; filters, counts and cleanup scan the table once.
package admin

import (
	"time"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
)

// Job is a job, with what its row alone does not say.
type Job struct {
	job.Row
	// State says whether the job runs, and what it waits for otherwise.
	State job.State `json:"state"`
	// QueueLockedBy is the worker that has locked the job's queue, or "", and
	// QueueLockedAt is when it did. A blocked job waits for that worker.
	QueueLockedBy string    `json:"queue_locked_by,omitempty"`
	QueueLockedAt time.Time `json:"queue_locked_at,omitzero"`
	// ReadAt is the database's time when the job was read.
	ReadAt time.Time `json:"read_at,omitzero"`
}

// jobRow is the row that each statement about jobs returns.
type jobRow dbgen.AdminGetJobsRow

func (r jobRow) job() *Job {
	return &Job{
		Row: job.Row{
			ID: r.ID, Task: r.Task, Queue: r.Queue, Payload: r.Payload,
			Priority: int(r.Priority), RunAt: r.RunAt.Time,
			Attempts: int(r.Attempts), MaxAttempts: int(r.MaxAttempts), LastError: text(r.LastError),
			CreatedAt: r.CreatedAt.Time, UpdatedAt: r.UpdatedAt.Time,
			Key: text(r.Key), Revision: int(r.Revision), Flags: job.FlagNames(r.Flags),
			LockedAt: r.LockedAt.Time, LockedBy: text(r.LockedBy),
		},
		State:         job.State(r.State),
		QueueLockedBy: r.QueueLockedBy,
		QueueLockedAt: r.QueueLockedAt.Time,
		ReadAt:        r.ReadAt,
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// given is a time as an argument, null if it is zero.
func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// array is a slice as an argument that is never null.
func array[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
