package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

// The task that all sides run, and the one that nobody here runs.
const (
	taskName  = "bench"
	otherTask = "of_others"
)

// An order is the first line of JSON on a side's standard input. A second line,
// or its end, tells the side to stop in an orderly way.
type order struct {
	Peer        string `json:"peer"`
	URL         string `json:"url"`
	Role        string `json:"role"` // "work" or "add"; "migrate" of Rust's
	Concurrency int    `json:"concurrency"`
	// Record keeps the time of each job's start, for reply.Times.
	Record bool `json:"record"`

	// Of those that add:
	Adders  int     `json:"adders"`  // at once
	PerCall int     `json:"perCall"` // jobs
	Seconds float64 `json:"seconds"`
	InTx    bool    `json:"inTx"` // each in a transaction of the caller's

	// Of the raw limits:
	RawBatch       int `json:"rawBatch"` // 0: as gworker
	RawConnections int `json:"rawConnections"`
}

// A payload is what each job carries. JSON numbers that are missing are 0.
type payload struct {
	N int64 `json:"n"`
	// At is when the job was handed to the database, in milliseconds since 1970;
	// 0 for no measurement of latency.
	At float64 `json:"at,omitempty"`
	// Probe makes the side say when the job starts, at once.
	Probe int `json:"probe,omitempty"`
	Ms    int `json:"ms,omitempty"`   // how long it takes
	Fail  int `json:"fail,omitempty"` // how many attempts fail
}

// A reply is a line of JSON on a side's standard output.
type reply struct {
	Event string `json:"event"` // "ready", "count", "probe" or "end"
	// At is when, in nanoseconds since 1970.
	At int64 `json:"at,omitempty"`
	N  int64 `json:"n,omitempty"` // of a probe

	// Of a count and the end: what there was so far.
	Started  int64 `json:"started,omitempty"`
	Finished int64 `json:"finished,omitempty"`
	Failed   int64 `json:"failed,omitempty"`
	First    int64 `json:"first,omitempty"` // when the first handler started
	Busy     int64 `json:"busy,omitempty"`  // nanoseconds in handlers, over all

	// Of the end:
	Latencies map[int]int64 `json:"latencies,omitempty"` // see histogram
	Worst     float64       `json:"worst,omitempty"`     // of them, in ms
	Times     [][2]int64    `json:"times,omitempty"`     // n, and when, in microseconds since 1970
	Calls     int64         `json:"calls,omitempty"`
	Added     int64         `json:"added,omitempty"`
	Nanos     int64         `json:"nanos,omitempty"` // that adding took
}

var said sync.Mutex

// say writes a reply.
func say(r reply) {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // numbers and strings
	}
	said.Lock()
	defer said.Unlock()
	_, _ = os.Stdout.Write(append(line, '\n')) // who reads it is gone, or sees that it is missing
}

// side is the hidden subcommand: this program as one side of a measurement.
func side() error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading the order: %w", err)
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("reading the order: %w", err)
	}
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_, _ = in.ReadBytes('\n')
	}()
	run := map[string]func(order, <-chan struct{}) error{
		"gworker/work": workGworker, "gworker-locked/work": workGworker, "gworker-off/work": workGworker,
		"gworker/add": addGworker, "gworker-locked/add": addGworker, "gworker-off/add": addGworker,
		"river/work": workRiver, "river-2000/work": workRiver,
		"river/add": addRiver, "river-2000/add": addRiver,
		"raw-locked/work": workRaw, "raw-held/work": workRaw, "raw-select/work": workRaw,
		"sql/add": addSQL,
	}[o.Peer+"/"+o.Role]
	if run == nil {
		return fmt.Errorf("no side %s for %s", o.Peer, o.Role)
	}
	return run(o, stop)
}
