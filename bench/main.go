// Command bench compares gworker with other queues in PostgreSQL, and with
// what PostgreSQL itself can do. See README.md.
//
// What comes in are flags; what goes out is a table, and JSON, Markdown and a
// plot if asked for. The one thing not to break: no figure without a check that
// the work behind it was done. A side that fails is reported as failed.
//
//	main.go      flags, and the order of things
//	server.go    the PostgreSQL that all share, a database for each run
//	queue.go     what differs between the tables of Graphile Worker and River
//	peer.go      the sides; gworker.go, node.go, rust.go, river.go and raw.go are theirs
//	protocol.go  how a side's process is told what to do, and what it answers
//	tally.go     what its handlers count
//	process.go   that process, seen from here
//	roundtrip.go the network between it and the server
//	usage.go     CPU and memory, from /proc
//	bench.go     rounds and runs
//	scenario.go  what can be measured; drain.go, busy.go, adding.go, steady.go,
//	             latency.go, trickle.go and cost.go measure it
//	report.go    medians, ratios, tables; targets.go, plot.go
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// sideEnv set, this program is one side of a measurement.
const sideEnv = "GWORKER_BENCH_SIDE"

func main() {
	if os.Getenv(sideEnv) != "" {
		if err := side(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2) // parse has said why
	}
	if o.build {
		if !build(os.Stdout, o) {
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	failed, err := measure(ctx, o)
	stop()
	if err != nil {
		tell("bench: %v", err)
		os.Exit(1)
	}
	if failed {
		tell("bench: some runs have failed")
		os.Exit(1)
	}
}

func parse(args []string) (o options, err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "Usage: go run . [flags]\n\n")
		fs.PrintDefaults()
		fmt.Fprintf(fs.Output(), "\nScenarios:\n")
		for _, s := range scenarios() {
			fmt.Fprintf(fs.Output(), "  %-14s %s\n", s.name, s.what)
		}
		fmt.Fprintf(fs.Output(), "\nPeers:\n")
		for _, p := range allPeers() {
			fmt.Fprintf(fs.Output(), "  %-14s %s\n", p.name, p.what)
		}
	}
	chosen := fs.String("scenarios", "", "`names` of what to measure, with commas between; empty: all")
	peers := fs.String("peers", "", "`names` of the sides to measure, with commas between; empty: all")
	fs.IntVar(&o.rounds, "rounds", 3, "how often each side is measured, in alternation")
	fs.Float64Var(&o.jobs, "jobs", 1, "scales the numbers of jobs")
	fs.DurationVar(&o.duration, "duration", time.Minute, "how long the steady state with an old snapshot is measured; "+
		"the other steady states are for a fifth of it a round, idleness for a quarter, trickles for a sixth, adding for a twentieth")
	fs.DurationVar(&o.limit, "limit", 6*time.Second, "when a drain is stopped; what was done by then counts")
	fs.BoolVar(&o.quick, "quick", false, "measure only what the targets need")
	fs.BoolVar(&o.build, "build", false, "measure nothing: only install and build what the sides need, into the user's cache folder")
	fs.DurationVar(&o.roundTrip, "rtt", 0, "the round trip between the sides and the server: a proxy keeps all bytes back for half of it; 0: none")
	fs.IntVar(&o.processes, "processes", 0, "`processes` of each side in the drains, the busy scenarios and the trickles; 0: as the scenario says")
	fs.IntVar(&o.slots, "slots", 0, "slots of each process; 0: as the scenario says. River keeps its own")
	fs.IntVar(&o.rawBatch, "raw-batch", 0, "jobs a statement of the raw limits; 0: as many as gworker takes at most, held and locked")
	fs.IntVar(&o.rawConnections, "raw-connections", 2, "connections of the raw limits")
	fs.StringVar(&o.json, "json", "", "write the report to this `file`")
	fs.StringVar(&o.plot, "plot", "", "write a plot of the drains, as SVG, to this `file`")
	fs.StringVar(&o.markdown, "markdown", "", "write the table, as Markdown, to this `file`")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.scenarios, o.peers = list(*chosen), list(*peers)
	if err := o.check(fs.Args()); err != nil {
		fmt.Fprintln(fs.Output(), "bench:", err)
		return o, err
	}
	return o, nil
}

