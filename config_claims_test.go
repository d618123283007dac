package gworker_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
)

// ran notes the payloads of the jobs that run.
type ran struct {
	mu       sync.Mutex
	payloads []int
}

func (r *ran) handle(_ context.Context, job *gworker.Job[int]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.payloads = append(r.payloads, job.Payload)
	return nil
}

func (r *ran) sorted() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(slices.Values(r.payloads))
}

// TestEveryKindOfClaimTogether in a worker as a program makes it: flags of both
// kinds, a limit, the local queue and delays.
func TestEveryKindOfClaimTogether(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	for i, flags := range [][]string{{"eu"}, {"eu", "gpu"}, nil, {"us"}, {"eu", "beta"}, {"eu", "x"}} {
		add(t, client, gworker.JobSpec{Task: "x", Payload: i, Flags: flags, Queue: "q"})
	}
	var r ran
	asked := 0
	e := runOnce(t, gworker.Config{
		Pool: pool, Tasks: []gworker.Task{gworker.NewTask("x", r.handle).With(gworker.TaskOptions{Concurrency: 1})},
		AcceptedFlags: []string{"eu"}, ForbiddenFlags: []string{"gpu"},
		ForbiddenFlagsFunc: func(context.Context) ([]string, error) {
			asked++
			return []string{"beta"}, nil
		},
		LocalQueue:      gworker.LocalQueueConfig{Size: 5, RefetchDelay: gworker.RefetchDelayConfig{Duration: time.Second}},
		CompletionDelay: time.Minute, FailureDelay: time.Minute,
	})
	if got := r.sorted(); !slices.Equal(got, []int{0, 5}) || jobCount(t, pool) != 4 {
		t.Errorf("ran %v, %d jobs left", got, jobCount(t, pool))
	}
	if claims := count[event.LocalQueueFetched](e); asked < claims || claims == 0 {
		t.Errorf("asked for flags %d times for %d claims", asked, claims)
	}
}

// TestWorkerOnItsOwnTime: jobs that its handlers add are due by its clock, and
// so they run in either direction.
func TestWorkerOnItsOwnTime(t *testing.T) {
	for _, years := range []int{-3, 3} {
		pool := migrated(t)
		clock := time.Now().AddDate(years, 0, 0).Truncate(time.Microsecond)
		add(t, newClient(t, pool), gworker.JobSpec{Task: "first", RunAt: clock})
		var r ran
		runOnce(t, gworker.Config{
			Pool: pool, Now: func() time.Time { return clock },
			Tasks: []gworker.Task{
				gworker.NewTask("x", r.handle),
				gworker.NewRawTask("first", func(ctx context.Context, job *gworker.RawJob) error {
					row, err := job.Client().AddJob(ctx, gworker.JobSpec{Task: "x", Payload: 1})
					if err == nil && !row.RunAt.Equal(clock) {
						t.Errorf("due at %s, want the worker's %s", row.RunAt, clock)
					}
					rows, addErr := job.Client().AddJobs(ctx, []gworker.JobSpec{
						{Task: "x", Payload: 2}, {Task: "x", Payload: 3, RunAt: clock.Add(time.Second)},
					})
					if addErr == nil && (!rows[0].RunAt.Equal(clock) || !rows[1].RunAt.Equal(clock.Add(time.Second))) {
						t.Errorf("due at %s and %s", rows[0].RunAt, rows[1].RunAt)
					}
					return errors.Join(err, addErr)
				}),
			},
		})
		if got := r.sorted(); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("%d years away: ran %v", years, got)
		}
	}
}
