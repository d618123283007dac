// Package cron adds jobs at the times that a crontab lists. It is separate from the
// flow of jobs and adds them like any client:
//
//	parse.go    the lines of a crontab, and every error in them
//	options.go  the ?options of a line
//	schedule.go the five time fields
//	zone.go     which minutes match in a time zone, and the next ones
//	set.go      the items of a worker, which may change while it runs
//	loop.go     the minutes as they come: early, on time, late, and after errors
//	backfill.go what was missed while no worker ran
//	add.go      one statement for all items that are due at a minute
//
// Crontab text or items come in; statements and events go out.
//
// The one thing not to break: each minute of an item adds one job, however many
// workers, of any runtime, have the item. The row of the item's identifier in
// _private_known_crontabs is the lock: the statement that adds the jobs first sets the
// row's last_execution to the minute, and adds a job only if that moved it forward. So
// the minutes of an item must be scheduled in order, missed ones before new ones.
//
// # Time
//
// The minutes are those of the worker's clock, as on Node, in UTC unless an item has a
// time zone.
//
// When a zone's clocks change, the rule follows the manuals of cron, which distinguish
// jobs that run often from those that run at a time of day. An item that runs in every
// hour follows real time: nothing is moved. Other items name times of day. A time that
// is skipped runs at the next minute that exists. A time that occurs twice runs the
// first time, unless the minutes have a "*": such an item has a rhythm, which continues
// through the repeated hour.
//
// # Errors
//
// After an error cron starts again, with backoff and without end, as on Node. Node then
// continues from the present, so that one failed statement at 3:00 loses the nightly
// job. This package continues from the minute that it could not write, if that is
// recent. After a longer outage it behaves as at any start: each item's fill decides
// what is made up for.
package cron

import (
	"encoding/json"
	"fmt"
	"time"
)

// Item is one entry of a crontab. It is not changed once it is in use.
type Item struct {
	Schedule Schedule
	// Zone is where the schedule's times are; the zero value is UTC.
	Zone Zone
	Task string
	// Identifier is the item's name in _private_known_crontabs.
	Identifier string
	// Fill is how far back missed minutes are backfilled at start.
	Fill time.Duration
	// Zero values of what follows are the schema's defaults.
	MaxAttempts int
	Queue       string
	Key         string
	KeyMode     string
	Priority    int
	Flags       []string
	// Payload is a JSON object, or nil.
	Payload json.RawMessage
	// Line is where the item stands in its crontab, from 1; 0 for others.
	Line int
}

// Matches reports whether the item is due at a minute.
func (i *Item) Matches(minute time.Time) bool { return i.Zone.matches(&i.Schedule, minute) }

// Next returns the first minute after t at which the item is due, or the zero
// time if there is none.
func (i *Item) Next(t time.Time) time.Time { return i.Zone.next(&i.Schedule, t) }

// tickTime is how a minute stands in payloads, as JavaScript writes times.
const tickTime = "2006-01-02T15:04:05.000Z"

// payload is the item's payload with its _cron member.
func (i *Item) payload(minute time.Time, backfilled bool) (json.RawMessage, error) {
	tick := fmt.Sprintf(`{"ts":%q,"backfilled":%t}`, minute.UTC().Format(tickTime), backfilled)
	members := map[string]json.RawMessage{}
	if i.Payload != nil {
		if err := json.Unmarshal(i.Payload, &members); err != nil {
			return nil, fmt.Errorf("reading the payload of cron item %q: %w", i.Identifier, err)
		}
	}
	members["_cron"] = json.RawMessage(tick)
	merged, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("writing the payload of cron item %q: %w", i.Identifier, err)
	}
	return merged, nil
}
