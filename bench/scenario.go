package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// A metric is something that a scenario measures.
type metric struct {
	name   string
	unit   string
	format string
	less   bool // less is better
}

var (
	rate          = metric{name: "rate", unit: "jobs/s", format: "%.0f"}
	workerSeconds = metric{name: "worker_cpu", unit: "CPU s, worker", format: "%.2f", less: true}
	workerMB      = metric{name: "worker_memory", unit: "peak MB, worker", format: "%.0f", less: true}
	serverSeconds = metric{name: "server_cpu", unit: "CPU s, server", format: "%.2f", less: true}
	serverMB      = metric{name: "server_memory", unit: "peak MB, server", format: "%.0f", less: true}
	handledJobs   = metric{name: "jobs", unit: "jobs done", format: "%.0f"}
	ideal         = metric{name: "ideal", unit: "of ideal", format: "%.3f"}
	busyShare     = metric{name: "busy", unit: "slots busy", format: "%.3f"}
	commits       = metric{name: "commits", unit: "commits/s", format: "%.0f"}
	addedRate     = metric{name: "added", unit: "jobs added/s", format: "%.0f"}
	p50           = metric{name: "p50", unit: "p50 ms", format: "%.2f", less: true}
	p99           = metric{name: "p99", unit: "p99 ms", format: "%.2f", less: true}
	worst         = metric{name: "max", unit: "max ms", format: "%.1f", less: true}
	afterCommit50 = metric{name: "start_p50", unit: "commit to start p50 ms", format: "%.2f", less: true}
	afterCommit99 = metric{name: "start_p99", unit: "commit to start p99 ms", format: "%.2f", less: true}
	transactions  = metric{name: "transactions", unit: "transactions/job", format: "%.2f", less: true}
	roundTrips    = metric{name: "roundtrips", unit: "notify + claim ms", format: "%.2f", less: true}
	offered       = metric{name: "offered", unit: "jobs/s wanted", format: "%.0f"}
	fed           = metric{name: "fed", unit: "jobs/s added", format: "%.0f"}
	steadiness    = metric{name: "last_third", unit: "last third of first", format: "%.2f"}
	backlog       = metric{name: "backlog", unit: "waiting at the end", format: "%.0f", less: true}
	startTime     = metric{name: "start", unit: "ms to first job", format: "%.0f", less: true}
	statements    = metric{name: "statements", unit: "statements/min", format: "%.1f", less: true}
	perPoll       = metric{name: "per_poll", unit: "statements/poll", format: "%.2f", less: true}
	coreShare     = metric{name: "core", unit: "% of a core", format: "%.3f", less: true}
)

var usageMetrics = []metric{workerSeconds, workerMB, serverSeconds, serverMB}

// A scenario is one thing that is measured, of several sides.
type scenario struct {
	name    string
	what    string
	peers   []string
	quick   []string // with -quick; none: left out
	metrics []metric // the first is the one that ratios are of
	mean    bool     // of the rounds, and not their median
	seconds func(*bench) float64
	filling func(*bench) filling
	run     func(context.Context, *run) error
}

func (s scenario) line(f figures) string {
	var parts []string
	for _, m := range s.metrics {
		if v, ok := f[m.name]; ok {
			parts = append(parts, fmt.Sprintf(m.format+" %s", v, m.unit))
		}
	}
	return strings.Join(parts, ", ")
}

var (
	graphilePeers = []string{"gworker", "gworker-locked", "node", "node-batch"} // that targets name
	rustPeers     = []string{"rust", "rust-batch"}
	targetWorkers = with(graphilePeers, "river", "river-2000")
	allWorkers    = with(targetWorkers, rustPeers...)
	bestWorkers   = []string{"gworker", "node-batch", "rust-batch", "river-2000"} // those who are the fastest of their kind
	bestGraphile  = []string{"gworker", "node-batch"}
)

func with(names []string, more ...string) []string {
	return append(append([]string(nil), names...), more...)
}

// scenarios are all of them, in the order in which they run: the plain drain
// comes first, since others take their rates from it.
func scenarios() []scenario {
	return concat(drainScenarios(), busyScenarios(), addingScenarios(), steadyScenarios(), latencyScenarios(), trickleScenarios(), costScenarios())
}

func concat(lists ...[]scenario) (all []scenario) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

func empty(*bench) filling { return filling{} }

// fixed is an estimate that does not depend on the side.
func fixed(d func(*bench) time.Duration) func(*bench) float64 {
	return func(b *bench) float64 { return d(b).Seconds() + 2 }
}
