package gworker

import (
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
)

// DefaultSubscriptionBuffer is the default of SubscriptionConfig.Buffer.
const DefaultSubscriptionBuffer = 1024

// SubscriptionConfig configures a Subscription. The zero value means every event, and a
// buffer for 1024 of them.
type SubscriptionConfig struct {
	// Buffer is how many events wait for the reader before further ones are
	// dropped and counted. 0 or less means 1024.
	Buffer int

	// Types are the wanted types of events, each given by any value of it:
	//
	//	Types: []event.Event{event.JobFailed{}, event.JobPermanentlyFailed{}}
	//
	// Empty means all.
	Types []event.Event

	// Filter, if not nil, returns whether an event of these types is wanted. It is called
	// from many goroutines at once and the worker waits for it, so it should be quick. If
	// it panics, the event is left out, and ObserverPanicked reports it.
	Filter func(event.Event) bool
}

// Subscription is a buffered stream of a worker's events. The worker never waits for its
// reader. Make one with [Worker.Subscribe]. Its methods may be called from any goroutine.
type Subscription struct{ stream *eventstream.Subscription }

// Subscribe returns a new subscription, which gets all later events. It may be called before,
// while and after the worker runs, any number of times; after the worker has stopped, the
// subscription is already closed.
func (w *Worker) Subscribe(config SubscriptionConfig) *Subscription {
	if config.Buffer <= 0 {
		config.Buffer = DefaultSubscriptionBuffer
	}
	return &Subscription{stream: w.events.Subscribe(config.Buffer, config.Types, config.Filter)}
}

// Events returns the channel of events. It is closed after the last one: when Close
// is called, or when the worker has stopped (WorkerStopped is the last event then).
func (s *Subscription) Events() <-chan event.Event { return s.stream.Events() }

// Dropped returns how many events were dropped so far because the buffer was full. If none
// may be missed, use Config.Observers.
func (s *Subscription) Dropped() uint64 { return s.stream.Dropped() }

// Close ends the subscription and closes its channel; what is in the channel can
// still be read. Closing again does nothing.
func (s *Subscription) Close() { s.stream.Close() }
