// Package elapsed reads ages that the database tells.
package elapsed

import (
	"math"
	"time"
)

// Longest is about 100 years. An age beyond it, on either side, is told as Longest, so that
// it fits into a time.Duration, even with something added.
const Longest = 36500 * 24 * time.Hour

// Seconds is an age in seconds as a duration. A time of -infinity has an age of Longest: it
// is older than all others. A time of infinity has an age of 0: it has not come, and does
// not get nearer.
func Seconds(s float64) time.Duration {
	switch {
	case math.IsInf(s, -1):
		return 0
	case s >= Longest.Seconds():
		return Longest
	case s <= -Longest.Seconds():
		return -Longest
	}
	return time.Duration(s * float64(time.Second))
}
