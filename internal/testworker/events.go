package testworker

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gworker/gworker"
)

// Events records what a worker reports, and lets a test wait for it.
type Events struct {
	mu     sync.Mutex
	seen   []gworker.Event
	change chan struct{} // closed by the next event
}

// NewEvents returns a record whose Observe is an observer of a worker.
func NewEvents() *Events { return &Events{change: make(chan struct{})} }

// Observe records an event.
func (e *Events) Observe(event gworker.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, event)
	close(e.change)
	e.change = make(chan struct{})
}

// Seen returns the events so far, and a channel that the next one closes.
func (e *Events) Seen() ([]gworker.Event, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]gworker.Event(nil), e.seen...), e.change
}

// WaitFor returns the first event of type E that ok accepts; nil accepts all.
func WaitFor[E gworker.Event](t *testing.T, e *Events, ok func(E) bool) E {
	t.Helper()
	return WaitForN(t, e, 1, ok)[0]
}

// WaitForN returns the events of type E that ok accepts, as soon as they are n or more.
func WaitForN[E gworker.Event](t *testing.T, e *Events, n int, ok func(E) bool) []E {
	t.Helper()
	timeout := time.After(Patience)
	for {
		seen, change := e.Seen()
		var found []E
		for _, event := range seen {
			if typed, is := event.(E); is && (ok == nil || ok(typed)) {
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

// Count returns how many events of type E were seen.
func Count[E gworker.Event](e *Events) int {
	seen, _ := e.Seen()
	n := 0
	for _, event := range seen {
		if _, is := event.(E); is {
			n++
		}
	}
	return n
}

// Describe lists events for a failing test.
func Describe(seen []gworker.Event) string {
	var lines []string
	for _, event := range seen {
		lines = append(lines, fmt.Sprintf("%T %+v", event, event))
	}
	return "\n" + strings.Join(lines, "\n")
}
