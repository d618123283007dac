package scheduler

import (
	"testing"
	"time"
)

// TestWaitingForAConnectionEnds: what the loop is told to wait for is never in the past,
// or it would turn without a rest while a second connection cannot be had.
func TestWaitingForAConnectionEnds(t *testing.T) {
	now := time.Now()
	for _, connected := range []bool{false, true} {
		h := &heldClaims{conns: []*claimConn{{connected: connected}, {busy: true, connecting: true}}}
		h.access.trying, h.access.began = true, now.Add(-firstConnect/2)
		if until := h.connect(now); !until.Equal(h.access.began.Add(firstConnect)) {
			t.Errorf("connected %t: claims wait until %s after they have begun to", connected, until.Sub(h.access.began))
		}
		h.access.began = now.Add(-2 * firstConnect)
		if until := h.connect(now); !until.IsZero() {
			t.Errorf("connected %t: claims still wait, until %s ago", connected, now.Sub(until))
		}
	}
}
