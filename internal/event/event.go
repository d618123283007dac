// Package event is the one stream of everything observable. The flow emits typed
// events; logs, hooks, metrics, subscriptions and tests consume them and nothing else.
// No component logs or counts by itself.
//
// Events are values, emitted on the goroutine where they happened and passed to every
// observer before the flow continues. The one thing not to break: an observer cannot
// hurt the flow. A panic in one is caught, and itself reported.
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
// stream.go passes events to observers, and subscription.go to readers of a channel.
// To add an event, add it to its family's file, its alias to the root's event.go, its
// log line to log.go, and its row to docs/events.md.
package event

// Event is any of the types of this package.
type Event interface{ event() }
