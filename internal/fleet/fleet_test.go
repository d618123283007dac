package fleet

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func workers(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("gworker_%04d", i))
	}
	return ids
}

// turns are those of all workers, in order.
func turns(ids []string, notification string, jobs int) (waits []time.Duration) {
	for _, id := range ids {
		f := &Fleet{Self: id}
		f.Alike(ids, time.Hour)
		waits = append(waits, f.Turn(notification, jobs))
	}
	slices.Sort(waits)
	return waits
}

// TestTurns: of each notification as many workers look at once as it has jobs, two at least,
// and the others one after the other.
func TestTurns(t *testing.T) {
	for _, c := range []struct{ workers, jobs, atOnce int }{
		{1, 1, 1}, {2, 1, 2}, {3, 1, 2}, {16, 1, 2}, {16, 2, 2}, {16, 5, 5}, {16, 16, 16}, {16, 1000, 16}, {200, 3, 3},
	} {
		for n := range 20 {
			waits := turns(workers(c.workers), fmt.Sprintf(`{"r":0.%d,"count":%d}`, n, c.jobs), c.jobs)
			for i, wait := range waits {
				want := time.Duration(0)
				if i >= c.atOnce {
					want = time.Duration(i-c.atOnce+1) * min(step, latest/time.Duration(c.workers))
				}
				if wait != want || wait > latest {
					t.Fatalf("%+v: worker %d looks after %s, want %s", c, i, wait, want)
				}
			}
		}
	}
}

// TestTurnsAreShared: no worker has more of them than others.
func TestTurnsAreShared(t *testing.T) {
	ids := workers(16)
	counts := make(map[string]int)
	for _, id := range ids {
		f := &Fleet{Self: id}
		f.Alike(ids, time.Hour)
		for n := range 4000 {
			if f.Turn(fmt.Sprintf(`{"r":0.%d,"count":1}`, n*7919), 1) == 0 {
				counts[id]++
			}
		}
	}
	for _, id := range ids {
		if n := counts[id]; n < 400 || n > 600 { // 500 on average, and 21 the deviation
			t.Errorf("%s looks at once %d times of 4000", id, n)
		}
	}
}

// TestViewsThatDiffer: whoever knows of a worker more or less than others, as many as ever
// look at once.
func TestViewsThatDiffer(t *testing.T) {
	ids := workers(10)
	for n := range 200 {
		atOnce := 0
		for i, id := range ids[:9] { // the last one has died
			f := &Fleet{Self: id}
			if i%2 == 0 {
				f.Alike(ids, time.Hour)
			} else {
				f.Alike(ids[:9], time.Hour)
			}
			if f.Turn(fmt.Sprint(n), 1) == 0 {
				atOnce++
			}
		}
		if atOnce < 1 || atOnce > 3 {
			t.Errorf("%d workers look at once", atOnce)
		}
	}
}

// TestWhoKnowsNothingLooks: a worker shares nothing before it knows of others, after that is
// too old, and where it is not among them.
func TestWhoKnowsNothingLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := workers(64)
		f := &Fleet{Self: ids[0]}
		late := func() (n int) {
			for i := range 100 {
				if f.Turn(fmt.Sprint(i), 1) > 0 {
					n++
				}
			}
			return n
		}
		want := func(when string, shares bool) {
			t.Helper()
			if n := late(); (n > 0) != shares || f.Shared() != shares {
				t.Errorf("%s: %d of 100 looks come later, shared: %t", when, n, f.Shared())
			}
		}
		want("at first", false)
		f.Alike(ids, time.Minute)
		want("with others", true)
		time.Sleep(time.Minute + 1)
		want("when that is old", false)
		f.Alike(ids[1:], time.Minute)
		want("not among them", false)
		f.Alike(ids[:1], time.Minute)
		want("alone", false)
	})
	var nobody *Fleet
	nobody.Found(time.Hour)
	if nobody.Turn("", 1) != 0 || nobody.Shared() {
		t.Error("nil shares")
	}
}

// TestWhoIsNeededLooks: a worker that finds what the others should have taken looks at once,
// for a while.
func TestWhoIsNeededLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := workers(64)
		f := &Fleet{Self: ids[0]}
		f.Alike(ids, time.Hour)
		var notification string
		for i := 0; f.Turn(notification, 1) == 0; i++ {
			notification = fmt.Sprint(i)
		}
		f.Found(missedFor - 1)
		if f.Turn(notification, 1) == 0 {
			t.Error("it looks at once for jobs that the others were about to take")
		}
		f.Found(missedFor)
		if f.Turn(notification, 1) > 0 {
			t.Error("it looks later although it is needed")
		}
		time.Sleep(neededFor + 1)
		if f.Turn(notification, 1) == 0 {
			t.Error("it still looks at once")
		}
	})
}
