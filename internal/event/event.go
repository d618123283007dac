// Package event is the one stream of everything observable. The flow emits
// typed events; logs, hooks, metrics, subscriptions and tests consume them and
// nothing else. No component logs or counts on its own.
//
// Events are values, emitted on the goroutine where the thing happened and
// handed to every observer before the flow goes on. The one thing not to break:
// an observer cannot hurt the flow; a panic in one is caught and itself
// reported.
//
// The events by family, each a documented struct:
//
//	worker.go      the worker's life, its database and its schema
//	claim.go       claims, and what they found
//	hold.go        held claims
//	localqueue.go  the local queue
//	job.go         the runs of jobs and their ends
//	outcome.go     outcomes that the database did not take
//	listener.go    the listener and what it hears
//	recovery.go    heartbeats, sweeps and lost locks
//	cron.go        the schedule
//
// stream.go hands events to observers, and subscription.go to those who read them
// from a channel. An event is added in its family's file, with its alias in the
// root's event.go, its log line in log.go, and its row in docs/events.md.
package event

// Event is any of the types of this package.
type Event interface{ event() }
