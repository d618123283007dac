package contain

import (
	"sync"
	"time"
)

// Clock returns a clock of the user's that always tells the time: where now fails,
// what it told last goes on by the machine's clock, or that clock counts if it has
// told none yet. failed is told of the first failure of several in a row.
func Clock(now func() time.Time, failed func(error)) func() time.Time {
	var mu sync.Mutex
	var last, at time.Time // what it told last, and when by the machine's clock
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
