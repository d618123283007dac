package main

import (
	"context"
	"time"
)

// Jobs that take time: how much of it are the slots busy? The ideal is the sum
// of what the jobs ask for, divided by the slots; timers that fire late count
// against a side, and so does a last job that runs alone.

func busyScenarios() []scenario {
	sleeping := func(name, what string, peers, quick []string, jobs int, payload string, perJob time.Duration) scenario {
		return scenario{
			name: name, what: what, peers: peers, quick: quick,
			metrics: append([]metric{ideal, busyShare, rate}, usageMetrics...),
			seconds: fixed(func(b *bench) time.Duration {
				return min(b.options.limit, time.Duration(b.count(jobs))*perJob/slots*3/2)
			}),
			filling: func(b *bench) filling { return filling{jobs: b.count(jobs), payload: payload} },
			run: func(ctx context.Context, r *run) error {
				if err := drain(ctx, r, 1); err != nil {
					return err
				}
				r.figures[ideal.name] = r.figures[rate.name] * perJob.Seconds() / float64(r.slots())
				return nil
			},
		}
	}
	busyWorkers := []string{"gworker", "gworker-locked", "node", "node-batch", "rust", "rust-batch", "river"}
	return []scenario{
		sleeping("busy5ms", "20,000 jobs of 5 ms", busyWorkers, []string{"gworker", "gworker-locked", "node-batch"},
			20_000, `json_build_object('n', n, 'ms', 5)`, 5*time.Millisecond),
		sleeping("busy50ms", "2,000 jobs of 50 ms", busyWorkers, nil, 2_000, `json_build_object('n', n, 'ms', 50)`, 50*time.Millisecond),
		sleeping("mix1-500", "5,000 jobs of 1 ms, but 4 % of them of 500 ms", []string{"gworker", "gworker-locked", "node-batch", "rust-batch", "river"}, nil, 5_000,
			`json_build_object('n', n, 'ms', case when n % 25 = 7 then 500 else 1 end)`, 20960*time.Microsecond),
		// The long ones end before the rest: the tail is no part of the question.
		sleeping("mix500", "20,000 jobs of 5 ms, but 1 % of them of 500 ms", []string{"gworker", "node-batch", "rust-batch", "river"}, nil, 20_000,
			`json_build_object('n', n, 'ms', case when n % 100 = 7 then 500 else 5 end)`, 9950*time.Microsecond),
	}
}
