package scheduler_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

// seen notes the jobs that run.
type seen struct {
	mu  sync.Mutex
	ids []int64
}

func (s *seen) handler(_ context.Context, j *job.Claimed) job.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = append(s.ids, j.ID)
	return job.Outcome{Kind: job.Completed}
}

func (s *seen) sorted() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.ids))
}

// addFlagged adds jobs 1 to 6: without flags (two ways), a, b, a and b, c.
func (f *fixture) addFlagged(t *testing.T) {
	t.Helper()
	f.exec(t, `select graphile_worker.add_job('x', flags => nullif(string_to_array(v, ' '), '{none}'))
		from unnest(array['none', '', 'a', 'b', 'a b', 'c']) v`)
}

// TestFlagsSelectJobs in both ways of claiming.
func TestFlagsSelectJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	ask := func(flags ...string) func(context.Context) ([]string, error) {
		return func(context.Context) ([]string, error) { return flags, nil }
	}
	for name, c := range map[string]struct {
		flags scheduler.Flags
		want  []int64
	}{
		"none":                     {scheduler.Flags{}, []int64{1, 2, 3, 4, 5, 6}},
		"forbidden":                {scheduler.Flags{Forbidden: []string{"a"}}, []int64{1, 2, 4, 6}},
		"asked":                    {scheduler.Flags{Ask: ask("b", "c")}, []int64{1, 2, 3}},
		"asked, none":              {scheduler.Flags{Ask: ask()}, []int64{1, 2, 3, 4, 5, 6}},
		"forbidden and asked":      {scheduler.Flags{Forbidden: []string{"a"}, Ask: ask("c")}, []int64{1, 2, 4}},
		"accepted":                 {scheduler.Flags{Accepted: []string{"a", "c"}}, []int64{3, 5, 6}},
		"forbidden beats accepted": {scheduler.Flags{Forbidden: []string{"b"}, Accepted: []string{"a", "b"}}, []int64{3}},
	} {
		for _, size := range []int{0, 3} {
			var ran seen
			f := newFixture(t, map[string]scheduler.Handler{"x": ran.handler})
			f.config.Flags, f.config.LocalQueue.Size, f.config.LocalQueue.TTL = c.flags, size, patience
			f.addFlagged(t)
			if err := scheduler.New(f.config).RunOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := ran.sorted(); !slices.Equal(got, c.want) {
				t.Errorf("%s, local queue of %d: ran %v, want %v", name, size, got, c.want)
			}
			if n := f.jobs(t); n != 6-len(c.want) {
				t.Errorf("%s, local queue of %d: %d jobs left", name, size, n)
			}
		}
	}
}

// TestNothingIsClaimedWithoutTheFlags: the question fails in each way that it
// can, and then is answered.
func TestNothingIsClaimedWithoutTheFlags(t *testing.T) {
	var asked atomic.Int32
	started := make(chan struct{}, 10)
	f := newFixture(t, map[string]scheduler.Handler{"x": func(context.Context, *job.Claimed) job.Outcome {
		started <- struct{}{}
		return job.Outcome{Kind: job.Completed}
	}})
	f.config.Flags.Ask = func(ctx context.Context) ([]string, error) {
		n := asked.Add(1)
		if n <= 5 && len(started) > 0 {
			t.Error("a job started without the answer")
		}
		switch n {
		case 1:
			return []string{"a"}, errors.New("no answer")
		case 2:
			panic("out of my mind")
		case 3:
			return []string{"a\x00b"}, nil
		case 4:
			return []string{"\xff"}, nil
		}
		return []string{"a"}, nil
	}
	f.addFlagged(t)
	stop := run(t, scheduler.New(f.config))
	for _, want := range []string{"no answer", "out of my mind", "NUL", "UTF-8"} {
		failed := wait[event.ClaimFailed](t, f)
		if text := failed.Err.Error(); !strings.Contains(text, want) || !strings.Contains(text, "flags") {
			t.Errorf("reported %q, want one of %q", text, want)
		}
		if failed.RetryIn <= 0 {
			t.Errorf("asks again at once after %v", failed.Err)
		}
	}
	for range 4 {
		wait[event.JobCompleted](t, f)
		<-started
	}
	stop()
	if n := f.jobs(t); n != 2 {
		t.Errorf("%d jobs left, want the two with the flag", n)
	}
}

func TestRunOnceGivesUpWithoutTheFlags(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"x": completes})
	failure := errors.New("no answer")
	f.config.Flags.Ask = func(context.Context) ([]string, error) { return nil, failure }
	f.addFlagged(t)
	if err := scheduler.New(f.config).RunOnce(t.Context()); !errors.Is(err, failure) {
		t.Errorf("RunOnce: %v", err)
	}
	if n := f.jobs(t); n != 6 {
		t.Errorf("%d jobs left", n)
	}
}

// TestJobThatBecomesForbiddenInTheLocalQueueGoesBack, and does not start.
func TestJobThatBecomesForbiddenInTheLocalQueueGoesBack(t *testing.T) {
	var forbidden atomic.Bool
	var ran seen
	started, finish := make(chan struct{}), make(chan struct{})
	f := newFixture(t, map[string]scheduler.Handler{"first": func(context.Context, *job.Claimed) job.Outcome {
		close(started)
		<-finish
		return job.Outcome{Kind: job.Completed}
	}, "x": ran.handler})
	f.config.Concurrency = 1
	f.config.LocalQueue = scheduler.LocalQueue{Size: 10, TTL: patience}
	f.config.Flags.Ask = func(context.Context) ([]string, error) {
		if forbidden.Load() {
			return []string{"a"}, nil
		}
		return nil, nil
	}
	f.exec(t, "select graphile_worker.add_job('first', priority => -1)")
	f.addFlagged(t)
	stop := run(t, scheduler.New(f.config))
	<-started
	forbidden.Store(true)
	close(finish)
	if back := wait[event.LocalQueueReturned](t, f); !strings.Contains(back.Reason.Error(), `"a"`) || len(back.JobIDs) == 0 {
		t.Errorf("%+v", back)
	}
	for range 4 {
		wait[event.JobCompleted](t, f)
	}
	stop()
	if got := ran.sorted(); !slices.Equal(got, []int64{2, 3, 5, 7}) {
		t.Errorf("ran %v", got)
	}
	f.wantUntouched(t, 2)
}

// wantUntouched wants so many jobs, all as if no worker had ever seen them.
func (f *fixture) wantUntouched(t *testing.T, want int) {
	t.Helper()
	var n, touched int
	err := f.pool.QueryRow(t.Context(), `select count(*), count(*) filter (where attempts > 0 or not is_available
		or locked_at is not null or locked_by is not null or last_error is not null
		or exists (select from graphile_worker._private_job_queues q where q.id = job_queue_id and not q.is_available))
		from graphile_worker._private_jobs`).Scan(&n, &touched)
	if err != nil || n != want || touched != 0 {
		t.Errorf("%d jobs left, want %d; %d of them are not as they were (%v)", n, want, touched, err)
	}
}
