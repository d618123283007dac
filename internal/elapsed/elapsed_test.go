package elapsed_test

import (
	"math"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/elapsed"
)

func TestSeconds(t *testing.T) {
	for s, want := range map[float64]time.Duration{
		0: 0, 1.5: 1500 * time.Millisecond, -2: -2 * time.Second,
		1e12: elapsed.Longest, -1e12: -elapsed.Longest, math.Inf(1): elapsed.Longest, math.Inf(-1): 0,
	} {
		if got := elapsed.Seconds(s); got != want {
			t.Errorf("%g s are %s, want %s", s, got, want)
		}
	}
}
