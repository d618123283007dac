package scheduler

import (
	"testing"
	"time"

	"github.com/gworker/gworker/internal/eventstream"
)

// TestJobsWaitForAsLongAsClaimsTake: as many as the slots finish in three round trips of
// claims, so that a slot that ends a job finds the next.
func TestJobsWaitForAsLongAsClaimsTake(t *testing.T) {
	for _, c := range []struct {
		name         string
		mean, claims time.Duration
		want         int // with 24 slots
		flags        bool
	}{
		{name: "nothing is known", claims: 10 * time.Millisecond, want: 24},
		{name: "the database is near", mean: 50 * time.Millisecond, claims: 300 * time.Microsecond, want: 24},
		{name: "1 ms away", mean: 50 * time.Millisecond, claims: time.Millisecond, want: 24 + 1},
		{name: "10 ms away", mean: 50 * time.Millisecond, claims: 10 * time.Millisecond, want: 24 + 14},
		{name: "long jobs", mean: time.Minute, claims: 10 * time.Millisecond, want: 24},
		{name: "an ocean away", mean: 50 * time.Millisecond, claims: time.Second, want: 24 + 24}, // what waits for longer goes back
		{name: "jobs that do nothing", mean: time.Microsecond, claims: 20 * time.Millisecond, want: mostPrefetched},
		{name: "flags may change", mean: 50 * time.Millisecond, claims: 10 * time.Millisecond, flags: true, want: 24},
	} {
		config := Config{Concurrency: 24, Handlers: map[string]Handler{"x": nil}, Events: eventstream.New()}
		if c.flags {
			config.Flags.Forbidden = []string{"f"}
		}
		s := New(config)
		if c.mean > 0 {
			s.durations.all.ran(c.mean)
		}
		s.claims.roundTrip = c.claims
		l := &loop{Scheduler: s}
		if ask := l.demand(true); ask != c.want {
			t.Errorf("%s: claims %d jobs, want %d", c.name, ask, c.want)
		}
	}
}

// TestFewLongJobsAreNotTypical: the typical job stays short where one in 25 takes long, and
// becomes long where all do.
func TestFewLongJobsAreNotTypical(t *testing.T) {
	d := newDurations(Config{})
	for n := range 1000 {
		took := time.Millisecond
		if n%25 == 7 {
			took = 500 * time.Millisecond
		}
		d.all.ran(took)
		if mean := time.Duration(d.all.mean.Load()); mean < time.Millisecond/2 || mean > 2*time.Millisecond {
			t.Fatalf("after %d jobs, of which most take 1 ms, the typical one takes %s", n, mean)
		}
	}
	for range 40 {
		d.all.ran(500 * time.Millisecond)
	}
	if mean := time.Duration(d.all.mean.Load()); mean < 450*time.Millisecond {
		t.Errorf("after 40 jobs of 500 ms the typical one takes %s", mean)
	}
}

// TestSlotsThatAreStuckClaimNothingAhead: a slot that runs a long job is not counted on.
func TestSlotsThatAreStuckClaimNothingAhead(t *testing.T) {
	s := New(Config{Concurrency: 24, Handlers: map[string]Handler{"x": nil}, Events: eventstream.New()})
	s.durations.all.ran(time.Millisecond)
	s.claims.roundTrip = 10 * time.Millisecond
	l := &loop{Scheduler: s}
	since := int64(time.Since(s.pool.epoch) - time.Second)
	for stuck, want := range map[int]int{0: mostPrefetched, 23: 1 + 30, 24: 0} {
		for i := range s.pool.busySince {
			s.pool.busySince[i].Store(0)
			if i < stuck {
				s.pool.busySince[i].Store(since)
			}
		}
		s.pool.count = stuck
		if ask := l.demand(true); ask != want {
			t.Errorf("with %d slots in long jobs: claims %d jobs, want %d", stuck, ask, want)
		}
	}
}
