package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// A target is one of those that the project has set itself.
type target struct {
	Name     string  `json:"name"`
	Wanted   string  `json:"wanted"`
	Measured float64 `json:"measured"`
	Verdict  string  `json:"verdict"` // "met", "not met", or why there is none
}

// targets judges what was measured.
func (r *report) targets() (all []target) {
	add := func(name string, least bool, bound, measured float64, ok bool, format string) {
		t := target{Name: name, Measured: measured, Verdict: "not measured"}
		word := "at most"
		if least {
			word = "at least"
		}
		t.Wanted = fmt.Sprintf(word+" "+format, bound)
		if ok {
			t.Verdict = "not met"
			if least && measured >= bound || !least && measured <= bound {
				t.Verdict = "met"
			}
		}
		all = append(all, t)
	}
	// quotient is a's figure divided by b's.
	quotient := func(sa, a, sb, b string, m metric) (float64, bool) {
		x, ok := r.figure(sa, a, m)
		y, also := r.figure(sb, b, m)
		if !ok || !also || y == 0 {
			return 0, false
		}
		return x / y, true
	}
	rates := func(name string, bound float64, sa, a, sb, b string) {
		v, ok := quotient(sa, a, sb, b, rate)
		add(name, true, bound, v, ok, "%.2f times")
	}
	// best is the best of some sides.
	best := func(scenario string, m metric, peers ...string) (string, bool) {
		name, top, found := peers[0], 0.0, false
		for _, p := range peers {
			if v, ok := r.figure(scenario, p, m); ok && (!found || v > top != m.less) {
				name, top, found = p, v, true
			}
		}
		return name, found
	}
	node, _ := best("drain", rate, "node-batch", "node")
	river, _ := best("drain", rate, "river-2000", "river")
	rates("drain, against Node at its best ("+node+")", 3, "drain", "gworker", "drain", node)
	rates("drain, against River at its best ("+river+")", 5, "drain", "gworker", "drain", river)
	rates("drain, against the raw held limit", 0.7, "drain", "gworker", "drain", "raw-held")
	rates("drain without holding, against Node with batching", 1.3, "drain", "gworker-locked", "drain", "node-batch")
	rates("drain without holding, against the raw locked limit", 0.85, "drain", "gworker-locked", "drain", "raw-locked")
	for _, s := range []string{"stuck-future", "stuck-failed", "stuck-queues"} {
		rates(s+", against the plain drain", 0.8, s, "gworker", "drain", "gworker")
	}
	node, _ = best("queues100", rate, "node-batch", "node")
	rates("100 named queues, against Node ("+node+")", 3, "queues100", "gworker", "queues100", node)

	latency, ok := r.figure("latency", "gworker", p50)
	trips, also := r.figure("latency", "gworker", roundTrips)
	v := 0.0
	if ok && also {
		v = latency / trips
	}
	add("latency idle p50, against a notify and a claim round trip", false, 1.5, v, ok && also, "%.2f times")
	for _, other := range []string{"node", "river", "river-2000"} {
		v, ok := quotient("latency", "gworker", "latency", other, p50)
		add("latency idle p50, against "+other, false, 1, v, ok, "%.2f times")
	}
	v, ok = r.figure("busy5ms", "gworker", ideal)
	add("5 ms jobs, share of ideal", true, 0.95, v, ok, "%.2f")
	v, ok = r.figure("idle", "gworker", perPoll)
	add("idle, statements a poll interval", false, 1, v, ok, "%.2f")
	v, ok = r.figure("idle", "gworker", coreShare)
	add("idle, % of a core", false, 0.5, v, ok, "%.2f")
	v, ok = r.figure("drain", "gworker", workerMB)
	add("memory of the drain, MB", false, 60, v, ok, "%.0f")
	v, ok = quotient("add-96", "gworker", "add-96", "sql", commits)
	add("96 adders, commits against SQL clients", true, 2, v, ok, "%.2f times")
	v, ok = r.figure("add-96-busy", "gworker", afterCommit50)
	add("96 adders and a worker, commit to start p50, ms", false, 10, v, ok, "%.1f")
	v, ok = r.figure("add-96-busy", "gworker", afterCommit99)
	add("96 adders and a worker, commit to start p99, ms", false, 10, v, ok, "%.1f")
	v, ok = quotient("oldsnapshot", "gworker", "oldsnapshot", "node-batch", handledRate)
	add("old snapshot, rate against Node", true, 2*0.98, v, ok, "%.2f times")
	v, ok = quotient("oldsnapshot", "gworker", "oldsnapshot", "node-batch", p99)
	add("old snapshot, p99 against Node's", false, 1, v, ok, "%.2f times")
	v, ok = r.figure("oldsnapshot", "gworker", steadiness)
	add("old snapshot, last third of the first", true, 0.9, v, ok, "%.2f")
	rates("10,000 queues behind 1,000,000 jobs of others, against the plain drain", 0.5, "millionahead", "gworker", "drain", "gworker")
	v, ok = quotient("add-10000", "sql", "add-10000", "gworker", commits)
	add("10,000 jobs a call, time against SQL", false, 1.3, v, ok, "%.2f times")
	return all
}

func writeTargets(w io.Writer, all []target) {
	fmt.Fprintln(w, "\nTargets")
	tw := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	for _, t := range all {
		measured := "-"
		if t.Verdict != "not measured" {
			measured = fmt.Sprintf("%.2f", t.Measured)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", t.Name, t.Wanted, measured, t.Verdict)
	}
	_ = tw.Flush()
}
