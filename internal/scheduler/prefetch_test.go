package scheduler_test

import (
	"context"
	"sync"
	"testing"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

// aheadFixture is a fixture whose scheduler has one slot, and claims 300 quick jobs, one
// that blocks, and 30 behind it.
type aheadFixture struct {
	*fixture
	blocked chan struct{} // told when the job that blocks runs
	free    chan struct{} // closed to let it end

	mu  sync.Mutex
	ran map[string]int
}

func newPrefetch(t *testing.T) *aheadFixture {
	a := &aheadFixture{blocked: make(chan struct{}, 1), free: make(chan struct{}), ran: map[string]int{}}
	a.fixture = newFixture(t, map[string]scheduler.Handler{"t": func(_ context.Context, j *job.Claimed) job.Outcome {
		kind := string(j.Payload)
		if kind == `"blocks"` {
			a.blocked <- struct{}{}
			<-a.free
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.ran[kind]++
		return job.Outcome{Kind: job.Completed}
	}})
	a.config.Concurrency = 1
	a.exec(t, `select graphile_worker.add_job('t', '"quick"') from generate_series(1, 300)`)
	a.exec(t, `select graphile_worker.add_job('t', '"blocks"', priority => 1)`)
	a.exec(t, `select graphile_worker.add_job('t', '"behind"', priority => 2) from generate_series(1, 30)`)
	return a
}

// claimed waits for a claim that goes beyond the slots.
func (a *aheadFixture) claimed(t *testing.T) {
	t.Helper()
	for wait[event.JobsClaimed](t, a.fixture).Count < 100 {
	}
}

func (a *aheadFixture) runs(kind string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ran[kind]
}

func TestWhatWasClaimedAheadGoesBackIfTheSlotsAreTaken(t *testing.T) {
	a := newPrefetch(t)
	stop := run(t, scheduler.New(a.config))
	defer stop()
	a.claimed(t)
	<-a.blocked

	other := a.config
	other.WorkerID = "gworker_other"
	events := make(chan event.Event, 10_000)
	other.Events = eventstream.New(func(e event.Event) { events <- e })
	stopOther := run(t, scheduler.New(other))
	defer stopOther()
	for range 30 {
		e := wait[event.JobCompleted](t, &fixture{events: events})
		if e.Job.Attempts != 1 {
			t.Errorf("the other worker ran a job in attempt %d", e.Job.Attempts)
		}
	}
	close(a.free)
	stopOther()
	stop()
	if n, behind := a.jobs(t), a.runs(`"behind"`); n != 0 || behind != 30 {
		t.Errorf("%d jobs are left, and %d of those behind ran", n, behind)
	}
}

func TestWhatWasClaimedAheadAndLostDoesNotStart(t *testing.T) {
	a := newPrefetch(t)
	s := scheduler.New(a.config)
	stop := run(t, s)
	defer stop()
	a.claimed(t)
	<-a.blocked
	a.exec(t, `update graphile_worker._private_jobs set locked_by = 'other', locked_at = now() where payload::text = '"behind"'`)
	var lost []*job.Claimed
	for _, j := range s.Locked() {
		if string(j.Payload) == `"behind"` {
			lost = append(lost, j)
		}
	}
	s.Lose(lost, job.ErrLost)
	close(a.free)
	stop()
	if n, behind := a.jobs(t), a.runs(`"behind"`); n != 30 || behind != 0 {
		t.Errorf("%d jobs are left, and %d of those that were taken away ran", n, behind)
	}
}

func TestTheEndOfTheWorkerReturnsWhatWasClaimedAhead(t *testing.T) {
	a := newPrefetch(t)
	s := scheduler.New(a.config)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	a.claimed(t)
	<-a.blocked
	cancel()
	wait[event.WorkerStopping](t, a.fixture)
	close(a.free)
	if err := <-done; err != nil {
		t.Error(err)
	}
	var free int
	if err := a.pool.QueryRow(t.Context(),
		"select count(*) from graphile_worker._private_jobs where locked_by is null and attempts = 0").Scan(&free); err != nil {
		t.Fatal(err)
	}
	if all, behind := a.jobs(t), a.runs(`"behind"`); free+behind != 30 || all != free {
		t.Errorf("of 30 jobs %d ran, %d are left, %d of them free", behind, all, free)
	}
}
