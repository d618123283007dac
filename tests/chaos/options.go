//go:build unix

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gworker/gworker"
)

// options are what a run can be told.
type options struct {
	Duration time.Duration
	Seed     uint64
	Workers  int
	Node     bool
	Rust     int           // workers
	Rate     int           // jobs a second
	Jobs     int           // not 0: a soak, which ends when these have been added
	Pause    time.Duration // the longest between two faults
	Faults   []string      // none: all kinds
	Logs     string        // a folder; empty: kept only if the run fails
}

func defaults() options {
	return options{Duration: 2 * time.Minute, Workers: 4, Node: true, Rate: 60, Pause: 2 * time.Second}
}

func (o options) check() error {
	for _, kind := range o.Faults {
		if !slices.Contains(faultKinds(), kind) {
			return fmt.Errorf("no fault is called %q", kind)
		}
	}
	if o.Duration <= 0 || o.Workers < 1 || o.Rate < 1 || o.Pause <= 0 {
		return errors.New("duration, workers, rate and pause must be positive")
	}
	if slices.Contains(o.Faults, "clock") && o.Duration >= clockStep/2 {
		return fmt.Errorf("with the fault clock, duration must be less than %s", clockStep/2)
	}
	if o.Jobs < 0 || o.Rust < 0 {
		return errors.New("jobs and rust cannot be negative")
	}
	return nil
}

// What the workers are configured with. The thresholds are short, so that a
// minute holds many recoveries, and far enough from each other for a busy
// machine.
const (
	heartbeat        = 400 * time.Millisecond
	sweepInterval    = 500 * time.Millisecond
	staleAfter       = 2500 * time.Millisecond
	statementTimeout = 4 * time.Second
	pollInterval     = 500 * time.Millisecond
	abortTimeout     = 2 * time.Second

	// One worker claims ahead of its slots. Jobs that have waited there for this long
	// go back.
	localQueueSlot = "w2"
	localQueueSize = 20
	localQueueTTL  = 300 * time.Millisecond

	// One worker locks every job. The others hold short jobs: one for so long that
	// faults find it holding something, the rest for the default time.
	lockedSlot   = "w3"
	longHoldSlot = "w4"
	longHold     = time.Second

	concurrency        = 8
	foreignConcurrency = 4
)

// holdTime is how long the worker of a slot holds jobs.
func holdTime(slot string) time.Duration {
	switch slot {
	case localQueueSlot, lockedSlot:
		return 0
	case longHoldSlot:
		return longHold
	}
	return gworker.DefaultHoldTime
}

// The names under which sessions are known to the server.
const (
	appPrefix  = "chaos-"
	harnessApp = "chaos-harness"
	loadApp    = "chaos-load"

	// The role of the workers and the load has the rights of a worker and no more:
	// a superuser has no rights to lose and no limit.
	role      = "chaos_app"
	superuser = "postgres"
)
