package scheduler_test

import (
	"slices"
	"testing"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/scheduler"
)

// selectJobs runs the selective claim and returns the ids, in its order.
func (f *fixture) selectJobs(t *testing.T, p dbgen.ClaimSelectedJobsParams) (ids []int64, more bool) {
	t.Helper()
	p.WorkerID = "someone"
	p.ForbiddenFlags, p.AcceptedFlags = []string{}, []string{}
	p.At, p.LockAt = nil, nil
	rows, err := dbgen.New(f.config.Database).ClaimSelectedJobs(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		ids, more = append(ids, row.ID), row.More
	}
	return ids, more
}

// TestSelectiveClaim looks at single claims: what they take, in which order, and
// whether they say that there may be more.
func TestSelectiveClaim(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, c := range map[string]struct {
		jobs  string // task, queue, priority
		tasks []string
		rooms map[string]int32
		max   int32
		want  []int64
		more  bool
	}{
		"limited tasks are merged in order": {
			"('x', null, 1), ('a', null, 2), ('x', null, 3), ('a', null, 4), ('a', null, 0)",
			[]string{"x"}, map[string]int32{"a": 2}, 10, []int64{5, 1, 2, 3}, false,
		},
		"a limit does not shrink the claim": {
			"('a', null, 0), ('a', null, 0), ('a', null, 0), ('x', null, 1), ('x', null, 1), ('x', null, 1)",
			[]string{"x"}, map[string]int32{"a": 1}, 3, []int64{1, 4, 5}, true,
		},
		"a task that was not given room is left alone": {
			"('a', null, 0), ('x', null, 1)",
			[]string{"x"}, nil, 3, []int64{2}, false,
		},
		"only limited tasks": {
			"('a', null, 1), ('b', null, 0), ('b', null, 0)",
			[]string{}, map[string]int32{"a": 3, "b": 1}, 3, []int64{2, 1}, false,
		},
		"one of a queue, whichever walk found it": {
			"('x', 'q', 1), ('a', 'q', 0), ('x', 'r', 0), ('a', 'r', 1)",
			[]string{"x"}, map[string]int32{"a": 5}, 9, []int64{2, 3}, true,
		},
		// The plain walk ends with the second of q, before job 3 that comes
		// before job 4.
		"the order holds where a walk ends with a second of a queue": {
			"('x', 'q', 0), ('x', 'q', 1), ('x', null, 2), ('a', null, 3)",
			[]string{"x"}, map[string]int32{"a": 1}, 2, []int64{1}, true,
		},
		"the same, of a limited walk": {
			"('a', 'q', 0), ('a', 'q', 1), ('a', null, 2), ('x', null, 3)",
			[]string{"x"}, map[string]int32{"a": 2}, 2, []int64{1}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, map[string]scheduler.Handler{"x": completes})
			f.exec(t, "select graphile_worker.add_job(t, queue_name => q, priority => p) from (values "+c.jobs+") v (t, q, p)")
			p := dbgen.ClaimSelectedJobsParams{Tasks: c.tasks, MaxJobs: c.max, MaxBytes: 1 << 40, LimitedTasks: []string{}, Rooms: []int32{}}
			for task, room := range c.rooms {
				p.LimitedTasks, p.Rooms = append(p.LimitedTasks, task), append(p.Rooms, room)
			}
			got, more := f.selectJobs(t, p)
			if !slices.Equal(got, c.want) || more != c.more {
				t.Errorf("took %v, more %t; want %v, more %t", got, more, c.want, c.more)
			}
			var locked int
			err := f.pool.QueryRow(t.Context(), `select count(*) from graphile_worker._private_job_queues q
				where (q.locked_by is not null) is distinct from exists (
					select from graphile_worker._private_jobs j where j.job_queue_id = q.id and j.locked_by is not null)`).Scan(&locked)
			if err != nil || locked != 0 {
				t.Errorf("%d queues are not locked as their jobs are (%v)", locked, err)
			}
		})
	}
}
