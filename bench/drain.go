package main

import (
	"context"
	"fmt"
	"time"
)

// Drains: jobs that were added beforehand, and the time from the first
// handler's start to the deletion of the last job. A side that is too slow for
// all of them is stopped after -limit, and what it has done by then counts.

func drainScenarios() []scenario {
	drains := func(name, what string, peers, quick []string, processes int, f func(*bench) filling) scenario {
		return scenario{
			name: name, what: what, peers: peers, quick: quick,
			metrics: append([]metric{rate}, usageMetrics...), filling: f,
			seconds: fixed(func(b *bench) time.Duration { return b.options.limit / 2 }),
			run:     func(ctx context.Context, r *run) error { return drain(ctx, r, processes) },
		}
	}
	plain := func(stuck string, n int) func(*bench) filling {
		return func(b *bench) filling { return filling{jobs: b.count(200_000), stuck: stuck, howMany: b.count(n)} }
	}
	queues := func(queues int) func(*bench) filling {
		return func(b *bench) filling { return filling{jobs: b.count(50_000), queues: min(queues, b.count(50_000))} }
	}
	failing := func(b *bench) filling {
		return filling{jobs: b.count(50_000), attempts: 1,
			payload: `json_build_object('n', n, 'fail', case when n % 10 = 0 then 1 else 0 end)`}
	}
	raws := []string{"raw-locked", "raw-held", "raw-select"}
	return []scenario{
		drains("drain", "200,000 trivial jobs", with(allWorkers, raws...), with(targetWorkers, raws...), 1, plain("", 0)),
		drains("drain4", "200,000 trivial jobs, 4 processes", bestWorkers, nil, 4, plain("", 0)),
		drains("stuck-future", "200,000 trivial jobs behind 100,000 of tomorrow", bestWorkers, []string{"gworker"}, 1, plain("future", 100_000)),
		drains("stuck-failed", "200,000 trivial jobs behind 100,000 that failed for good", bestWorkers, []string{"gworker"}, 1, plain("failed", 100_000)),
		drains("stuck-queues", "200,000 trivial jobs behind 2 locked queues with 50,000 jobs each", []string{"gworker", "gworker-locked", "node-batch", "rust-batch"}, []string{"gworker", "gworker-locked"}, 1, plain("queues", 100_000)),
		drains("queues100", "50,000 trivial jobs over 100 named queues", with(graphilePeers, "rust", "rust-batch", "raw-locked"), graphilePeers, 1, queues(100)),
		drains("queues10k", "50,000 trivial jobs over 10,000 named queues", []string{"gworker", "node", "node-batch", "rust-batch"}, nil, 1, queues(10_000)),
		drains("millionahead", "50,000 trivial jobs over 10,000 named queues, behind 1,000,000 jobs of tasks that nobody here runs",
			[]string{"gworker", "node", "node-batch", "rust-batch"}, []string{"gworker"}, 1, func(b *bench) filling {
				f := queues(10_000)(b)
				f.stuck, f.howMany = "others", b.count(1_000_000)
				return f
			}),
		drains("payload10k", "20,000 jobs with payloads of 10 kB", bestWorkers, nil, 1, func(b *bench) filling {
			return filling{jobs: b.count(20_000), payload: `json_build_object('n', n, 'text', repeat(md5(n::text), 320))`}
		}),
		drains("failing", "50,000 jobs, of which 10 % fail for good in their only attempt", bestWorkers, nil, 1, failing),
		drains("history-drain", "200,000 trivial jobs", []string{"gworker", "gworker-off"}, nil, 1, plain("", 0)),
		drains("history-failing", "50,000 jobs, of which 10 % fail for good in their only attempt", []string{"gworker", "gworker-off"}, nil, 1, failing),
		drains("retries", "5,000 jobs that all fail once, the wait before their second attempts included", bestWorkers, nil, 1, func(b *bench) filling {
			return filling{jobs: b.count(5_000), failures: b.count(5_000), payload: `json_build_object('n', n, 'fail', 1)`}
		}),
	}
}

// drain runs the workers until nothing is left, or the limit.
func drain(ctx context.Context, r *run, processes int) error {
	jobs := int64(r.filling.jobs)
	r.measure()
	workers := make([]*process, r.bench.processes(processes))
	for i := range workers { // all at once; none waits for another to be ready
		var err error
		if workers[i], err = r.bench.spawn(ctx, r.peer, r.order("work"), nil); err != nil {
			return err
		}
		r.processes = append(r.processes, workers[i])
	}
	ended, finished, whole, err := r.awaitEnd(ctx, workers, jobs+int64(r.filling.failures))
	if err != nil {
		return err
	}
	if err := r.measured(workers...); err != nil {
		return err
	}
	total, err := stopAll(ctx, workers)
	if err != nil {
		return err
	}
	if err := r.check(ctx, total, whole); err != nil {
		return err
	}
	took := time.Duration(ended - total.First)
	if took <= 0 {
		return fmt.Errorf("it ended %s after its first job began", took)
	}
	r.figures[handledJobs.name] = float64(finished)
	r.figures[rate.name] = float64(finished) / took.Seconds()
	r.drained(total, took)
	return nil
}

