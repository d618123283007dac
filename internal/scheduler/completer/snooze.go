package completer

import (
	"sync"
	"time"
)

// mostAwaited bounds the snoozes that a worker remembers: those that are over so
// soon that a poll would come late. Others are found by polling.
const mostAwaited = time.Second

// awaitedTogether is how far apart the ends of snoozes may be that are looked at
// together.
const awaitedTogether = 10 * time.Millisecond

// snoozes wakes the worker when the jobs that it has snoozed shortly are due. Its
// methods may be called from any goroutine.
type snoozes struct {
	wake func()

	mu    sync.Mutex
	ended bool
	due   map[time.Time]*time.Timer
}

func newSnoozes(wake func()) *snoozes {
	return &snoozes{wake: wake, due: make(map[time.Time]*time.Timer)}
}

// await wakes the worker when a job is due that has been put back just now.
func (s *snoozes) await(delay time.Duration) {
	if delay <= 0 || delay > mostAwaited {
		return
	}
	now := time.Now().Round(0)
	at := now.Add(delay).Truncate(awaitedTogether).Add(awaitedTogether)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.due[at] != nil {
		return
	}
	s.due[at] = time.AfterFunc(at.Sub(now), func() {
		s.mu.Lock()
		delete(s.due, at)
		s.mu.Unlock()
		s.wake()
	})
}

// end forgets them all.
func (s *snoozes) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for at, timer := range s.due {
		timer.Stop()
		delete(s.due, at)
	}
}
