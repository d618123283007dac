package main

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// interval is a flag's duration, which may also be a plain number of milliseconds, as in
// Node's worker.
type interval time.Duration

// newInterval binds a flag to a duration, which gets its default.
func newInterval(to *time.Duration, initial time.Duration) *interval {
	*to = initial
	return (*interval)(to)
}

func (i *interval) Set(text string) error {
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		ms := n * float64(time.Millisecond)
		if math.IsNaN(ms) || math.Abs(ms) > float64(math.MaxInt64)/2 {
			return fmt.Errorf("%q milliseconds are no time to wait", text)
		}
		*i = interval(ms)
		return nil
	}
	d, err := parseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is neither a duration such as 2s nor a number of milliseconds", text)
	}
	*i = interval(d)
	return nil
}

func (i *interval) String() string { return time.Duration(*i).String() }

func (*interval) Type() string { return "duration" }
