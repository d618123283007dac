package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// The test program is a side, too.
func TestMain(m *testing.M) {
	if os.Getenv(sideEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// tiny is a round of little.
func tiny() options {
	return options{
		rounds: 1, jobs: 0.01, duration: 3 * time.Second, limit: 20 * time.Second, rawBatch: 100, rawConnections: 2,
		scenarios: []string{"drain", "failing", "add-100", "trickle"}, peers: []string{"gworker", "raw-locked", "raw-held", "raw-select", "sql"},
	}
}

func TestTinyRound(t *testing.T) {
	dir := t.TempDir()
	o := tiny()
	o.json, o.plot, o.markdown = filepath.Join(dir, "r.json"), filepath.Join(dir, "p.svg"), filepath.Join(dir, "t.md")
	failed, err := measure(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(o.json)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if failed {
		t.Errorf("runs failed: %+v", r.Results)
	}
	for _, want := range []struct{ scenario, peer, figure string }{
		{"drain", "gworker", "rate"}, {"drain", "raw-locked", "rate"}, {"drain", "raw-held", "rate"},
		{"failing", "gworker", "rate"}, {"trickle", "gworker", "transactions"}, {"add-100", "gworker", "added"}, {"add-100", "sql", "added"},
	} {
		if v, _ := r.figure(want.scenario, want.peer, metric{name: want.figure}); v <= 0 {
			t.Errorf("%s of %s has no %s", want.scenario, want.peer, want.figure)
		}
	}
	for _, path := range []string{o.plot, o.markdown} {
		if text, err := os.ReadFile(path); err != nil || !bytes.Contains(text, []byte("raw-held")) {
			t.Errorf("%s names no raw-held (%v)", filepath.Base(path), err)
		}
	}
}

// TestDistance: what a side does behind the proxy takes at least its round trips.
func TestDistance(t *testing.T) {
	b := benchWithServer(t)
	const roundTrip = 40 * time.Millisecond
	d, err := newDistance(b.server.pg.AdminURL(), roundTrip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	conn, err := pgx.Connect(t.Context(), d.database("template1"))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		begun := time.Now()
		if _, err := conn.Exec(t.Context(), "select 1"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < roundTrip {
			t.Errorf("a statement took %s, less than the round trip of %s", took, roundTrip)
		}
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// benchWithServer is one whose runs a test describes itself.
func benchWithServer(t *testing.T) *bench {
	server, err := startServer(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	b := &bench{
		options: tiny(), server: server, scratch: t.TempDir(), peers: make(map[string]*peer), now: t.Logf,
		rates: make(map[string][]float64), database: "bench_run",
	}
	for _, p := range allPeers() {
		b.peers[p.name] = p
	}
	return b
}

// A side that does not do its work has no figures.
func TestFailedSide(t *testing.T) {
	b := benchWithServer(t)
	s := drainScenarios()[0]
	s.filling = func(*bench) filling { return filling{jobs: 100} }
	// It says that it has done more than there is.
	s.run = func(ctx context.Context, r *run) error {
		err := r.check(ctx, reply{Started: 100, Finished: 100}, true)
		if err == nil || !strings.Contains(err.Error(), "are left") {
			t.Errorf("a full table is no failure: %v", err)
		}
		err = r.check(ctx, reply{Started: 70, Finished: 70}, false)
		if err == nil || !strings.Contains(err.Error(), "there were 100 jobs") {
			t.Errorf("jobs from nowhere are no failure: %v", err)
		}
		r.peer = &peer{name: "nobody", queue: graphile{}, slots: 1, command: goCommand}
		return drain(ctx, r, 1)
	}
	if err := b.run(t.Context(), s, []string{"gworker"}); err != nil {
		t.Fatal(err)
	}
	if got := b.results[0]; got.Error == "" || got.Figures != nil {
		t.Errorf("a side that does not exist has a result: %+v", got)
	}
	if row := summarise(b.results)[0]; row.Failed != 1 || len(row.Figures) > 0 {
		t.Errorf("its summary: %+v", row)
	}
}

func TestQuantilesOfHistogram(t *testing.T) {
	var h histogram
	for ms := 1; ms <= 1000; ms++ {
		h.add(float64(ms))
	}
	for _, want := range []struct{ q, ms float64 }{{0.5, 500}, {0.99, 990}, {1, 1000}} {
		if got := h.quantile(want.q); got < want.ms*0.98 || got > want.ms*1.02 {
			t.Errorf("quantile %g is %g and not %g", want.q, got, want.ms)
		}
	}
}

func TestTargetsKnowTheirSides(t *testing.T) {
	r := &report{Summary: []summary{
		{Scenario: "drain", Peer: "gworker", Figures: figures{"rate": 300}},
		{Scenario: "drain", Peer: "node", Figures: figures{"rate": 90}},
		{Scenario: "drain", Peer: "node-batch", Figures: figures{"rate": 101}},
		{Scenario: "drain", Peer: "raw-held", Figures: figures{"rate": 400}},
	}}
	verdicts := make(map[string]string)
	for _, v := range r.targets() {
		verdicts[v.Name] = v.Verdict
	}
	for name, want := range map[string]string{
		"drain, against Node at its best (node-batch)":  "not met", // 2.97 times
		"drain, against the raw held limit":             "met",
		"drain, against River at its best (river-2000)": "not measured",
		"latency idle p50, against node":                "not measured",
		"memory of the drain, MB":                       "not measured",
	} {
		if verdicts[name] != want {
			t.Errorf("%s: %q and not %q", name, verdicts[name], want)
		}
	}
}

func TestMarkdownHasAColumnForEachWorker(t *testing.T) {
	r := &report{Options: map[string]any{"jobs": 1.0, "rounds": 3}, Summary: []summary{
		{Scenario: "drain", Peer: "gworker", Figures: figures{"rate": 200_000}},
		{Scenario: "drain", Peer: "river", Figures: figures{}},
		{Scenario: "drain", Peer: "raw-held", Figures: figures{"rate": 400_000}},
		{Scenario: "drain", Peer: "raw-locked", Figures: figures{"rate": 100_000}},
		{Scenario: "latency", Peer: "node", Figures: figures{"p50": 0.5, "p99": 2}},
		{Scenario: "latency", Peer: "rust", Figures: figures{"p50": 0.7, "p99": 3}},
	}}
	text := r.markdown()
	for _, want := range []string{
		"| 200,000 trivial jobs, jobs/s | 200,000 |  |  |  |  |  |  | failed | raw-held 400,000<br>raw-locked 100,000 |",
		"p50 ms |  |  |  | 0.50 (p99 2.00 ms) |  | 0.70 (p99 3.00 ms) |  |  |  |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, args := range [][]string{
		{"-scenarios", "nonsense"}, {"-peers", "nobody"}, {"-rounds", "0"}, {"-jobs", "0"}, {"-duration", "1ms"}, {"rest"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
	o, err := parse([]string{"-build", "-peers", "gworker,river"})
	if err != nil || !o.build {
		t.Errorf("%+v, %v", o, err)
	}
	var said bytes.Buffer
	if all := build(&said, o); !all || strings.Count(said.String(), "\n") != 2 {
		t.Errorf("%t, and it said %q", all, said.String())
	}
	o, err = parse([]string{"-scenarios", "drain, idle", "-peers", "gworker"})
	if err != nil || len(o.scenarios) != 2 || len(o.peers) != 1 {
		t.Errorf("%+v, %v", o, err)
	}
}
