package eventstream

import (
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gworker/gworker/event"
)

// Subscription is a bounded buffer of events, which the flow fills and a consumer reads. The
// flow never waits for it: events that do not fit are dropped and counted.
type Subscription struct {
	stream  *Stream
	types   []reflect.Type         // nil: all
	filter  func(event.Event) bool // nil: all
	dropped atomic.Uint64

	mu     sync.Mutex // guards closed, and that nothing is sent when it is set
	closed bool
	events chan event.Event
}

// Subscribe adds a subscription. types are wanted types, as any value of them;
// none means all. filter may be nil; it is called on the goroutine of the event,
// as an observer is. The subscription of a closed stream is closed.
func (s *Stream) Subscribe(buffer int, types []event.Event, filter func(event.Event) bool) *Subscription {
	sub := &Subscription{stream: s, filter: filter, events: make(chan event.Event, buffer)}
	for _, e := range types {
		sub.types = append(sub.types, reflect.TypeOf(e))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		sub.end()
		return sub
	}
	var all []*Subscription
	if present := s.subscriptions.Load(); present != nil {
		all = slices.Clone(*present)
	}
	all = append(all, sub)
	s.subscriptions.Store(&all)
	return sub
}

// Close ends all subscriptions, including later ones. Observers go on.
func (s *Stream) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if present := s.subscriptions.Swap(nil); present != nil {
		for _, sub := range *present {
			sub.end()
		}
	}
}

// Events returns the channel of events. It is closed after the last one.
func (s *Subscription) Events() <-chan event.Event { return s.events }

// Dropped returns how many events had no room so far.
func (s *Subscription) Dropped() uint64 { return s.dropped.Load() }

// Close ends the subscription: nothing is added to its channel, which is
// closed; what it holds can still be read. Closing again does nothing.
func (s *Subscription) Close() {
	s.stream.remove(s)
	s.end()
}

func (s *Stream) remove(sub *Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	present := s.subscriptions.Load()
	if present == nil {
		return
	}
	rest := slices.DeleteFunc(slices.Clone(*present), func(other *Subscription) bool { return other == sub })
	if len(rest) == 0 {
		s.subscriptions.Store(nil)
		return
	}
	s.subscriptions.Store(&rest)
}

func (s *Subscription) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.events)
	}
}

func (s *Subscription) wants(e event.Event) bool {
	return s.types == nil || slices.Contains(s.types, reflect.TypeOf(e))
}

// offer adds e if there is room. It never blocks.
func (s *Subscription) offer(e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	select {
	case s.events <- e:
	default:
		s.dropped.Add(1)
	}
}
