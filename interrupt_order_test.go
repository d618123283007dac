package gworker_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// TestInterruptionsComeBeforeTheEnd: however slowly an observer hears that a run is
// interrupted, and however fast the run ends, nobody is told of its end before.
func TestInterruptionsComeBeforeTheEnd(t *testing.T) {
	var sample testdb.Sample
	for name, interrupt := range map[string]func(*testing.T, *running, int64){
		"cancelled": func(t *testing.T, w *running, id int64) {
			if _, err := w.Client().Cancel(t.Context(), id, "no"); err != nil {
				t.Error(err)
			}
		},
		"shutdown": func(_ *testing.T, w *running, _ int64) { _ = w.stop() },
		"forced": func(_ *testing.T, w *running, _ int64) {
			w.Abandon()
			_ = w.stop()
		},
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			pool := migrated(t)
			job := add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
			ended := make(chan struct{}, 10)
			w := start(t, gworker.Config{Pool: pool, GracefulShutdownAbortTimeout: time.Millisecond, Observers: []func(gworker.Event){
				func(e gworker.Event) {
					switch e.(type) {
					case gworker.JobInterrupted:
						select { // until the end is told, if it is
						case <-ended:
						case <-time.After(100 * time.Millisecond):
						}
					case gworker.JobEnded, gworker.JobPermanentlyFailed, gworker.JobReturned:
						ended <- struct{}{}
					}
				},
			}, Tasks: []gworker.Task{gworker.NewRawTask("x", func(ctx context.Context, _ *gworker.RawJob) error {
				<-ctx.Done()
				return ctx.Err()
			})}})
			waitFor[gworker.JobStarted](t, w.events, nil)
			for !lockIsWritten(t, pool, job.ID) {
				time.Sleep(time.Millisecond)
			}
			interrupt(t, w, job.ID)
			waitFor[gworker.JobEnded](t, w.events, nil)
			if err := w.stop(); err != nil && name != "forced" {
				t.Error(err)
			}
			seen, _ := w.events.snapshot()
			place := func(is func(gworker.Event) bool) int { return slices.IndexFunc(seen, is) }
			interrupted := place(func(e gworker.Event) bool { _, is := e.(gworker.JobInterrupted); return is })
			end := place(func(e gworker.Event) bool {
				switch e.(type) {
				case gworker.JobEnded, gworker.JobPermanentlyFailed, gworker.JobReturned:
					return true
				}
				return false
			})
			if interrupted < 0 || interrupted > end {
				t.Errorf("interrupted is event %d, the end %d", interrupted, end)
			}
		})
	}
}
