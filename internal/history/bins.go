package history

import "math"

// Slots is how many bins of durations there are.
const Slots = 64

// first is the end of the first slot, in seconds. Each further one reaches to the square
// root of 2 times the one before, so that a percentile is wrong by that factor at most,
// and the last one ends after some days.
const first = 0.0001

// slot is the bin of a duration in seconds.
func slot(seconds float64) int {
	if !(seconds >= first) {
		return 0
	}
	return int(min(Slots-1, 1+2*math.Log2(seconds/first)))
}

// begins is where a slot begins, in seconds.
func begins(slot int) float64 {
	if slot == 0 {
		return 0
	}
	return first * math.Exp2(float64(slot-1)/2)
}

// Percentile is the duration, in seconds, that the given part of those in bins does not
// exceed, interpolated within its slot; 0 without any.
func Percentile(bins []int64, part float64) float64 {
	total := int64(0)
	for _, n := range bins {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank, below := part*float64(total), 0.0
	for i, n := range bins {
		if n == 0 {
			continue
		}
		if below+float64(n) >= rank {
			from, to := begins(i), begins(i+1)
			return from + (to-from)*max(0, rank-below)/float64(n)
		}
		below += float64(n)
	}
	return begins(len(bins))
}

// trimmed leaves out the empty bins at the end.
func trimmed(bins []int64) []int64 {
	for len(bins) > 0 && bins[len(bins)-1] == 0 {
		bins = bins[:len(bins)-1]
	}
	return bins
}
