// Package event has the events of a worker, each a struct: what happened, to whom, and the
// line that it makes in a log. Observers (gworker.Config.Observers) and subscriptions
// (gworker.Worker.Subscribe) get them, and switch on their types:
//
//	func(e event.Event) {
//		switch e := e.(type) {
//		case event.JobFailed:
//			failures.Add(e.Job.Task, 1)
//		}
//	}
//
// A worker's own log is made from the same events; Level and Line give what it writes.
// The page docs/events.md has all of them in the order of a worker's life.
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
//	history.go     what could not be recorded
//
// To add an event, add a struct with its methods level and line to its family's file, and
// its row to docs/events.md. Tests compare the two, and see that each field is explained.
// The one thing not to break: level and line return, whatever a job, an error or a panic
// of the user's is; they touch only what internal/contain has read.
package event

import (
	"log/slog"
	"time"

	"github.com/gworker/gworker/internal/logattr"
)

// Event is something that happened in a worker: any of the event types of this package.
type Event interface {
	// level is the level of the event's log line.
	level() slog.Level
	// line is the message and the attributes of that line.
	line() (message string, attrs []slog.Attr)
}

// Level returns the level at which a worker logs an event.
func Level(e Event) slog.Level { return e.level() }

// Line returns the message of an event's log line, and its attributes. Empty ones among
// them are for the handler to leave out, as slog's handlers do.
func Line(e Event) (message string, attrs []slog.Attr) { return e.line() }

// retryIn is when something is tried again.
func retryIn(d time.Duration) slog.Attr { return slog.Duration("retry_in", d) }

// durationAttr and its siblings are short names of what many lines have.
var (
	durationAttr = logattr.Duration
	errAttr      = logattr.Err
)

func workerAttr(id string) slog.Attr { return slog.String("worker_id", id) }
