package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/testdb"
)

// gated is a handler whose runs wait for the test.
type gated struct {
	seen
	started chan int64
	pass    chan struct{}
}

func newGated() *gated {
	return &gated{started: make(chan int64, 1000), pass: make(chan struct{}, 1000)}
}

func (g *gated) handler(ctx context.Context, j *job.Claimed) job.Outcome {
	g.started <- j.ID
	<-g.pass
	return g.seen.handler(ctx, j)
}

// prefetch is a fixture with one slot, and a local queue of 5.
func prefetch(t *testing.T, handler scheduler.Handler) *fixture {
	f := newFixture(t, map[string]scheduler.Handler{"x": handler})
	f.config.Concurrency = 1
	f.config.PollInterval = patience
	f.config.LocalQueue = scheduler.LocalQueue{Size: 5, TTL: patience}
	return f
}

func (f *fixture) locked(t *testing.T) (n int) {
	t.Helper()
	if err := f.pool.QueryRow(t.Context(), "select count(*) from graphile_worker._private_jobs where locked_by = 'gworker_test'").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// waitMode waits until the local queue is in the mode.
func waitMode(t *testing.T, f *fixture, mode event.LocalQueueMode) {
	t.Helper()
	for wait[event.LocalQueueModeChanged](t, f).To != mode {
	}
}

func TestLocalQueueIsFilledByOneClaimAndEmptiedBeforeTheNext(t *testing.T) {
	g := newGated()
	f := prefetch(t, g.handler)
	f.exec(t, "select graphile_worker.add_job('x', priority => -n) from generate_series(1, 12) n")
	stop := run(t, scheduler.New(f.config))
	if e := wait[event.LocalQueueStarted](t, f); e.Size != 5 || e.TTL != patience {
		t.Errorf("%+v", e)
	}
	var want []int64
	for first := int64(12); first > 0; first -= 5 {
		count := min(5, int(first))
		if e := wait[event.LocalQueueFetched](t, f); e.Count != count || e.Asked != 5 {
			t.Errorf("%+v, want %d of 5", e, count)
		}
		for id := first; id > first-int64(count); id-- {
			want = append(want, id)
		}
		waitMode(t, f, event.LocalQueueWaiting) // else the next claim depends on who is faster
		if first == 12 {
			if n := f.locked(t); n != 5 {
				t.Errorf("%d jobs are locked, want one that runs and 4 that wait", n)
			}
		}
		for range count {
			g.pass <- struct{}{}
		}
	}
	// The last claim is made when no job waits, and finds none.
	if e := wait[event.LocalQueueFetched](t, f); e.Count != 0 {
		t.Errorf("%+v", e)
	}
	for f.jobs(t) > 0 {
		wait[event.JobCompleted](t, f)
	}
	stop()
	waitMode(t, f, event.LocalQueueReleased)
	if !slices.Equal(g.ids, want) {
		t.Errorf("ran %v, want %v", g.ids, want)
	}
}

func TestLocalQueueGivesBackWhatWaitsTooLong(t *testing.T) {
	g := newGated()
	f := prefetch(t, g.handler)
	f.config.LocalQueue.TTL = time.Millisecond
	f.exec(t, "select graphile_worker.add_job('x', queue_name => nullif('q' || n, 'q1'), job_key => 'k' || n) from generate_series(1, 5) n")
	s := scheduler.New(f.config)
	stop := run(t, s)
	first := <-g.started
	back := wait[event.LocalQueueReturned](t, f)
	if len(back.JobIDs) != 4 || !errors.Is(back.Reason, scheduler.ErrLocalQueueTTL) || slices.Contains(back.JobIDs, first) {
		t.Errorf("%+v", back)
	}
	waitMode(t, f, event.LocalQueueTTLExpired)
	for deadline := time.Now().Add(patience); f.locked(t) > 1; {
		if time.Now().After(deadline) {
			t.Fatal("the jobs stay locked")
		}
	}
	f.exec(t, "update graphile_worker._private_jobs set updated_at = created_at")
	var touched int
	if err := f.pool.QueryRow(t.Context(), `select count(*) from graphile_worker._private_jobs j
		where id <> $1 and (attempts > 0 or not is_available or key is null or last_error is not null
			or exists (select from graphile_worker._private_job_queues q where q.id = j.job_queue_id and not q.is_available))`,
		first).Scan(&touched); err != nil || touched > 0 {
		t.Errorf("%d jobs are not as they were (%v)", touched, err)
	}
	s.Wake() // a new job does not matter while no slot is free
	g.pass <- struct{}{}
	for ended := false; !ended; {
		switch e := (<-f.events).(type) {
		case event.JobEnded:
			ended = true
		case event.LocalQueueModeChanged, event.LocalQueueFetched:
			t.Errorf("%T %+v before a slot was free", e, e)
		}
	}
	if e := wait[event.LocalQueueModeChanged](t, f); e.From != event.LocalQueueTTLExpired || e.To != event.LocalQueuePolling {
		t.Errorf("%+v", e)
	}
	for range 20 {
		g.pass <- struct{}{}
	}
	for f.jobs(t) > 0 {
		wait[event.JobCompleted](t, f)
	}
	stop()
	if got := g.sorted(); !slices.Equal(got, []int64{1, 2, 3, 4, 5}) {
		t.Errorf("ran %v", got)
	}
}

// TestLocalQueueGoesBackBeforeTheLastJobsEnd when the worker stops.
func TestLocalQueueGoesBackBeforeTheLastJobsEnd(t *testing.T) {
	g := newGated()
	f := prefetch(t, g.handler)
	f.config.CompletionDelay, f.config.FailureDelay = patience, patience // hold up nothing now
	f.exec(t, "select graphile_worker.add_job('x', queue_name => 'q' || n) from generate_series(1, 5) n")
	stop := run(t, scheduler.New(f.config))
	<-g.started
	waitMode(t, f, event.LocalQueueWaiting)
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	if back := wait[event.LocalQueueReturned](t, f); len(back.JobIDs) != 4 || !errors.Is(back.Reason, scheduler.ErrShutdown) {
		t.Errorf("%+v", back)
	}
	for deadline := time.Now().Add(patience); f.locked(t) > 1; {
		if time.Now().After(deadline) {
			t.Fatal("the jobs wait for the one that runs")
		}
	}
	g.pass <- struct{}{}
	<-stopped
	f.wantUntouched(t, 4)
	close(f.events)
	for e := range f.events {
		if _, ok := e.(event.JobReturned); ok {
			t.Errorf("%+v of a job that had not started", e)
		}
	}
}

// TestJobOfTheLocalQueueWhoseLockIsGoneNeverStarts, whichever of the two looks
// finds that it is.
func TestJobOfTheLocalQueueWhoseLockIsGoneNeverStarts(t *testing.T) {
	var sample testdb.Sample
	for name, trust := range map[string]time.Duration{"found by recovery": 0, "found before the start": 1} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			g := newGated()
			f := prefetch(t, g.handler)
			f.config.TrustLocks = trust
			f.exec(t, "select graphile_worker.add_job('x') from generate_series(1, 5)")
			s := scheduler.New(f.config)
			stop := run(t, s)
			<-g.started
			waitMode(t, f, event.LocalQueueWaiting)
			if n := len(s.Running()); n != 5 {
				t.Errorf("recovery looks after %d jobs, want 5", n)
			}
			f.exec(t, "update graphile_worker._private_jobs set locked_by = 'other' where id in (2, 3, 5)")
			if trust == 0 {
				var lost []*job.Claimed
				for _, j := range s.Running() {
					if j.ID == 2 || j.ID == 3 || j.ID == 5 {
						lost = append(lost, j)
					}
				}
				s.Lose(lost, errors.New("gone"))
			}
			for range 5 {
				g.pass <- struct{}{}
			}
			for range 2 {
				wait[event.JobCompleted](t, f)
			}
			stop()
			if got := g.sorted(); !slices.Equal(got, []int64{1, 4}) || f.jobs(t) != 3 {
				t.Errorf("ran %v, %d jobs left", got, f.jobs(t))
			}
		})
	}
}

