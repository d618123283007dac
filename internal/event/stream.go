package event

import "runtime/debug"

// Observer consumes events. It is called from many goroutines at once and the
// flow waits for it, so it should only note what it needs.
type Observer func(Event)

// Stream hands each event to every observer. Observers are fixed when it is
// made; a nil *Stream has none.
type Stream struct{ observers []Observer }

// NewStream returns a stream to the given observers.
func NewStream(observers ...Observer) *Stream { return &Stream{observers: observers} }

// Emit hands e to every observer in order.
func (s *Stream) Emit(e Event) {
	if s == nil {
		return
	}
	for i := range s.observers {
		s.notify(i, e)
	}
}

func (s *Stream) notify(i int, e Event) {
	defer func() {
		value := recover()
		if value == nil {
			return
		}
		if _, again := e.(ObserverPanicked); again {
			return // an observer that panics on this very report gets no second one
		}
		s.Emit(ObserverPanicked{Value: value, Stack: string(debug.Stack()), On: e})
	}()
	s.observers[i](e)
}
