package scheduler

import (
	"testing"
	"time"

	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// ranked is a job of a priority that became runnable so many seconds after another.
func ranked(priority, second int) *job.Claimed {
	return &job.Claimed{Row: job.Row{
		ID: int64(priority*1000 + second), Priority: priority, RunAt: time.Unix(int64(second), 0), Task: "x",
	}}
}

// orderPool is a pool whose slots are not open.
func orderPool(t *testing.T, slots int) *pool {
	p := newPool(Config{Concurrency: slots}, newLimits(nil), func(*active, completer.Result) {}, func() {})
	p.ctx = t.Context()
	return p
}

// claimed lets jobs wait that a claim has taken.
func claimed(p *pool, jobs ...*job.Claimed) {
	for _, j := range jobs {
		p.run(j, time.Now())
	}
}

// startsNow takes everything that may start, in its order.
func startsNow(p *pool) (ids []int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.startable() {
		ids = append(ids, p.ready[0].job.ID)
		p.ready = p.ready[1:]
	}
	return ids
}

func expectStarts(t *testing.T, p *pool, what string, want ...int64) {
	t.Helper()
	got := startsNow(p)
	if len(got) != len(want) {
		t.Fatalf("%s: %v start, not %v", what, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: %v start, not %v", what, got, want)
		}
	}
}

// TestWaitingJobsAreInOrder: however claims arrive.
func TestWaitingJobsAreInOrder(t *testing.T) {
	p := orderPool(t, 2)
	claimed(p, ranked(1, 5), ranked(1, 6))
	claimed(p, ranked(0, 9), ranked(1, 1), ranked(2, 0), ranked(1, 5+10))
	expectStarts(t, p, "after two claims", 9, 1001, 1005, 1006, 1015, 2000)
}

// TestOverlappingClaims: they need one priority, and more than one slot; what is worse
// waits for the other claim.
func TestOverlappingClaims(t *testing.T) {
	p := orderPool(t, 2)
	first := p.claimBegins()
	if p.mayClaim() {
		t.Fatal("a claim may begin while nothing is known of the one in flight")
	}
	claimed(p, ranked(1, 1))
	p.claimEnded(first, cursor{}, []*job.Claimed{ranked(1, 1)}, false)
	a, b := p.claimBegins(), 0
	if !p.mayClaim() {
		t.Fatal("no second claim may begin although all jobs have one priority")
	}
	b = p.claimBegins()
	claimed(p, ranked(1, 2), ranked(2, 3))
	p.claimEnded(a, cursor{}, []*job.Claimed{ranked(1, 2), ranked(2, 3)}, false)
	expectStarts(t, p, "while the other claim is under way", 1001, 1002)
	if p.mayClaim() {
		t.Error("another claim may begin although there are two priorities")
	}
	claimed(p, ranked(1, 4))
	p.claimEnded(b, cursor{}, []*job.Claimed{ranked(1, 4)}, true)
	expectStarts(t, p, "after both", 1004, 2003)

	strict := orderPool(t, 1)
	strict.claimEnded(strict.claimBegins(), cursor{}, []*job.Claimed{ranked(1, 1)}, false)
	strict.claimBegins()
	if strict.mayClaim() {
		t.Error("claims overlap although there is one slot")
	}
}

// TestUnstartedJobsKeepTheirPlace: those that went back hold up worse ones until
// claims that began later have found them, or found that they are not there.
func TestUnstartedJobsKeepTheirPlace(t *testing.T) {
	goBack := func(p *pool, jobs ...*job.Claimed) *freed {
		p.mu.Lock()
		defer p.mu.Unlock()
		var f *freed
		for _, j := range jobs {
			f = p.order.goesBack(f, j)
		}
		return f
	}
	free := func(p *pool, f *freed, claim int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.order.isFree(f, claim)
	}
	for slots, now := range map[int][]int64{1: {1}, 2: {1, 7}} {
		p := orderPool(t, slots)
		claimed(p, ranked(0, 1), ranked(0, 7), ranked(1, 0))
		before := p.claimBegins()
		f := goBack(p, ranked(0, 3), ranked(0, 5), ranked(0, 4))
		expectStarts(t, p, "while they are not free", now...)
		free(p, f, 0)
		p.claimEnded(before, cursor{}, nil, true)
		expectStarts(t, p, "after a claim that began before")
		if _, missing := p.missesFreed(); !missing {
			t.Fatal("no claim is asked for")
		}
		next := p.claimBegins()
		claimed(p, ranked(0, 3), ranked(0, 4))
		p.claimEnded(next, cursor{}, []*job.Claimed{ranked(0, 3), ranked(0, 4)}, false)
		expectStarts(t, p, "after a claim of some", 3, 4)
		p.claimEnded(p.claimBegins(), cursor{}, nil, true)
		rest := []int64{1000}
		if slots == 1 {
			rest = []int64{7, 1000}
		}
		expectStarts(t, p, "after a claim that found no more", rest...)
	}
}

// TestClaimsBehindUnstartedJobsDoNotFindThem: a claim that began behind them, or without
// their queues, says nothing about them.
func TestClaimsBehindUnstartedJobsDoNotFindThem(t *testing.T) {
	behind := cursor{}.at(0, ranked(0, 4).RunAt)
	blocked := cursor{blocked: []int32{7}}.at(0, ranked(0, 1).RunAt)
	for name, from := range map[string]cursor{"behind them": behind, "without queues": blocked} {
		t.Run(name, func(t *testing.T) {
			p := orderPool(t, 2)
			claimed(p, ranked(1, 0))
			p.mu.Lock()
			p.order.isFree(p.order.goesBack(nil, ranked(0, 3)), 0)
			p.mu.Unlock()
			next := p.claimBegins()
			claimed(p, ranked(0, 9), ranked(2, 1))
			p.claimEnded(next, from, []*job.Claimed{ranked(0, 9), ranked(2, 1)}, true)
			expectStarts(t, p, "after that claim", 9)
			if _, missing := p.missesFreed(); !missing {
				t.Fatal("no other claim is asked for")
			}
			p.claimEnded(p.claimBegins(), cursor{}.at(0, ranked(0, 2).RunAt), nil, true)
			expectStarts(t, p, "after a claim of everything", 1000, 2001)
		})
	}
}

// TestAClaimInTheSameRoundTripFindsThem: as the end of a held claim and the next.
func TestAClaimInTheSameRoundTripFindsThem(t *testing.T) {
	p := orderPool(t, 1)
	claimed(p, ranked(0, 9))
	p.mu.Lock()
	f := p.order.goesBack(nil, ranked(0, 2))
	next := p.order.begin()
	p.order.isFree(f, next)
	p.mu.Unlock()
	claimed(p, ranked(0, 2))
	p.claimEnded(next, cursor{}, []*job.Claimed{ranked(0, 2)}, false)
	expectStarts(t, p, "after the claim", 2, 9)
}