// TestLostJobsLeaveAnEmptyLocalQueue: when all its jobs are lost, the worker
// looks for others at once.
func TestLostJobsLeaveAnEmptyLocalQueue(t *testing.T) {
	g := newGated()
	f := prefetch(t, g.handler)
	f.exec(t, "select graphile_worker.add_job('x') from generate_series(1, 3)")
	s := scheduler.New(f.config)
	stop := run(t, s)
	<-g.started
	waitMode(t, f, event.LocalQueueWaiting)
	f.exec(t, "update graphile_worker._private_jobs set locked_by = 'other' where id > 1")
	var lost []*job.Claimed
	for _, j := range s.Running() {
		if j.ID > 1 {
			lost = append(lost, j)
		}
	}
	s.Lose(lost, errors.New("gone"))
	waitMode(t, f, event.LocalQueuePolling)
	g.pass <- struct{}{}
	wait[event.JobCompleted](t, f)
	stop()
}

// TestReturnAndClaimWhoseAnswersWereLost: jobs of the local queue go back, and
// are claimed again by the same worker, and it hears of neither.
func TestReturnAndClaimWhoseAnswersWereLost(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, now := range map[string]func() time.Time{
		"database time": nil,
		// Even so, the second claim writes other locks than the first.
		"a clock that stands still": func() time.Time { return time.Date(2222, 2, 2, 2, 2, 2, 2, time.UTC) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGated()
			f := prefetch(t, g.handler)
			f.config.Now = now
			f.config.PollInterval = 10 * time.Millisecond
			f.config.LocalQueue.TTL = time.Millisecond
			f.exec(t, "select graphile_worker.add_job('x', queue_name => 'q' || n) from generate_series(1, 4) n")
			f.db.loseAnswers("ReturnJobs", 2) // the second try comes at once
			s := scheduler.New(f.config)
			stop := run(t, s)
			<-g.started
			wait[event.OutcomesDelayed](t, f)
			delayed := wait[event.OutcomesDelayed](t, f)
			if delayed.Count != 3 {
				t.Errorf("%+v", delayed)
			}
			f.db.loseAnswers("ClaimQueuedJobs", 1) // there are queues
			f.db.loseAnswers("ClaimSelectedJobs", 1)
			g.pass <- struct{}{}
			if recovered := wait[event.LostClaimRecovered](t, f); recovered.Count != 3 {
				t.Errorf("recovered %d jobs, want 3", recovered.Count)
			}
			second := <-g.started
			// The return is sent again now, and names locks that are gone.
			s.DatabaseBack()
			wait[event.JobCompleted](t, f)
			var held int
			if err := f.pool.QueryRow(t.Context(), "select count(*) from graphile_worker._private_jobs where id = $1 and locked_by is not null and attempts = 1",
				second).Scan(&held); err != nil || held != 1 {
				t.Errorf("the job that runs now has lost its lock (%v)", err)
			}
			for range 50 {
				g.pass <- struct{}{}
			}
			for f.jobs(t) > 0 {
				s.DatabaseBack()
				wait[event.JobCompleted](t, f)
			}
			stop()
			if got := g.sorted(); !slices.Equal(got, []int64{1, 2, 3, 4}) {
				t.Errorf("ran %v", got)
			}
		})
	}
}