func list(text string) (names []string) {
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func (o options) check(rest []string) error {
	for _, name := range o.scenarios {
		if !slices.ContainsFunc(scenarios(), func(s scenario) bool { return s.name == name }) {
			return fmt.Errorf("there is no scenario %q; -h lists them", name)
		}
	}
	for _, name := range o.peers {
		if !slices.ContainsFunc(allPeers(), func(p *peer) bool { return p.name == name }) {
			return fmt.Errorf("there is no peer %q; -h lists them", name)
		}
	}
	switch {
	case len(rest) > 0:
		return fmt.Errorf("what is %q for? All settings are flags", rest[0])
	case o.rounds < 1:
		return errors.New("-rounds must be at least 1")
	case o.jobs <= 0:
		return errors.New("-jobs must be more than 0")
	case o.duration < time.Second || o.limit < time.Second:
		return errors.New("-duration and -limit must be at least 1s")
	case o.roundTrip < 0 || o.processes < 0 || o.slots < 0:
		return errors.New("-rtt, -processes and -slots cannot be negative")
	case o.rawBatch < 0 || o.rawConnections < 1:
		return errors.New("-raw-batch must be at least 0, -raw-connections at least 1")
	}
	return nil
}

func (o options) chosenPeers() []*peer {
	if len(o.peers) == 0 {
		return allPeers()
	}
	return slices.DeleteFunc(allPeers(), func(p *peer) bool { return !slices.Contains(o.peers, p.name) })
}

// build makes the chosen sides ready, and says whether all of them can be had.
func build(w io.Writer, o options) bool {
	all := true
	for _, p := range o.chosenPeers() {
		version, err := p.version()
		if err != nil {
			all, version = false, "cannot be had: "+err.Error()
		}
		fmt.Fprintf(w, "%-15s %s\n", p.name, version)
	}
	return all
}

// A plan is a scenario and the sides to measure.
type plan struct {
	scenario scenario
	peers    []string
}

func (b *bench) plans() (plans []plan) {
	for _, s := range scenarios() {
		if len(b.options.scenarios) > 0 && !slices.Contains(b.options.scenarios, s.name) {
			continue
		}
		peers := s.peers
		if b.options.quick {
			peers = s.quick
		}
		peers = slices.DeleteFunc(slices.Clone(peers), func(name string) bool { return b.peers[name] == nil })
		if len(peers) > 0 {
			plans = append(plans, plan{s, peers})
		}
	}
	return plans
}

// measure does everything. failed says that some of it did not work.
func measure(ctx context.Context, o options) (failed bool, err error) {
	scratch, err := os.MkdirTemp("", "gworker-bench-*")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(scratch)
	r := &report{Date: time.Now(), Machine: lookAtMachine(), Versions: make(map[string]string), Skipped: make(map[string]string),
		Options: map[string]any{"rounds": o.rounds, "jobs": o.jobs, "duration": o.duration.String(), "limit": o.limit.String(),
			"roundTrip": o.roundTrip.String(), "processes": o.processes, "slots": o.slots,
			"quick": o.quick, "rawBatch": o.rawBatch, "rawConnections": o.rawConnections}}
	b := &bench{options: o, scratch: scratch, peers: make(map[string]*peer), rates: make(map[string][]float64), now: tell, database: "bench_run"}
	for _, p := range o.chosenPeers() {
		if version, err := p.version(); err != nil {
			r.Skipped[p.name] = err.Error()
		} else {
			b.peers[p.name], r.Versions[p.name] = p, version
		}
	}
	plans := b.plans()
	if len(plans) == 0 {
		return false, errors.New("nothing to measure: no chosen scenario has a side among the chosen peers that are here")
	}
	if b.server, err = startServer(ctx, nil); err != nil {
		return false, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	defer func() { err = errors.Join(err, b.server.close(context.WithoutCancel(ctx))) }()
	r.Server, r.Settings = b.server.version, b.server.shown
	if o.roundTrip > 0 {
		if b.distance, err = newDistance(b.server.pg.AdminURL(), o.roundTrip); err != nil {
			return false, err
		}
		defer b.distance.close()
	}
	r.heading(os.Stdout)
	seconds := 0.0
	for _, p := range plans {
		seconds += 3 + p.scenario.seconds(b)*float64(len(p.peers)*o.rounds)
	}
	tell("this takes about %s", time.Duration(seconds*float64(time.Second)).Round(time.Minute/2))
	for _, p := range plans {
		if err := b.run(ctx, p.scenario, p.peers); err != nil {
			return false, fmt.Errorf("%s: %w", p.scenario.name, err)
		}
	}
	r.Results, r.Summary = b.results, summarise(b.results)
	r.Targets = r.targets()
	r.table(os.Stdout)
	writeTargets(os.Stdout, r.Targets)
	failed = slices.ContainsFunc(b.results, func(r result) bool { return r.Error != "" })
	return failed, r.writeFiles(o)
}

func (r *report) writeFiles(o options) error {
	var errs []error
	if o.json != "" {
		errs = append(errs, r.writeJSON(o.json))
	}
	if o.markdown != "" {
		errs = append(errs, os.WriteFile(o.markdown, []byte(r.markdown()), 0o644))
	}
	if o.plot != "" {
		errs = append(errs, r.writePlot(o.plot))
	}
	return errors.Join(errs...)
}
