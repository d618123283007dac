package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// A report is everything that a run of this program has found.
type report struct {
	Date     time.Time         `json:"date"`
	Machine  machine           `json:"machine"`
	Server   string            `json:"postgresql"`
	Settings map[string]string `json:"settings"`
	Versions map[string]string `json:"versions"`
	Skipped  map[string]string `json:"skipped,omitempty"` // peers, and why
	Options  map[string]any    `json:"options"`
	Results  []result          `json:"results"`
	Summary  []summary         `json:"summary"`
	Targets  []target          `json:"targets"`
}

// A summary is a scenario's median (or mean) for a side.
type summary struct {
	Scenario string  `json:"scenario"`
	Peer     string  `json:"peer"`
	Rounds   int     `json:"rounds"` // that gave figures
	Failed   int     `json:"failed"`
	Figures  figures `json:"figures,omitempty"`
	// Ratio is gworker's first figure divided by this side's, or the other way
	// round where less is better: how many times better gworker is. 0: none.
	Ratio float64 `json:"ratio,omitempty"`
}

func summarise(results []result) []summary {
	var all []summary
	for _, s := range scenarios() {
		var rows []summary
		for _, r := range results {
			if r.Scenario != s.name {
				continue
			}
			i := slices.IndexFunc(rows, func(row summary) bool { return row.Peer == r.Peer })
			if i < 0 {
				i = len(rows)
				rows = append(rows, summary{Scenario: s.name, Peer: r.Peer})
			}
			if r.Error != "" {
				rows[i].Failed++
			} else {
				rows[i].Rounds++
			}
		}
		order := peerOrder()
		slices.SortStableFunc(rows, func(a, b summary) int { return order[a.Peer] - order[b.Peer] })
		for i := range rows {
			rows[i].Figures = s.middle(results, rows[i].Peer)
		}
		first := s.metrics[0]
		if i := slices.IndexFunc(rows, func(row summary) bool { return row.Peer == "gworker" }); i >= 0 {
			own, ok := rows[i].Figures[first.name]
			for j := range rows {
				if other, has := rows[j].Figures[first.name]; ok && has && own > 0 && other > 0 {
					rows[j].Ratio = own / other
					if first.less {
						rows[j].Ratio = other / own
					}
				}
			}
		}
		all = append(all, rows...)
	}
	return all
}

func peerOrder() map[string]int {
	order := make(map[string]int)
	for i, p := range allPeers() {
		order[p.name] = i
	}
	return order
}

// middle is what the rounds of a side come to.
func (s scenario) middle(results []result, peer string) figures {
	values := make(map[string][]float64)
	for _, r := range results {
		if r.Scenario == s.name && r.Peer == peer {
			for name, v := range r.Figures {
				values[name] = append(values[name], v)
			}
		}
	}
	out := make(figures)
	for name, v := range values {
		if s.mean {
			sum := 0.0
			for _, x := range v {
				sum += x
			}
			out[name] = sum / float64(len(v))
		} else {
			out[name] = median(v)
		}
	}
	return out
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func (r *report) rows(scenario string) (rows []summary) {
	for _, row := range r.Summary {
		if row.Scenario == scenario {
			rows = append(rows, row)
		}
	}
	return rows
}

func (r *report) figure(scenario, peer string, m metric) (float64, bool) {
	for _, row := range r.rows(scenario) {
		if row.Peer == peer {
			v, ok := row.Figures[m.name]
			return v, ok
		}
	}
	return 0, false
}

func (r *report) heading(w io.Writer) {
	fmt.Fprintf(w, "%s; %s; PostgreSQL %s\n", r.Date.Format("2006-01-02"), r.Machine, r.Server)
	if r.Options["jobs"] != 1.0 {
		fmt.Fprintf(w, "The numbers of jobs below are multiplied by %v: for trying things out.\n", r.Options["jobs"])
	}
	for _, name := range sortedKeys(r.Settings) {
		fmt.Fprintf(w, "  %s = %s\n", name, r.Settings[name])
	}
	for _, p := range allPeers() {
		if v, ok := r.Versions[p.name]; ok {
			fmt.Fprintf(w, "%-15s %s: %s\n", p.name, p.what, v)
		}
	}
	for _, name := range sortedKeys(r.Skipped) {
		fmt.Fprintf(w, "%-15s SKIPPED: %s\n", name, r.Skipped[name])
	}
}

// table is for people at a terminal.
func (r *report) table(w io.Writer) {
	for _, s := range scenarios() {
		rows := r.rows(s.name)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s: %s\n", s.name, s.what)
		tw := tabwriter.NewWriter(w, 2, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprint(tw, "side\t")
		for _, m := range s.metrics {
			fmt.Fprintf(tw, "%s\t", m.unit)
		}
		fmt.Fprint(tw, "gworker is\trounds\t\n")
		for _, row := range rows {
			fmt.Fprintf(tw, "%s\t", row.Peer)
			for _, m := range s.metrics {
				if v, ok := row.Figures[m.name]; ok {
					fmt.Fprintf(tw, m.format+"\t", v)
				} else {
					fmt.Fprint(tw, "-\t")
				}
			}
			fmt.Fprintf(tw, "%s\t%s\t\n", times(row.Ratio), roundsOf(row))
		}
		_ = tw.Flush() // to a terminal or a buffer
	}
}

func times(ratio float64) string {
	if ratio == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f times", ratio)
}

func roundsOf(row summary) string {
	if row.Failed > 0 {
		return fmt.Sprintf("%d, %d FAILED", row.Rounds, row.Failed)
	}
	return fmt.Sprint(row.Rounds)
}

func (r *report) writeJSON(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
