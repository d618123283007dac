package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What a worker costs: until its first job, and while there is nothing to do.

// idleTime is a whole number of poll intervals, so that none is counted by half.
func (b *bench) idleTime() time.Duration {
	const poll = 2 * time.Second
	return (b.options.duration/4 + poll - 1).Truncate(poll)
}

func costScenarios() []scenario {
	workers := []string{"gworker", "node", "rust", "river"}
	return []scenario{
		{
			name: "start", what: "from the start of the process to its first job", peers: workers,
			metrics: []metric{startTime, workerSeconds, workerMB},
			seconds: func(*bench) float64 { return 3 },
			filling: func(*bench) filling { return filling{jobs: 1} },
			run:     startUp,
		},
		{
			name: "idle", what: "nothing to do, for about a quarter of -duration a round; means", peers: workers, quick: []string{"gworker", "node"}, mean: true,
			metrics: []metric{statements, perPoll, coreShare, workerMB, serverSeconds},
			seconds: fixed(func(b *bench) time.Duration { return b.idleTime() + 5*time.Second }),
			filling: empty, run: idle,
		},
	}
}

func startUp(ctx context.Context, r *run) error {
	r.measure()
	worker, err := r.start(ctx, r.order("work"), nil)
	if err != nil {
		return err
	}
	if err := r.awaitFinished(ctx, worker, 1); err != nil {
		return err
	}
	if err := r.measured(worker); err != nil {
		return err
	}
	total, err := stopAll(ctx, []*process{worker})
	if err != nil {
		return err
	}
	r.figures[startTime.name] = float64(total.First-worker.spawned.UnixNano()) / 1e6
	return r.check(ctx, total, true)
}

// polls is how often a side looks for jobs in a minute when it hears of none.
func polls(peer string) float64 {
	switch peer {
	case "river", "rust":
		return 60
	default: // gworker and Node: every 2 s
		return 30
	}
}

func idle(ctx context.Context, r *run) error {
	if r.bench.server.counts {
		if _, err := r.pool.Exec(ctx, "alter database "+r.bench.database+" set "+statementsLibrary+".track = 'top'"); err != nil {
			return fmt.Errorf("counting statements: %w", err)
		}
	}
	worker, err := r.start(ctx, r.order("work"), nil)
	if err != nil {
		return err
	}
	if err := sleep(ctx, worker, 3*time.Second); err != nil { // until it has settled
		return err
	}
	calls := func() (n float64, err error) {
		if !r.bench.server.counts {
			return 0, nil
		}
		err = r.bench.server.admin.QueryRow(ctx, `select coalesce(sum(s.calls), 0)::float8 from pg_stat_statements s
			join pg_database d on d.oid = s.dbid where d.datname = $1`, r.bench.database).Scan(&n)
		return n, err
	}
	before, err := calls()
	if err != nil {
		return fmt.Errorf("counting statements: %w", err)
	}
	r.measure()
	begun := time.Now()
	if err := sleep(ctx, worker, r.bench.idleTime()); err != nil {
		return err
	}
	minutes := time.Since(begun).Minutes()
	after, err := calls()
	if err != nil {
		return fmt.Errorf("counting statements: %w", err)
	}
	if err := r.measured(worker); err != nil {
		return err
	}
	if r.bench.server.counts {
		r.figures[statements.name] = (after - before) / minutes
		r.figures[perPoll.name] = (after - before) / minutes / polls(r.peer.name)
		if after == before {
			return errors.New("no statement was counted, though the worker polls")
		}
	}
	if cpu, ok := r.figures[workerSeconds.name]; ok {
		r.figures[coreShare.name] = cpu / (minutes * 60) * 100
	}
	total, err := stopAll(ctx, []*process{worker})
	if err == nil {
		err = r.check(ctx, total, true)
	}
	return err
}

// sleep waits while a worker runs.
func sleep(ctx context.Context, worker *process, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-worker.exited:
		_, _, err := worker.state()
		return errors.Join(errors.New("the worker ended"), err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
