package doctor

import (
	"context"

	"github.com/gworker/gworker/internal/dbgen"
)

// seen is what more than one check wants to know of the queue. It costs walks
// over all jobs, so it is read once, and what failed is not tried again.
type seen struct {
	jobs    memo[dbgen.DoctorJobsRow]
	waiting memo[[]dbgen.DoctorWaitingTasksRow]
	locks   memo[[]dbgen.DoctorLocksRow]
	workers memo[[]dbgen.DoctorWorkersRow]
}

type memo[T any] struct {
	known bool
	value T
	err   error
}

func remember[T any](m *memo[T], read func() (T, error)) (T, error) {
	if !m.known {
		m.value, m.err = read()
		m.known = true
	}
	return m.value, m.err
}

// jobs counts all jobs by what becomes of them.
func (e *exam) jobs(ctx context.Context) (dbgen.DoctorJobsRow, error) {
	return remember(&e.seen.jobs, func() (dbgen.DoctorJobsRow, error) {
		return get(ctx, e, (*dbgen.Queries).DoctorJobs)
	})
}

// waiting are the tasks with jobs that could run now.
func (e *exam) waiting(ctx context.Context) ([]dbgen.DoctorWaitingTasksRow, error) {
	return remember(&e.seen.waiting, func() ([]dbgen.DoctorWaitingTasksRow, error) {
		return get(ctx, e, (*dbgen.Queries).DoctorWaitingTasks)
	})
}

// locks are the holders of locks.
func (e *exam) locks(ctx context.Context) ([]dbgen.DoctorLocksRow, error) {
	return remember(&e.seen.locks, func() ([]dbgen.DoctorLocksRow, error) {
		return get(ctx, e, func(q *dbgen.Queries, ctx context.Context) ([]dbgen.DoctorLocksRow, error) {
			return q.DoctorLocks(ctx, expiredLock.Seconds())
		})
	})
}
