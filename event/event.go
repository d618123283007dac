// Package event has the events of a worker: what happens in it, each a struct. Observers
// (gworker.Config.Observers) and subscriptions (gworker.Worker.Subscribe) get them, and the
// worker's log lines are made from them.
//
// The events by family:
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
package event

// Event is something that happened in a worker: any of the event types of this package.
type Event interface{ event() }
