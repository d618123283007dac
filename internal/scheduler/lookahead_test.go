package scheduler

import (
	"testing"
	"time"

	"github.com/gworker/gworker/internal/job"
)

func queuedJobs(n int) []*job.Claimed {
	jobs := make([]*job.Claimed, n)
	for i := range jobs {
		jobs[i] = &job.Claimed{Row: job.Row{Queue: "q"}}
	}
	return jobs
}

// simulate claims from a table in which only the job at this position can run, by
// a clock that takes a microsecond for each job that is looked at, and returns the
// time until it is taken and the part of it that went into looking further.
func simulate(t *testing.T, d *lookAhead, position, jobs int) (took, deep time.Duration) {
	at := time.Unix(0, 0)
	for range 10_000 {
		p := cursor{lookAt: d.next(at)}
		looked := min(int(p.lookAt), jobs)
		cost := time.Duration(looked) * time.Microsecond
		at = at.Add(cost)
		count := 1 // one of the busy queues ahead
		f := found{seen: 1, looked: looked, reached: 1}
		if looked > position {
			count, f = 2, found{seen: 2, looked: looked, reached: position + 1}
		}
		if int(p.lookAt) > d.look {
			deep += cost
		}
		if count == 2 {
			return at.Sub(time.Unix(0, 0)), deep
		}
		d.claimed(p, 24, queuedJobs(count), f, cost, at)
		at = at.Add(time.Millisecond) // what a claim takes anyhow
	}
	t.Fatal("not found")
	return 0, 0
}

// TestLooksFurtherForABoundedShareOfTheTime: what can run is found behind however
// many jobs of busy queues, while claims of what lies ahead go on.
func TestLooksFurtherForABoundedShareOfTheTime(t *testing.T) {
	for _, position := range []int{10, 1000, 100_000, 1_000_000} {
		d := newLookAhead()
		d.queued = true
		took, deep := simulate(t, &d, position, 2_000_000)
		whole := time.Duration(lookAheadFactor*position) * time.Microsecond
		if limit := 100*time.Millisecond + 2*lookAheadShare*whole; took > limit {
			t.Errorf("position %d: found after %s, want less than %s", position, took, limit)
		}
		if limit := 2*whole + time.Millisecond; deep > limit {
			t.Errorf("position %d: looking further took %s, want less than %s", position, deep, limit)
		}
	}
}

// TestLooksFurtherSeldomWhereNothingIsFound: the looks cost a share of the time.
func TestLooksFurtherSeldomWhereNothingIsFound(t *testing.T) {
	d, at := newLookAhead(), time.Unix(0, 0)
	d.queued = true
	var deep time.Duration
	for at.Before(time.Unix(60, 0)) {
		p := cursor{lookAt: d.next(at)}
		looked := min(int(p.lookAt), 200_000)
		cost := time.Millisecond + time.Duration(looked)*time.Microsecond
		if int(p.lookAt) > d.look {
			deep += cost
		}
		at = at.Add(cost)
		d.claimed(p, 24, queuedJobs(1), found{seen: 1, looked: looked, reached: 1}, cost, at)
	}
	if deep < 2*time.Second || deep > 8*time.Second {
		t.Errorf("of a minute, %s went into looking further", deep)
	}
}

// TestLookAheadFollowsTheJobsThatAreTaken: claims look an eighth further than they
// need to where what can be taken is spread evenly.
func TestLookAheadFollowsTheJobsThatAreTaken(t *testing.T) {
	d, at := newLookAhead(), time.Unix(0, 0)
	d.queued = true
	claim := func(asked, count, reached, jobs int) {
		p := cursor{lookAt: d.next(at)}
		looked := min(int(p.lookAt), jobs)
		d.claimed(p, asked, queuedJobs(count), found{seen: count, looked: looked, reached: min(reached, looked)}, time.Millisecond, at)
		at = at.Add(time.Minute)
	}
	for range 10 {
		claim(500, 500, 525, 1_000_000)
	}
	if d.look != 787 {
		t.Errorf("looks at %d jobs to take 500 of the first 700", d.look)
	}
	for range 10 {
		claim(1, 1, 1, 1_000_000)
	}
	if d.look != leastLookAhead {
		t.Errorf("looks at %d jobs to take the first", d.look)
	}
}

// TestClaimForQueuedJobsIsForThem: jobs without queues are claimed by the walk.
func TestClaimForQueuedJobsIsForThem(t *testing.T) {
	plain := make([]*job.Claimed, 3)
	for i := range plain {
		plain[i] = &job.Claimed{}
	}
	for _, c := range []struct {
		name   string
		before bool
		lookAt int32
		asked  int
		jobs   []*job.Claimed
		found  found
		queued bool
		more   bool
		missed bool
	}{
		{"plain, all", false, 0, 3, plain, found{}, false, true, false},
		{"plain, the last", false, 0, 4, plain, found{}, false, false, false},
		{"plain, one has a queue", false, 0, 5, append(queuedJobs(1), plain...), found{looked: 1}, true, true, false},
		{"plain, and a queue cannot run", false, 0, 4, plain, found{looked: 7}, true, true, false},
		{"plain, cut", false, 0, 4, plain, found{seen: 1}, false, true, false},
		{"nothing but a queue that cannot run", false, 0, 4, nil, found{looked: 7}, true, true, true},
		{"nothing", false, 0, 4, nil, found{}, false, false, false},
		{"queued, all", true, 100, 3, queuedJobs(3), found{looked: 100, reached: 3}, true, true, false},
		{"queued, more behind", true, 100, 4, queuedJobs(3), found{looked: 100, reached: 3}, true, true, false},
		{"queued, the last", true, 100, 4, queuedJobs(3), found{looked: 99, reached: 3}, true, false, false},
		{"queued, none, more behind", true, 100, 4, nil, found{looked: 100}, true, false, true},
		{"queued, none, another worker has one", true, 100, 4, nil, found{seen: 1, looked: 9}, true, false, true},
		{"queued, none", true, 100, 4, nil, found{looked: 9}, true, false, false},
		{"no queue left", true, 100, 3, plain, found{looked: 100, reached: 3}, false, true, false},
		{"nothing left", true, 100, 3, nil, found{}, false, false, false},
	} {
		d, p := newLookAhead(), cursor{lookAt: c.lookAt}
		d.queued = c.before
		d.claimed(p, c.asked, c.jobs, c.found, time.Millisecond, time.Unix(1, 0))
		if d.queued != c.queued || p.more(c.asked, len(c.jobs), c.found) != c.more || p.missed(c.asked, len(c.jobs), c.found) > 0 != c.missed {
			t.Errorf("%s: queued %t, more %t, missed %d", c.name, d.queued,
				p.more(c.asked, len(c.jobs), c.found), p.missed(c.asked, len(c.jobs), c.found))
		}
	}
}
