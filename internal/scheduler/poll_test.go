package scheduler_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

// TestIdleWorkerAsksBeforeItClaims: as long as the answer is no, it claims nothing
// but what it is told of.
func TestIdleWorkerAsksBeforeItClaims(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, hold := range map[string]time.Duration{"locked": 0, "held": time.Minute} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, map[string]scheduler.Handler{"x": completes})
			if hold > 0 {
				f.holdFor(hold)
			}
			f.config.PollInterval = time.Millisecond
			asked, yes := make(chan struct{}, 1000), atomic.Bool{}
			s := scheduler.New(f.config)
			s.PollBy(func(context.Context) (bool, error) {
				select {
				case asked <- struct{}{}:
				default: // the test has ended
				}
				return yes.Load(), nil
			})
			defer run(t, s)()
			wait[event.ClaimEmpty](t, f) // the first claim is not asked for
			for range 20 {
				<-asked
			}
			claims := func() int { return f.db.count("ClaimJobs") + f.db.count("ClaimQueuedJobs") }
			before := claims()
			f.exec(t, "select graphile_worker.add_job('x')")
			for range 20 {
				<-asked
			}
			if got := claims(); got != before || f.jobs(t) != 1 {
				t.Errorf("%d claims more, though there was nothing to be claimed; %d jobs are left", got-before, f.jobs(t))
			}
			s.Wake()
			wait[event.JobCompleted](t, f)
			f.exec(t, "select graphile_worker.add_job('x')")
			yes.Store(true)
			f.drained(t)
		})
	}
}

// TestBusyWorkerDoesNotAsk: its next claim comes when a slot is free, or with the poll.
func TestBusyWorkerDoesNotAsk(t *testing.T) {
	release, started := make(chan struct{}), make(chan struct{})
	f := newFixture(t, map[string]scheduler.Handler{"x": completes, "slow": func(context.Context, *job.Claimed) job.Outcome {
		close(started)
		<-release
		return job.Outcome{Kind: job.Completed}
	}})
	asked := atomic.Int64{}
	s := scheduler.New(f.config)
	s.PollBy(func(context.Context) (bool, error) { asked.Add(1); return false, nil })
	f.exec(t, "select graphile_worker.add_job('slow')")
	defer run(t, s)()
	<-started
	before := asked.Load()
	f.exec(t, "select graphile_worker.add_job('x')") // only a poll finds it
	wait[event.JobCompleted](t, f)
	if got := asked.Load(); got != before {
		t.Errorf("it asked %d times", got-before)
	}
	close(release)
}

// TestPollThatFailsIsTriedAgain, as a claim, and reported.
func TestPollThatFailsIsTriedAgain(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"x": completes})
	s := scheduler.New(f.config)
	broken, asked := errors.New("broken"), atomic.Int64{}
	s.PollBy(func(context.Context) (bool, error) {
		if asked.Add(1) == 1 {
			f.exec(t, "select graphile_worker.add_job('x')")
			return false, broken
		}
		return false, nil
	})
	defer run(t, s)()
	if e := wait[event.ClaimFailed](t, f); !errors.Is(e.Err, broken) || e.RetryIn <= 0 {
		t.Errorf("reported %+v", e)
	}
	f.drained(t)
}

// TestWhoeverClaimsByMoreThanTheOrderDoesNotAsk: what the database knows is not enough.
func TestWhoeverClaimsByMoreThanTheOrderDoesNotAsk(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, set := range map[string]func(*scheduler.Config){
		"flags":       func(c *scheduler.Config) { c.Flags.Forbidden = []string{"f"} },
		"own clock":   func(c *scheduler.Config) { c.Now = time.Now },
		"local queue": func(c *scheduler.Config) { c.LocalQueue = scheduler.LocalQueue{Size: 10, TTL: time.Minute} },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, map[string]scheduler.Handler{"x": completes})
			set(&f.config)
			s := scheduler.New(f.config)
			s.PollBy(func(context.Context) (bool, error) { return false, nil })
			defer run(t, s)()
			for range 2 { // the first may be found by the claim that begins
				f.exec(t, "select graphile_worker.add_job('x')")
				wait[event.JobCompleted](t, f)
			}
		})
	}
}
