package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// needRust skips a test where the Rust worker cannot be had, or would first have
// to be built for minutes.
func needRust(t *testing.T) {
	t.Helper()
	if os.Getenv("GWORKER_REQUIRE_RUST") != "" {
		if _, err := buildRust(); err != nil {
			t.Fatal(err)
		}
		return
	}
	program, err := rustProgram()
	if err != nil {
		t.Fatal(err)
	}
	_, there, err := program.Built()
	switch {
	case err != nil:
		t.Skip(err)
	case there:
		return
	}
	if _, err := program.Find(); err != nil {
		t.Skip(err)
	}
	t.Skip("the Rust worker is not built yet: go run . -build -peers rust")
}

func TestRustSides(t *testing.T) {
	needRust(t)
	b := benchWithServer(t)
	b.options.limit = 2 * time.Second // the default configuration needs longer
	b.options.jobs = 0.001
	s := drainScenarios()[0]
	s.filling = func(*bench) filling {
		return filling{jobs: 200, queues: 50, attempts: 1,
			payload: `json_build_object('n', n, 'ms', 5, 'fail', case when n % 10 = 0 then 1 else 0 end)`}
	}
	sides := []string{"rust", "rust-batch"}
	for _, s := range []scenario{s, latencyScenarios()[0]} {
		if err := b.run(t.Context(), s, sides); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range b.results {
		if r.Error != "" || r.Figures[rate.name]+r.Figures[p50.name] <= 0 {
			t.Errorf("%s of %s: %+v", r.Scenario, r.Peer, r)
		}
	}

	// A worker that ends while it is measured fails the run, and nobody waits.
	b.results, s.filling = nil, empty
	s.run = func(ctx context.Context, r *run) error {
		worker, err := r.start(ctx, r.order("work"), nil)
		if err != nil {
			return err
		}
		if _, err := r.pool.Exec(ctx, `alter table graphile_worker._private_jobs rename to gone`); err != nil {
			return err
		}
		_, err = worker.report(ctx)
		return err
	}
	if err := b.run(t.Context(), s, sides[:1]); err != nil {
		t.Fatal(err)
	}
	if got := b.results[0]; !strings.Contains(got.Error, "fetching a job") || got.Figures != nil {
		t.Errorf("the result of a worker that ended: %+v", got)
	}
}
