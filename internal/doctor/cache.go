package doctor

import (
	"context"

	"github.com/gworker/gworker/internal/dbgen"
)

// cache has what several checks need to know about the queue. Reading that means scanning
// all jobs, so it is read once, and not tried again after an error.
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

// jobs counts all jobs by state.
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

// locks are the workers that have locks.
func (c *checker) locks(ctx context.Context) ([]dbgen.DoctorLocksRow, error) {
	return remember(&c.cache.locks, func() ([]dbgen.DoctorLocksRow, error) {
		return get(ctx, c, func(q *dbgen.Queries, ctx context.Context) ([]dbgen.DoctorLocksRow, error) {
			return q.DoctorLocks(ctx, expiredLock.Seconds())
		})
	})
}
