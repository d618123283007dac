package event

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Observer consumes events. It is called from many goroutines at once and the
// flow waits for it, so it should only note what it needs.
type Observer func(Event)

// Stream hands each event to the log, to every observer and to every
// subscription. Log and observers are fixed when it is made, subscriptions come
// and go. A nil *Stream has none of them.
type Stream struct {
	observers []Observer
	verbose   func() bool // nil, or whether the log, observers[0], takes everything

	mu            sync.Mutex // guards changes of what follows
	closed        bool
	subscriptions atomic.Pointer[[]*Subscription] // replaced, never changed
}

// NewStream returns a stream to the given observers.
func NewStream(observers ...Observer) *Stream { return &Stream{observers: observers} }

// NewStreamWithLog is NewStream with a log that comes first. verbose tells
// whether the log takes events of every kind at present.
func NewStreamWithLog(log Observer, verbose func() bool, observers ...Observer) *Stream {
	return &Stream{observers: append([]Observer{log}, observers...), verbose: verbose}
}

// WantsFrequent reports whether anybody is interested in the events that come
// with each claim or notification and mean nothing to most. Without it they are
// not even made:
//
//	if stream.WantsFrequent() {
//		stream.Emit(event.ClaimStarted{...})
//	}
func (s *Stream) WantsFrequent() bool {
	if s == nil {
		return false
	}
	observers := len(s.observers)
	if s.verbose != nil {
		if s.verbose() {
			return true
		}
		observers--
	}
	return observers > 0 || s.subscriptions.Load() != nil
}

// Observed reports whether anybody is told of anything. Events of each job are
// made only then: an Event that is made is an allocation.
func (s *Stream) Observed() bool {
	return s != nil && (len(s.observers) > 0 || s.subscriptions.Load() != nil)
}

// Emit hands e to the log, to the observers and to the subscriptions, in order.
func (s *Stream) Emit(e Event) {
	if s == nil {
		return
	}
	for _, observer := range s.observers {
		s.notify(observer, e)
	}
	if subscriptions := s.subscriptions.Load(); subscriptions != nil {
		for _, sub := range *subscriptions {
			s.offer(sub, e)
		}
	}
}

func (s *Stream) notify(observer Observer, e Event) {
	defer s.report(e)
	observer(e)
}

// offer gives e to a subscription that wants it.
func (s *Stream) offer(sub *Subscription, e Event) {
	if sub.wants(e) && (sub.filter == nil || s.passes(sub, e)) {
		sub.offer(e)
	}
}

func (s *Stream) passes(sub *Subscription, e Event) bool {
	defer s.report(e)
	return sub.filter(e)
}

// report recovers from a panic of somebody who was told of e, and reports it.
func (s *Stream) report(e Event) {
	value := recover()
	if value == nil {
		return
	}
	if _, again := e.(ObserverPanicked); again {
		return // an observer that panics on this very report gets no second one
	}
	s.Emit(ObserverPanicked{Value: value, Stack: string(debug.Stack()), On: e})
}