// limit is longer where jobs have to wait for their second attempt.
func (r *run) limit() time.Duration {
	if r.filling.failures > 0 {
		return 3 * r.bench.options.limit
	}
	return r.bench.options.limit
}

// permanent is how many jobs are to be left as failed.
func (r *run) permanent() int64 {
	if r.filling.attempts == 1 {
		return int64(r.filling.jobs) / 10
	}
	return 0
}

// awaitEnd waits until the workers say that they have finished all attempts, and
// then until the table says so. It returns when that was, and how many jobs were
// done; whole is false if the limit came first.
func (r *run) awaitEnd(ctx context.Context, workers []*process, attempts int64) (at, jobs int64, whole bool, err error) {
	limit := time.NewTimer(r.limit() + 30*time.Second) // from the spawn; shortened below
	defer limit.Stop()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	var first int64
	for {
		finished := int64(0)
		for _, w := range workers {
			latest, _, err := w.state()
			if err != nil {
				return 0, 0, false, err
			}
			finished += latest.Finished
			if latest.First != 0 && (first == 0 || latest.First < first) {
				if first == 0 {
					limit.Reset(time.Until(time.Unix(0, latest.First).Add(r.limit())))
				}
				first = latest.First
			}
		}
		if finished >= attempts {
			at, err := r.awaitEmpty(ctx)
			return at, int64(r.filling.jobs), true, err
		}
		select {
		case <-ticker.C:
		case <-limit.C:
			if first == 0 {
				return 0, 0, false, fmt.Errorf("no job was started")
			}
			return time.Now().UnixNano(), finished - min(finished, attempts-int64(r.filling.jobs)), false, nil
		case <-ctx.Done():
			return 0, 0, false, context.Cause(ctx)
		}
	}
}

// awaitEmpty waits until no job is left that has not ended. The moment is that
// of the look which found nothing. Looks at the whole table take their time, so
// the newest jobs are looked at first.
func (r *run) awaitEmpty(ctx context.Context) (int64, error) {
	const newest = 2000
	above := int64(r.filling.howMany + max(0, r.filling.jobs-newest))
	for {
		at := time.Now().UnixNano()
		ended, err := r.peer.queue.tail(ctx, r.pool, above)
		if err != nil {
			return 0, fmt.Errorf("looking whether all jobs are done: %w", err)
		}
		if !ended {
			continue
		}
		left, err := r.peer.queue.left(ctx, r.pool)
		if err != nil {
			return 0, fmt.Errorf("looking whether all jobs are done: %w", err)
		}
		if left == 0 {
			return at, nil
		}
	}
}

// stopAll stops the workers and adds up what they report.
func stopAll(ctx context.Context, workers []*process) (total reply, err error) {
	var spread histogram
	for _, w := range workers {
		_ = w.stdin.Close() // all at once
	}
	for _, w := range workers {
		r, err := w.stop(ctx)
		if err != nil {
			return total, err
		}
		total.Started += r.Started
		total.Finished += r.Finished
		total.Failed += r.Failed
		total.Busy += r.Busy
		if r.First != 0 && (total.First == 0 || r.First < total.First) {
			total.First = r.First
		}
		spread.merge(r.Latencies, r.Worst)
		total.Times = append(total.Times, r.Times...)
	}
	total.Latencies, total.Worst = spread.counts, spread.worst
	return total, nil
}

// check compares what was done with what the table says: no figure without it.
func (r *run) check(ctx context.Context, total reply, whole bool) error {
	left, err := r.peer.queue.left(ctx, r.pool)
	if err != nil {
		return fmt.Errorf("counting what is left: %w", err)
	}
	failed, err := r.peer.queue.failed(ctx, r.pool)
	if err != nil {
		return fmt.Errorf("counting what failed: %w", err)
	}
	jobs := int64(r.filling.jobs)
	done := total.Finished - total.Failed // jobs that are gone
	switch {
	case total.Started != total.Finished:
		return fmt.Errorf("%d attempts were started and %d finished", total.Started, total.Finished)
	case whole && left != 0:
		return fmt.Errorf("%d jobs are left", left)
	case done+left+failed < jobs || done+left+failed > jobs+r.cutOff(whole):
		return fmt.Errorf("there were %d jobs, and %d were done, %d are left and %d failed", jobs, done, left, failed)
	case whole && failed != r.permanent():
		return fmt.Errorf("%d jobs failed for good and not %d", failed, r.permanent())
	}
	return nil
}

// cutOff is how many jobs may be both run and left: Node's worker, when it is
// stopped in the middle of its work, leaves locked jobs behind that have run.
func (r *run) cutOff(whole bool) int64 {
	if whole {
		return 0
	}
	return int64(r.slots())
}

// slots is how many jobs all processes can run at once.
func (r *run) slots() int {
	own := r.peer.slots
	if own == slots {
		own = r.bench.slots(slots)
	}
	return own * len(r.processes)
}

// drained adds how busy the slots were, for jobs that take time.
func (r *run) drained(total reply, took time.Duration) {
	if r.peer.raw {
		return
	}
	r.figures[busyShare.name] = float64(total.Busy) / float64(took) / float64(r.slots())
}
