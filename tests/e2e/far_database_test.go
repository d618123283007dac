package e2e_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testproxy"
)

// TestJobsWaitWhileClaimsTravel: where claims take a part of the time that jobs do, more jobs
// are claimed than there are slots, so that a slot that ends a job finds the next one.
func TestJobsWaitWhileClaimsTravel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		took time.Duration // longer than jobs that are claimed ahead, or held, however near the database is
		hold *time.Duration
	}{
		{"locked", 30 * time.Millisecond, new(time.Duration)},
		{"too long to be held", 60 * time.Millisecond, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := testdb.Migrated(t)
			exec(t, testdb.Pool(t, url), "select graphile_worker.add_job('x') from generate_series(1, 5000)")
			proxy, through := testproxy.Start(t, url)
			proxy.Delay(10 * time.Millisecond)
			var claimed, started, ended, found atomic.Int64
			const learning, looked = 20, 120 // ends
			enough := make(chan struct{})
			start(t, gworker.Config{
				DatabaseURL: through, Concurrency: 2, HoldTime: c.hold,
				Tasks: []gworker.Task{gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error {
					time.Sleep(c.took)
					return nil
				})},
				Observers: []func(event.Event){func(e event.Event) {
					switch e := e.(type) {
					case event.JobsClaimed:
						claimed.Add(int64(e.Count))
					case event.JobStarted:
						started.Add(1)
					case event.JobEnded:
						n := ended.Add(1)
						if n > learning && claimed.Load() > started.Load() {
							found.Add(1)
						}
						if n == learning+looked {
							close(enough)
						}
					}
				}},
			})
			select {
			case <-enough:
			case <-time.After(patience):
				t.Fatalf("only %d jobs have ended", ended.Load())
			}
			if n := found.Load(); n < looked/2 {
				t.Errorf("%d of %d jobs that ended left their slot to one that waited", n, looked)
			}
		})
	}
}
