package scheduler_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

func TestOverlappingClaimsLoseNoJobWithTheirAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const jobs = 6000
	var mu sync.Mutex
	runs := make(map[int64]int, jobs)
	f := newFixture(t, map[string]scheduler.Handler{"x": func(_ context.Context, j *job.Claimed) job.Outcome {
		mu.Lock()
		defer mu.Unlock()
		runs[j.ID]++
		if j.Attempts != 1 {
			t.Errorf("job %d runs as attempt %d", j.ID, j.Attempts)
		}
		return job.Outcome{Kind: job.Completed}
	}})
	f.config.PollInterval = time.Millisecond
	f.config.StatementTimeout = 5 * time.Millisecond // how long an answer is missed, and more
	f.exec(t, "select graphile_worker.add_job('x') from generate_series(1, $1)", jobs)
	var s *scheduler.Scheduler
	var underway, most, claims, recovered atomic.Int32
	f.config.Events = eventstream.New(func(e event.Event) {
		switch e := e.(type) {
		case event.ClaimStarted:
			most.Store(max(most.Load(), underway.Add(1)))
			if claims.Add(1)%5 == 0 {
				f.db.loseAnswers("ClaimJobs", 1)
			}
		case event.JobsClaimed, event.ClaimEmpty, event.ClaimFailed:
			underway.Add(-1)
		case event.OutcomesDelayed:
			s.DatabaseBack() // no need to wait for seconds
		case event.LostClaimRecovered:
			recovered.Add(int32(e.Count))
		}
	})
	s = scheduler.New(f.config)
	stop := run(t, s)
	f.drained(t)
	stop()
	mu.Lock()
	defer mu.Unlock()
	ranOnce(t, runs, jobs)
	if most.Load() < 2 || recovered.Load() == 0 {
		t.Errorf("at most %d claims were under way at once, and %d jobs of lost answers were found: nothing is shown",
			most.Load(), recovered.Load())
	}
}

func TestTheEndOfTheWorkerReturnsWhatClaimsUnderWayTake(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const jobs = 3000
	var ran atomic.Int32
	f := newFixture(t, map[string]scheduler.Handler{"x": func(context.Context, *job.Claimed) job.Outcome {
		ran.Add(1)
		return job.Outcome{Kind: job.Completed}
	}})
	f.exec(t, "select graphile_worker.add_job('x') from generate_series(1, $1)", jobs)
	// From the first claim on that goes beyond the slots, answers are kept back.
	var kept atomic.Bool
	reached, answer := make(chan struct{}, jobs), make(chan struct{})
	f.db.answered = func(name string) {
		if name == "ClaimJobs" && kept.Load() {
			reached <- struct{}{}
			<-answer
		}
	}
	f.config.Events = eventstream.New(func(e event.Event) {
		if claimed, ok := e.(event.JobsClaimed); ok && claimed.Count >= 100 {
			kept.Store(true)
		}
		f.events <- e
	})
	s := scheduler.New(f.config)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-reached
	cancel()
	wait[event.WorkerStopping](t, f)
	close(answer)
	if err := <-done; err != nil {
		t.Error(err)
	}
	var free int
	if err := f.pool.QueryRow(t.Context(),
		"select count(*) from graphile_worker._private_jobs where locked_by is null and attempts = 0").Scan(&free); err != nil {
		t.Fatal(err)
	}
	if all := f.jobs(t); all != free || free+int(ran.Load()) != jobs || free == 0 {
		t.Errorf("of %d jobs %d ran, %d are left, %d of them free", jobs, ran.Load(), all, free)
	}
}
