// Package eventstream passes the events of a worker on: first to the log, then to every
// observer and every subscription. It is the only source of logs, hooks, metrics,
// subscriptions and tests; no component logs or counts by itself.
//
//	stream.go        the stream, its log and its observers
//	subscription.go  buffers of events for readers of a channel
//
// Events are values, emitted on the goroutine where they happened and passed to every
// observer before the flow continues. The one thing not to break: an observer cannot
// damage the flow. Its panic is caught, and reported as an event.
package eventstream

import (
	"sync"
	"sync/atomic"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/contain"
)

// Observer consumes events. It is called from many goroutines at once and the
// flow waits for it, so it should only note what it needs.
type Observer func(event.Event)

// Stream hands each event to the log, to every observer and to every
// subscription. Log and observers are fixed when it is made, subscriptions come
// and go. A nil *Stream has none of them.
type Stream struct {
	observers []Observer
	log       Log // nil: there is none
	levels    LogLevels

	mu            sync.Mutex // guards changes of what follows
	closed        bool
	subscriptions atomic.Pointer[[]*Subscription] // replaced, never changed
}

// New returns a stream to the given observers.
func New(observers ...Observer) *Stream { return &Stream{observers: observers} }

// Log writes a line for an event, and always returns. Its error is what the user's handler has
// done instead of returning.
type Log func(event.Event) error

// LogLevels say which levels of a log are enabled at present. They always return.
type LogLevels struct {
	Debug func() bool // events of every kind
	Info  func() bool // at least what happens as it should
}

// NewWithLog is New with a log that comes first.
func NewWithLog(log Log, levels LogLevels, observers ...Observer) *Stream {
	return &Stream{observers: observers, log: log, levels: levels}
}

// WantsFrequent reports whether there is a receiver for the events of level debug: those of
// each claim, notification or start of a job. Without one they are not even made, since each
// is an allocation:
//
//	if stream.WantsFrequent() {
//		stream.Emit(event.ClaimStarted{...})
//	}
func (s *Stream) WantsFrequent() bool {
	return s != nil && (s.listeners() || s.log != nil && s.levels.Debug())
}

// WantsRoutine is WantsFrequent for events that the log takes from the level info on.
func (s *Stream) WantsRoutine() bool {
	return s != nil && (s.listeners() || s.log != nil && s.levels.Info())
}

// listeners reports whether anything but the log wants events.
func (s *Stream) listeners() bool { return len(s.observers) > 0 || s.subscriptions.Load() != nil }

// Emit hands e to the log, to the observers and to the subscriptions, in order.
func (s *Stream) Emit(e event.Event) {
	if s == nil {
		return
	}
	s.write(e)
	s.tell(s.observers, e)
}

// EmitHere is Emit on the caller's goroutine, which is cheaper. All receivers get e, but an
// observer that ends its goroutine (runtime.Goexit) ends the caller's, which must go on in a
// deferred function.
func (s *Stream) EmitHere(e event.Event) {
	if s == nil {
		return
	}
	s.write(e)
	observers, called, ok := s.observers, 0, false
	defer func() {
		if !ok {
			err := contain.ErrGoexit
			if value := recover(); value != nil {
				err = contain.Recovered(value)
			}
			s.report(e, err)
		}
		s.tell(observers[called:], e)
	}()
	for _, observer := range observers {
		called++
		observer(e)
	}
	ok = true
}

// tell hands e to observers, and to the subscriptions.
func (s *Stream) tell(observers []Observer, e event.Event) {
	for len(observers) > 0 {
		called := 0
		err := contain.Call(func() { // one goroutine for all of them, as a rule
			for _, observer := range observers {
				called++
				observer(e)
			}
		})
		observers = observers[called:]
		s.report(e, err)
	}
	if subscriptions := s.subscriptions.Load(); subscriptions != nil {
		for _, sub := range *subscriptions {
			s.offer(sub, e)
		}
	}
}

// write hands e to the log.
func (s *Stream) write(e event.Event) {
	if s.log != nil {
		s.report(e, s.log(e))
	}
}

// offer gives e to a subscription that wants it.
func (s *Stream) offer(sub *Subscription, e event.Event) {
	if sub.wants(e) && (sub.filter == nil || s.passes(sub, e)) {
		sub.offer(e)
	}
}

func (s *Stream) passes(sub *Subscription, e event.Event) (passes bool) {
	err := contain.Call(func() { passes = sub.filter(e) })
	s.report(e, err)
	return passes && err == nil
}

// report reports what observers of e have done instead of returning.
func (s *Stream) report(e event.Event, err error) {
	if err == nil {
		return
	}
	if _, again := e.(event.ObserverPanicked); again {
		return // an observer that panics on this very report gets no second one
	}
	value, stack := contain.Cause(err)
	s.Emit(event.ObserverPanicked{Value: value, Stack: stack, On: e})
}
