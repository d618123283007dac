package scheduler

import (
	"testing"
	"time"

	"github.com/gworker/gworker/internal/eventstream"
)

// TestPollsLeaveItToClaims: a claim that is under way looks already; only where it takes long
// does a poll have another one follow. Otherwise polls in shorter intervals than claims take
// would have claims follow one another without end.
func TestPollsLeaveItToClaims(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name   string
		claims []*claim
		more   bool
	}{
		{"none", nil, true},
		{"one that has begun", []*claim{{began: now}}, false},
		{"a held one that has begun", []*claim{{began: now, held: true}}, false},
		{"one that takes long", []*claim{{began: now.Add(-claimIsLate)}}, true},
		{"one of each", []*claim{{began: now.Add(-claimIsLate)}, {began: now}}, false},
	} {
		s := New(Config{Concurrency: 1, PollInterval: time.Second, Events: eventstream.New()})
		l := &loop{Scheduler: s}
		for _, claim := range c.claims {
			s.claims.underWay.add(claim)
		}
		l.poll(t.Context(), now)
		if l.more != c.more || !l.pollAt.Equal(now.Add(time.Second)) {
			t.Errorf("%s: another claim %t, want %t; next poll after %s", c.name, l.more, c.more, l.pollAt.Sub(now))
		}
	}
}
