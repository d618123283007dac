package main

import (
	"fmt"
	"html"
	"os"
	"strings"
)

// plotted are the scenarios of the plot, and what it calls them.
var plotted = []struct{ scenario, label string }{
	{"drain", "plain drain"}, {"stuck-queues", "behind locked queues"}, {"queues100", "100 named queues"},
	{"millionahead", "1,000,000 jobs of others ahead"}, {"payload10k", "payloads of 10 kB"},
}

var colours = map[string]string{
	"gworker": "#2f81f7", "gworker-locked": "#79b8ff", "gworker-off": "#b6d6ff", "node": "#3fb950", "node-batch": "#1a7f37", "rust": "#f78166", "rust-batch": "#bc4c00",
	"river": "#d29922", "river-2000": "#9a6700", "raw-locked": "#a371f7", "raw-held": "#8957e5", "raw-select": "#6e40c9",
}

// writePlot draws bars of jobs a second, a group for each scenario. The greys
// and the colours can be told from a light background and from a dark one.
func (r *report) writePlot(path string) error {
	const (
		left, width, bar, gap, top = 210, 560, 15, 22, 46
		grey                       = "#848d97"
	)
	type row struct {
		label string
		bars  []summary
	}
	var rows []row
	most := 0.0
	for _, p := range plotted {
		var bars []summary
		for _, s := range r.rows(p.scenario) {
			if v := s.Figures[rate.name]; v > 0 {
				bars, most = append(bars, s), max(most, v)
			}
		}
		if len(bars) > 0 {
			rows = append(rows, row{p.label, bars})
		}
	}
	if len(rows) == 0 {
		return fmt.Errorf("drawing a plot: no drain was measured")
	}
	step := niceStep(most / 5)
	scale := float64(width) / (step * float64(int(most/step)+1))
	var b strings.Builder
	text := func(x, y float64, anchor, extra, s string) {
		fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" text-anchor="%s" fill="%s" %s>%s</text>`+"\n", x, y, anchor, grey, extra, html.EscapeString(s))
	}
	y := float64(top)
	for _, group := range rows {
		text(10, y+12, "start", `font-weight="bold"`, group.label)
		y += 18
		for _, s := range group.bars {
			v := s.Figures[rate.name]
			text(left-8, y+bar-4, "end", "", s.Peer)
			fmt.Fprintf(&b, `<rect x="%d" y="%.0f" width="%.1f" height="%d" fill="%s"/>`+"\n", left, y, max(1, v*scale), bar-2, colours[s.Peer])
			text(left+v*scale+5, y+bar-4, "start", "", thousands(v))
			y += bar
		}
		y += gap
	}
	bottom := y - gap + 6
	for tick := 0.0; tick*scale <= width+0.5; tick += step {
		x := left + tick*scale
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%.0f" stroke="%s" stroke-opacity="0.35"/>`+"\n", x, top-4, x, bottom, grey)
		text(x, bottom+16, "middle", "", thousands(tick))
	}
	text(left+width/2, bottom+34, "middle", "", "jobs a second (more is better)")
	text(10, 20, "start", `font-size="15" font-weight="bold"`, "Jobs drained a second, one process, medians")
	text(10, bottom+58, "start", `font-size="10"`, fmt.Sprintf("%s; PostgreSQL %s; %s", r.Date.Format("2006-01-02"), r.Server, r.Machine))
	var versions []string
	for _, p := range []string{"gworker", "node", "rust", "river"} {
		if v, ok := r.Versions[p]; ok {
			versions = append(versions, p+" "+v)
		}
	}
	text(10, bottom+72, "start", `font-size="10"`, strings.Join(versions, "; "))
	svg := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" width="%d" font-family="sans-serif" font-size="11">`+"\n",
		left+width+70, bottom+84, left+width+70) + b.String() + "</svg>\n"
	if err := os.WriteFile(path, []byte(svg), 0o644); err != nil {
		return fmt.Errorf("writing the plot: %w", err)
	}
	return nil
}

// niceStep is the next of 1, 2, 5, 10, 20, 50, ...
func niceStep(least float64) float64 {
	for step := 1.0; ; step *= 10 {
		for _, f := range []float64{1, 2, 5} {
			if step*f >= least {
				return step * f
			}
		}
	}
}

func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
