package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/dbgen"
)

// Latency: from the moment before COMMIT is sent to the first line of the
// handler, for one job at a time. The commit itself is in it, for all alike.

// How many jobs all rounds together probe with, of an idle worker and of one
// under load.
const idleProbes, loadedProbes = 5000, 1000

func (b *bench) probesOfRound(all int) int {
	return max(20, (b.count(all)+b.options.rounds-1)/b.options.rounds)
}

func latencyScenarios() []scenario {
	metrics := with2([]metric{p50, p99, worst, roundTrips}, usageMetrics)
	return []scenario{
		{
			name: "latency", what: "commit to handler, idle worker; 5,000 jobs over all rounds",
			peers: []string{"gworker", "gworker-off", "node", "rust", "rust-batch", "river", "river-2000"}, quick: []string{"gworker", "node", "river", "river-2000"}, filling: empty, metrics: metrics,
			seconds: func(b *bench) float64 { return 3 + float64(b.probesOfRound(idleProbes))*0.007 },
			run:     func(ctx context.Context, r *run) error { return latency(ctx, r, idleProbes, 0) },
		},
		{
			name: "latency-load", what: "the same while jobs are added at half of the side's drain rate; 1,000 jobs",
			peers: bestWorkers, filling: empty, metrics: metrics,
			seconds: func(b *bench) float64 { return 4 + float64(b.probesOfRound(loadedProbes))*0.012 },
			run:     func(ctx context.Context, r *run) error { return latency(ctx, r, loadedProbes, 0.5) },
		},
	}
}

func latency(ctx context.Context, r *run, all int, load float64) error {
	heard := make(chan reply, 16)
	full := 0.0
	if load > 0 {
		var err error
		if full, err = r.bench.drainRate(ctx, r.peer.name); err != nil {
			return err
		}
	}
	worker, err := r.start(ctx, r.order("work"), func(p reply) { heard <- p })
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, r.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// Also for plans and pages: what comes first does not count.
	if _, err := probe(ctx, r, conn, heard, worker, 50); err != nil {
		return err
	}
	r.measure()
	var f *feed
	if load > 0 {
		if f, err = startFeed(ctx, r, full*load); err != nil {
			return err
		}
	}
	took, err := probe(ctx, r, conn, heard, worker, r.bench.probesOfRound(all))
	var added int64
	if f != nil {
		var feedErr error
		added, feedErr = f.end()
		err = errors.Join(err, feedErr)
	}
	if err != nil {
		return err
	}
	if err := r.measured(worker); err != nil {
		return err
	}
	jobs := int64(50+len(took)) + added
	r.filling.jobs = int(jobs)
	if err := r.awaitFinished(ctx, worker, jobs); err != nil {
		return err
	}
	total, err := stopAll(ctx, []*process{worker})
	if err != nil {
		return err
	}
	if err := r.check(ctx, total, true); err != nil {
		return err
	}
	r.figures[p50.name], r.figures[p99.name] = quantile(took, 0.5), quantile(took, 0.99)
	r.figures[worst.name] = slices.Max(took)
	if load == 0 && r.peer.queue.name() == "Graphile Worker" {
		r.figures[roundTrips.name], err = floor(ctx, r)
	}
	return err
}

// probe adds jobs one by one, each when the one before has run, and returns how
// long each took to start, in milliseconds.
func probe(ctx context.Context, r *run, conn *pgx.Conn, heard <-chan reply, worker *process, n int) ([]float64, error) {
	took := make([]float64, 0, n)
	add := r.peer.queue.addOne()
	for i := range n {
		// The worker is to be idle, and in no step with us.
		pause := time.NewTimer(time.Millisecond + time.Duration(rand.Int64N(int64(3*time.Millisecond))))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, context.Cause(ctx)
		}
		number := int64(1_000_000_000 + i)
		tx, err := conn.Begin(ctx)
		if err != nil {
			return nil, err
		}
		if _, err := tx.Exec(ctx, add, fmt.Sprintf(`{"n":%d,"probe":1}`, number)); err != nil {
			return nil, errors.Join(fmt.Errorf("adding a job: %w", err), tx.Rollback(ctx))
		}
		at := time.Now().UnixNano()
		if err := tx.Commit(ctx); err != nil {
			return nil, fmt.Errorf("adding a job: %w", err)
		}
		select {
		case p := <-heard:
			if p.N != number {
				return nil, fmt.Errorf("job %d was started in place of %d", p.N, number)
			}
			took = append(took, float64(p.At-at)/1e6)
		case <-worker.exited:
			_, _, err := worker.state()
			return nil, errors.Join(errors.New("the worker ended"), err)
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for job %d to start: %w", number, context.Cause(ctx))
		}
	}
	return took, nil
}

// floor is what a worker cannot do without: a notification that reaches another
// session, from before its COMMIT is sent, and a claim of one job. It is the sum
// of the medians, in milliseconds, with no worker about.
func floor(ctx context.Context, r *run) (float64, error) {
	const times = 300
	adder, err := pgx.Connect(ctx, r.url)
	if err != nil {
		return 0, err
	}
	defer adder.Close(context.WithoutCancel(ctx))
	hearer, err := pgx.Connect(ctx, r.url)
	if err != nil {
		return 0, err
	}
	defer hearer.Close(context.WithoutCancel(ctx))
	if _, err := hearer.Exec(ctx, `listen "jobs:insert"`); err != nil {
		return 0, err
	}
	claimer := dbgen.New(r.pool)
	var notices, claims []float64
	for i := range times {
		tx, err := adder.Begin(ctx)
		if err != nil {
			return 0, err
		}
		if _, err := tx.Exec(ctx, r.peer.queue.addOne(), fmt.Sprintf(`{"n":%d}`, i)); err != nil {
			return 0, errors.Join(err, tx.Rollback(ctx))
		}
		var (
			wg      sync.WaitGroup
			arrived time.Time
			heardOf error
		)
		wg.Go(func() {
			_, heardOf = hearer.WaitForNotification(ctx)
			arrived = time.Now()
		})
		at := time.Now()
		err = tx.Commit(ctx)
		wg.Wait()
		if err := errors.Join(err, heardOf); err != nil {
			return 0, fmt.Errorf("measuring a notification: %w", err)
		}
		notices = append(notices, float64(arrived.Sub(at))/1e6)
		begun := time.Now()
		jobs, err := claimer.ClaimJobs(ctx, dbgen.ClaimJobsParams{Tasks: []string{taskName}, MaxJobs: slots, MaxBytes: 1 << 40, WorkerID: "gworker_floor"})
		if err != nil || len(jobs) != 1 || jobs[0].ID == nil {
			return 0, fmt.Errorf("measuring a claim: %d jobs: %w", len(jobs), err)
		}
		claims = append(claims, float64(time.Since(begun))/1e6)
		if _, err := r.pool.Exec(ctx, `delete from graphile_worker._private_jobs where id = $1`, jobs[0].ID); err != nil {
			return 0, err
		}
	}
	return quantile(notices, 0.5) + quantile(claims, 0.5), nil
}
