package contain

import (
	"sync"
	"time"
)

// Clock wraps a clock of the user's so that it always returns a time: if now fails, the
// clock continues from its last time by the machine's clock, or is the machine's clock if
// there is none. failed is called with the first of several failures in a row.
func Clock(now func() time.Time, failed func(error)) func() time.Time {
	var mu sync.Mutex
	var last, at time.Time // its last time, and when that was by the machine's clock
	var broken bool
	return func() time.Time {
		var told time.Time
		err := Call(func() { told = now() })
		mu.Lock()
		first := err != nil && !broken
		broken = err != nil
		switch {
		case err == nil:
			last, at = told, time.Now()
		case at.IsZero():
			told = time.Now()
		default:
			told = last.Add(time.Since(at))
		}
		mu.Unlock()
		if first {
			failed(err)
		}
		return told
	}
}
