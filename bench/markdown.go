package main

import (
	"fmt"
	"strings"
)

// columns are the workers in the table of docs/benchmark.md. What else was measured, the raw
// limits and SQL clients, shares the last one.
var columns = []struct{ peer, title string }{
	{"gworker", "gworker"}, {"gworker-locked", "gworker, `HoldTime` 0"}, {"node-batch", "Node, batching"}, {"node", "Node"},
	{"rust-batch", "Rust, batching"}, {"rust", "Rust"},
	{"river-2000", "River, 2,000 workers"}, {"river", "River"},
}

// alongside are the metrics that a cell shows after its first one.
var alongside = []metric{p99, afterCommit50}

// markdown is the table of docs/benchmark.md.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s on %s with PostgreSQL %s, medians of %v rounds.\n\n",
		r.Date.Format("2 January 2006"), r.Machine, r.Server, r.Options["rounds"])
	if r.Options["jobs"] != 1.0 {
		fmt.Fprintf(&b, "The numbers of jobs below are multiplied by %v: for trying things out.\n\n", r.Options["jobs"])
	}
	b.WriteString("| |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.title)
	}
	fmt.Fprintf(&b, " limit |\n|---|%s\n", strings.Repeat("---:|", len(columns)+1))
	for _, s := range scenarios() {
		rows := r.rows(s.name)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(&b, "| %s, %s |", s.what, s.metrics[0].unit)
		cells := make(map[string]string, len(rows))
		for _, row := range rows {
			cells[row.Peer] = s.cell(row.Figures)
		}
		for _, c := range columns {
			fmt.Fprintf(&b, " %s |", cells[c.peer])
			delete(cells, c.peer)
		}
		var limits []string
		for _, row := range rows {
			if text, ok := cells[row.Peer]; ok {
				limits = append(limits, row.Peer+" "+text)
			}
		}
		fmt.Fprintf(&b, " %s |\n", strings.Join(limits, "<br>"))
	}
	b.WriteString("\n")
	for _, p := range allPeers() {
		if v, ok := r.Versions[p.name]; ok {
			fmt.Fprintf(&b, "- %s: %s, %s\n", p.name, p.what, v)
		}
	}
	for _, name := range sortedKeys(r.Skipped) {
		fmt.Fprintf(&b, "- %s: not measured, %s\n", name, r.Skipped[name])
	}
	return b.String()
}

// cell is a side's figures in the table.
func (s scenario) cell(f figures) string {
	text := func(m metric) string {
		v, ok := f[m.name]
		switch {
		case !ok:
			return ""
		case m.format == "%.0f":
			return thousands(v)
		}
		return fmt.Sprintf(m.format, v)
	}
	cell := text(s.metrics[0])
	if cell == "" {
		return "failed"
	}
	for _, m := range alongside {
		if v := text(m); v != "" {
			cell += fmt.Sprintf(" (%s %s)", strings.TrimSuffix(m.unit, " ms"), v+" ms")
		}
	}
	return cell
}
