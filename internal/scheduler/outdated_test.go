package scheduler

import (
	"context"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// TestHeldJobsDoNotStartLongAfterTheirClaim: the server may have ended the session
// of a process that was stopped, and another worker may have done its jobs.
func TestHeldJobsDoNotStartLongAfterTheirClaim(t *testing.T) {
	ran, nudged := make(chan int64, 3), make(chan struct{}, 1)
	p := newPool(Config{Concurrency: 1, Handlers: map[string]Handler{"x": func(_ context.Context, j *job.Claimed) job.Outcome {
		ran <- j.ID
		return job.Outcome{}
	}}}, newLimits(nil), func(*active, completer.Result) {}, func() { wake(nudged) })
	p.startWithin = time.Minute
	claim := func(since time.Time, ids ...int64) *openClaim {
		g := &openClaim{pool: p, since: since, over: make(chan struct{})}
		for _, id := range ids {
			g.jobs = append(g.jobs, &active{job: &job.Claimed{Row: job.Row{ID: id, Task: "x"}}, claim: g})
		}
		p.ctx = t.Context()
		if !p.takes(g) {
			t.Fatal("the pool takes no jobs")
		}
		return g
	}
	old := claim(time.Now().Add(-2*time.Minute), 2, 3)
	claim(time.Now(), 1)
	p.start(t.Context())
	if id := <-ran; id != 1 {
		t.Errorf("job %d ran, which was claimed too long ago", id)
	}
	<-nudged
	if end := p.beginEnd(old, 0); end.dropped != 2 || len(end.finish)+len(end.spill) != 0 {
		t.Errorf("the end of the old claim has to write %+v", end)
	}
	<-p.close()
}
