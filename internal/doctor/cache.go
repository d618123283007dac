package doctor

import (
	"context"

	"github.com/gworker/gworker/internal/dbgen"
)

// cache is what more than one check wants to know of the queue. It costs walks
// over all jobs, so it is read once, and what failed is not tried again.
type cache struct {
	jobs    cached[dbgen.DoctorJobsRow]
	waiting cached[[]dbgen.DoctorWaitingTasksRow]
	locks   cached[[]dbgen.DoctorLocksRow]
	workers cached[[]dbgen.DoctorWorkersRow]
}

type cached[T any] struct {
	known bool
	value T
	err   error
}

func remember[T any](m *cached[T], read func() (T, error)) (T, error) {
	if !m.known {
		m.value, m.err = read()
		m.known = true
	}
	return m.value, m.err
}

// jobs counts all jobs by what becomes of them.
func (c *checker) jobs(ctx context.Context) (dbgen.DoctorJobsRow, error) {
	return remember(&c.cache.jobs, func() (dbgen.DoctorJobsRow, error) {
		return get(ctx, c, (*dbgen.Queries).DoctorJobs)
	})
}

// waiting are the tasks with jobs that could run now.
func (c *checker) waiting(ctx context.Context) ([]dbgen.DoctorWaitingTasksRow, error) {
	return remember(&c.cache.waiting, func() ([]dbgen.DoctorWaitingTasksRow, error) {
		return get(ctx, c, (*dbgen.Queries).DoctorWaitingTasks)
	})
}

// locks are the holders of locks.
func (c *checker) locks(ctx context.Context) ([]dbgen.DoctorLocksRow, error) {
	return remember(&c.cache.locks, func() ([]dbgen.DoctorLocksRow, error) {
		return get(ctx, c, func(q *dbgen.Queries, ctx context.Context) ([]dbgen.DoctorLocksRow, error) {
			return q.DoctorLocks(ctx, expiredLock.Seconds())
		})
	})
}
