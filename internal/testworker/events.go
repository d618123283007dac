package testworker

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gworker/gworker/event"
)

// Events records what a worker reports, and lets a test wait for it.
type Events struct {
	mu     sync.Mutex
	seen   []event.Event
	change chan struct{} // closed by the next event
}

// NewEvents returns a record whose Observe is an observer of a worker.
func NewEvents() *Events { return &Events{change: make(chan struct{})} }

// Observe records an event.
func (l *Events) Observe(e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, e)
	close(l.change)
	l.change = make(chan struct{})
}

// Seen returns the events so far, and a channel that the next one closes.
func (l *Events) Seen() ([]event.Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]event.Event(nil), l.seen...), l.change
}

// WaitFor returns the first event of type E that ok accepts; nil accepts all.
func WaitFor[E event.Event](t *testing.T, l *Events, ok func(E) bool) E {
	t.Helper()
	return WaitForN(t, l, 1, ok)[0]
}

// WaitForN returns the events of type E that ok accepts, as soon as they are n or more.
func WaitForN[E event.Event](t *testing.T, l *Events, n int, ok func(E) bool) []E {
	t.Helper()
	timeout := time.After(Patience)
	for {
		seen, change := l.Seen()
		var found []E
		for _, e := range seen {
			if typed, is := e.(E); is && (ok == nil || ok(typed)) {
				found = append(found, typed)
			}
		}
		if len(found) >= n {
			return found
		}
		select {
		case <-change:
		case <-timeout:
			var zero E
			t.Fatalf("%d of %d %T within %s; seen: %s", len(found), n, zero, Patience, Describe(seen))
		}
	}
}

// Seen returns the events of type E so far.
func Seen[E event.Event](l *Events) (found []E) {
	seen, _ := l.Seen()
	for _, e := range seen {
		if typed, is := e.(E); is {
			found = append(found, typed)
		}
	}
	return found
}

// Count returns how many events of type E were seen.
func Count[E event.Event](l *Events) int { return len(Seen[E](l)) }

// Describe lists events for a failing test.
func Describe(seen []event.Event) string {
	var lines []string
	for _, e := range seen {
		lines = append(lines, fmt.Sprintf("%T %+v", e, e))
	}
	return "\n" + strings.Join(lines, "\n")
}
