package gworker_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

const hotJobs = 5000

// hot is what the way of trivial jobs costs.
type hot struct {
	allocs, bytes float64 // a job
	goroutines    int     // that ran handlers
}

// runHot runs jobs and nothing else, with 24 slots.
func runHot(tb testing.TB, pool *pgxpool.Pool, jobs int, hold time.Duration, logger *slog.Logger) hot {
	tb.Helper()
	if _, err := pool.Exec(context.Background(), `insert into graphile_worker._private_tasks (identifier) values ('hot') on conflict do nothing`); err != nil {
		tb.Fatal(err)
	}
	if _, err := pool.Exec(context.Background(), `insert into graphile_worker._private_jobs (task_id, payload)
		select t.id, '{"n": 1}' from graphile_worker._private_tasks t, generate_series(1, $1::int) where t.identifier = 'hot'`, jobs); err != nil {
		tb.Fatal(err)
	}
	var mu sync.Mutex
	ran, seen := 0, map[string]bool{}
	worker, err := gworker.NewWorker(gworker.Config{
		Pool: pool, Concurrency: 24, HoldTime: &hold, Logger: logger,
		Tasks: []gworker.Task{gworker.NewRawTask("hot", func(context.Context, *gworker.RawJob) error {
			mu.Lock()
			defer mu.Unlock()
			if ran++; ran%50 == 0 {
				seen[goroutine()] = true
			}
			return nil
		})},
	})
	if err != nil {
		tb.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if b, ok := tb.(*testing.B); ok {
		b.ResetTimer()
	}
	if err := worker.RunOnce(context.Background()); err != nil {
		tb.Fatal(err)
	}
	if b, ok := tb.(*testing.B); ok {
		b.StopTimer()
	}
	runtime.ReadMemStats(&after)
	if ran != jobs {
		tb.Fatalf("%d of %d jobs ran", ran, jobs)
	}
	return hot{
		allocs: float64(after.Mallocs-before.Mallocs) / float64(jobs),
		bytes:  float64(after.TotalAlloc-before.TotalAlloc) / float64(jobs), goroutines: len(seen),
	}
}

// goroutine names the one that calls.
func goroutine() string {
	var buffer [64]byte
	return string(bytes.Fields(buffer[:runtime.Stack(buffer[:], false)])[1])
}

var hotHolds = []time.Duration{0, 50 * time.Millisecond}

// What a job allocates from its claim to its end decides how often the garbage is
// collected, and with it how many jobs a core can do.
func TestAJobAllocatesLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	most := map[time.Duration]float64{0: 16, 50 * time.Millisecond: 8}
	for _, hold := range hotHolds {
		t.Run(hold.String(), func(t *testing.T) {
			pool := migrated(t)
			silence := slog.New(slog.DiscardHandler)
			runHot(t, pool, 100, hold, silence) // what is made once
			silent := runHot(t, pool, hotJobs, hold, silence)
			// How many jobs share a claim differs from run to run, on a busy machine most.
			for tries := 0; tries < 4 && silent.allocs > most[hold]; tries++ {
				silent = runHot(t, pool, hotJobs, hold, silence)
			}
			t.Logf("%.1f allocations and %.0f bytes a job", silent.allocs, silent.bytes)
			if silent.allocs > most[hold] {
				t.Errorf("a job allocates %.1f times, want at most %.0f", silent.allocs, most[hold])
			}
			if silent.goroutines > 24 {
				t.Errorf("%d goroutines ran handlers: they are not kept for the next job", silent.goroutines)
			}
			quiet := slog.New(slog.NewJSONHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			logged := runHot(t, pool, hotJobs, hold, quiet)
			for tries := 0; tries < 4 && logged.allocs > silent.allocs+1; tries++ {
				logged = runHot(t, pool, hotJobs, hold, quiet)
			}
			if logged.allocs > silent.allocs+1 {
				t.Errorf("a job allocates %.1f times with a log that leaves it out, %.1f without one", logged.allocs, silent.allocs)
			}
		})
	}
}

// BenchmarkJob is a trivial job from its claim to its end, one of many.
func BenchmarkJob(b *testing.B) {
	for _, hold := range hotHolds {
		b.Run(fmt.Sprintf("hold=%s", hold), func(b *testing.B) {
			pool := testdb.Pool(b, testdb.Migrated(b))
			b.ReportAllocs()
			runHot(b, pool, b.N, hold, slog.New(slog.DiscardHandler))
		})
	}
}
