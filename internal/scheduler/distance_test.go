package scheduler

import (
	"testing"
	"time"
)

func TestDistance(t *testing.T) {
	var d distance
	if got := d.beyond(time.Second, 2); got != time.Second {
		t.Errorf("of a second %s are work where nothing is known", got)
	}
	for _, took := range []time.Duration{30 * time.Millisecond, 10 * time.Millisecond, time.Second} {
		d.note(took)
	}
	for _, c := range []struct {
		took       time.Duration
		statements int
		want       time.Duration
	}{{time.Second, 1, 990 * time.Millisecond}, {time.Second, 2, 980 * time.Millisecond}, {15 * time.Millisecond, 2, 0}} {
		if got := d.beyond(c.took, c.statements); got != c.want {
			t.Errorf("of %s for %d statements %s are work, want %s", c.took, c.statements, got, c.want)
		}
	}
}

// TestFarClaimsAreNotExpensive: a claim is not expensive for the way that it goes, so none of
// a far database makes the next one scan.
func TestFarClaimsAreNotExpensive(t *testing.T) {
	var way distance
	s := newScanPlanner(nil, nil, &way)
	s.begun = true
	way.note(20 * time.Millisecond)
	for range 3 {
		s.claimed(cursor{}, 10, nil, found{}, 21*time.Millisecond)
	}
	if s.due() != noScan {
		t.Error("claims that take as long as the way to the database and back call for a scan")
	}
	for range 3 {
		s.claimed(cursor{}, 10, nil, found{}, 30*time.Millisecond)
	}
	if s.due() != fromTheStart {
		t.Error("claims that take 10 ms longer call for none")
	}
}