// TestLocalQueueNeitherLosesNorRepeatsJobs while answers of all statements get
// lost at random, and jobs keep going back.
func TestLocalQueueNeitherLosesNorRepeatsJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, size := range []int{1, 3, 20} {
		t.Run(fmt.Sprintf("local queue of %d", size), func(t *testing.T) {
			const jobs = 120
			var mu sync.Mutex
			runs, queues := map[int64]int{}, map[string]bool{}
			f := newFixture(t, map[string]scheduler.Handler{})
			f.config.Handlers["x"] = func(_ context.Context, j *job.Claimed) job.Outcome {
				mu.Lock()
				runs[j.ID]++
				if j.Queue != "" && queues[j.Queue] {
					t.Errorf("two jobs of %s at once", j.Queue)
				}
				queues[j.Queue] = true
				mu.Unlock()
				time.Sleep(time.Millisecond) // so that TTLs pass
				mu.Lock()
				queues[j.Queue] = false
				mu.Unlock()
				if j.Attempts != 1 {
					t.Errorf("job %d runs as attempt %d", j.ID, j.Attempts)
				}
				return job.Outcome{Kind: job.Completed}
			}
			f.config.Handlers["y"] = f.config.Handlers["x"]
			f.config.TaskLimits = map[string]int{"y": 1}
			f.config.TrustLocks = 2 * time.Millisecond
			f.config.PollInterval = time.Millisecond
			f.config.LocalQueue = scheduler.LocalQueue{Size: size, TTL: 2 * time.Millisecond, RefetchDelay: time.Millisecond, MaxAbortThreshold: 5}
			f.config.Concurrency = 2
			f.db.odds = 0.2
			f.exec(t, `select graphile_worker.add_job((array['x', 'y'])[1 + n % 2], queue_name => case when n % 3 = 0 then 'q' || n % 4 end)
				from generate_series(1, $1) n`, jobs)
			var s *scheduler.Scheduler
			var lost, returned, recovered atomic.Int32
			f.config.Events = eventstream.New(func(e event.Event) {
				switch e := e.(type) {
				case event.OutcomesDelayed:
					s.DatabaseBack() // no need to wait for seconds
					lost.Add(1)
				case event.LocalQueueReturned:
					returned.Add(1)
				case event.LostClaimRecovered:
					recovered.Add(int32(e.Count))
				case event.LocksLost:
					t.Errorf("%+v, although nobody took them", e)
				}
			})
			s = scheduler.New(f.config)
			stop := run(t, s)
			f.drained(t)
			stop()
			mu.Lock()
			defer mu.Unlock()
			ranOnce(t, runs, jobs)
			t.Logf("%d groups of outcomes delayed, jobs returned %d times, %d recovered", lost.Load(), returned.Load(), recovered.Load())
		})
	}
}

