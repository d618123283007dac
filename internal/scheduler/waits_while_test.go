package scheduler

import (
	"testing"
	"time"
)

// TestTasksThatWaitAreHeldAgain after a while, for longer each time, and are suspect then.
func TestTasksThatWaitAreHeldAgain(t *testing.T) {
	e := newDurations(Config{Handlers: map[string]Handler{"t": nil}})
	e.ran("t", time.Millisecond)
	task := e.tasks["t"]
	found := func(ago time.Duration, locked bool) {
		t.Helper()
		task.waits.together.Store(0)
		task.waits.found(time.Now().Add(-ago))
		if task.slow(time.Second) != locked || e.lockFirst("t") != locked || !task.waits.suspect() {
			t.Errorf("found %s ago: slow %t, firm %t, suspect %t", ago, task.slow(time.Second), e.lockFirst("t"), task.waits.suspect())
		}
	}
	found(2*lockedFor, false)
	found(time.Second, true)
	if until := *task.waits.until.Load(); time.Until(until) <= lockedFor || time.Until(until) > 2*lockedFor {
		t.Errorf("the task is locked for another %s", time.Until(until))
	}
	e.lock("t")
	e.lock("t")
	if n := task.waits.times.Load(); n != 2 {
		t.Errorf("found %d times while its jobs were locked", n)
	}
	task.waits.times.Store(1000)
	task.waits.until.Store(nil)
	found(lockedFor<<mostDoubled, false)
}
