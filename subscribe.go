package gworker

import (
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
)

// DefaultSubscriptionBuffer is the room of a Subscription whose configuration
// does not say.
const DefaultSubscriptionBuffer = 1024

// SubscriptionConfig configures a Subscription. The zero value is every event, with
// room for 1024 of them.
type SubscriptionConfig struct {
	// Buffer is how many events wait for the reader before further ones are
	// dropped and counted. 0 or less means 1024.
	Buffer int

	// Types are the types of events that are wanted, each as any value of it:
	//
	//	Types: []event.Event{event.JobFailed{}, event.JobPermanentlyFailed{}}
	//
	// None means all.
	Types []event.Event

	// Filter, if not nil, says which events of these types are wanted. It is
	// called from many goroutines at once and the worker waits for it, so it
	// should only look at the event. If it panics the event is not wanted, and
	// ObserverPanicked reports it.
	Filter func(event.Event) bool
}

// Subscription is a stream of a worker's events with a buffer of its own, for
// whoever reads at a pace of their own: the worker never waits for it. Make one with
// [Worker.Subscribe]. Its methods may be called from any goroutine.
type Subscription struct{ stream *eventstream.Subscription }

// Subscribe returns a new subscription, which gets what happens from now on. It may
// be called before, while and after the worker runs, any number of times; when the
// worker has stopped the subscription is closed already.
func (w *Worker) Subscribe(config SubscriptionConfig) *Subscription {
	if config.Buffer <= 0 {
		config.Buffer = DefaultSubscriptionBuffer
	}
	return &Subscription{stream: w.events.Subscribe(config.Buffer, config.Types, config.Filter)}
}

// Events returns the channel of events. It is closed after the last one: when Close
// is called, or when the worker has stopped (WorkerStopped is the last event then).
func (s *Subscription) Events() <-chan event.Event { return s.stream.Events() }

// Dropped returns how many events had no room so far. Where none may be missed, use
// Config.Observers.
func (s *Subscription) Dropped() uint64 { return s.stream.Dropped() }

// Close ends the subscription and closes its channel; what is in the channel can
// still be read. Closing again does nothing.
func (s *Subscription) Close() { s.stream.Close() }