func TestRunOnceEndsWithALocalQueue(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, size := range []int{1, 4, 5, 100} {
		var ran seen
		f := newFixture(t, map[string]scheduler.Handler{"x": ran.handler})
		f.config.PollInterval = patience
		f.config.LocalQueue = scheduler.LocalQueue{Size: size, TTL: patience, RefetchDelay: patience, Threshold: 100}
		f.exec(t, "select graphile_worker.add_job('x', queue_name => case when n % 2 = 0 then 'q' end) from generate_series(1, 10) n")
		if err := scheduler.New(f.config).RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := ran.sorted(); !slices.Equal(got, []int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}) {
			t.Errorf("local queue of %d: ran %v", size, got)
		}
	}
}

func TestRefetchDelayEndsEarlyWhenManyJobsAreAnnounced(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"x": completes})
	f.config.PollInterval = patience
	f.config.LocalQueue = scheduler.LocalQueue{Size: 5, TTL: patience, RefetchDelay: patience, Threshold: 2, MaxAbortThreshold: 3}
	s := scheduler.New(f.config)
	stop := run(t, s)
	started := wait[event.RefetchDelayStarted](t, f)
	if started.Count != 0 || started.Threshold != 2 || started.AbortThreshold < 1 || started.AbortThreshold > 3 ||
		started.Delay < patience/2 || started.Delay > 3*patience/2 {
		t.Errorf("%+v", started)
	}
	f.exec(t, "select graphile_worker.add_job('x')")
	s.Wake() // says nothing of how many
	s.Announce(started.AbortThreshold)
	if e := wait[event.RefetchDelayAborted](t, f); e.Count != started.AbortThreshold || e.AbortThreshold != started.AbortThreshold {
		t.Errorf("%+v", e)
	}
	wait[event.JobCompleted](t, f)
	stop()
}

func TestRefetchDelayExpires(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"x": completes})
	f.config.PollInterval = patience
	f.config.LocalQueue = scheduler.LocalQueue{Size: 5, TTL: patience, RefetchDelay: time.Millisecond, MaxAbortThreshold: 1000}
	f.config.Events = eventstream.New(func(e event.Event) {
		if e, ok := e.(event.RefetchDelayStarted); ok && e.Count > 0 {
			t.Errorf("%+v after a claim that took all it asked for", e)
		}
		f.events <- e
	})
	s := scheduler.New(f.config)
	stop := run(t, s)
	wait[event.RefetchDelayExpired](t, f)
	f.exec(t, "select graphile_worker.add_job('x') from generate_series(1, 5)")
	s.Announce(5)
	for range 5 {
		wait[event.JobCompleted](t, f)
	}
	stop()
}
