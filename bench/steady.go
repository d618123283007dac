package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Steady states: jobs are added at a fixed rate while a worker runs. They are
// added by the server itself, a statement every 10 ms, so that adding costs the
// same for every side; the latency is from before that statement to the
// handler's first line.

func steadyScenarios() []scenario {
	metrics := with2([]metric{handledRate, offered, fed, p50, p99, worst, steadiness, backlog}, usageMetrics)
	steady := func(name, what string, share float64) scenario {
		return scenario{
			name: name, what: what, peers: []string{"gworker", "node-batch", "river-2000"}, filling: empty, metrics: metrics,
			seconds: fixed(func(b *bench) time.Duration { return b.options.duration/5 + 2*time.Second }),
			run: func(ctx context.Context, r *run) error {
				full, err := r.bench.drainRate(ctx, r.peer.name)
				if err != nil {
					return err
				}
				return steadyState(ctx, r, full*share, r.bench.options.duration/5, false)
			},
		}
	}
	return []scenario{
		steady("steady-half", "jobs added at half of the side's drain rate, for a fifth of -duration a round", 0.5),
		steady("steady-90", "the same at nine tenths", 0.9),
		{
			name: "oldsnapshot", peers: bestGraphile, quick: bestGraphile, filling: empty, metrics: metrics,
			what: "for -duration, while another session holds an old snapshot: " +
				"Node at half of its drain rate, gworker at twice as many jobs a second as Node",
			seconds: fixed(func(b *bench) time.Duration { return b.options.duration + 2*time.Second }),
			run: func(ctx context.Context, r *run) error {
				of, share := "node-batch", 0.5
				if r.peer.name != of && r.peer.queue.name() == "Graphile Worker" {
					share = 1 // twice Node's
				}
				if r.bench.peers[of] == nil || r.peer.queue.name() != "Graphile Worker" {
					of, share = r.peer.name, 0.5 // there is no Node here
				}
				full, err := r.bench.drainRate(ctx, of)
				if err != nil {
					return err
				}
				return steadyState(ctx, r, full*share, r.bench.options.duration, true)
			},
		},
	}
}

var handledRate = metric{name: "rate", unit: "jobs/s done", format: "%.0f"}

func with2(a, b []metric) []metric { return append(append([]metric(nil), a...), b...) }

// drainRate is the median of the plain drains of this run, or of one that is
// made for it.
func (b *bench) drainRate(ctx context.Context, name string) (float64, error) {
	if len(b.rates[name]) > 0 {
		return quantile(b.rates[name], 0.5), nil
	}
	p := b.peers[name]
	const template = "bench_rate"
	s := drainScenarios()[0]
	s.filling = func(b *bench) filling { return filling{jobs: b.count(100_000)} }
	if err := b.server.template(ctx, template, p.queue, func(ctx context.Context, pool *pgxpool.Pool) error {
		return p.queue.fill(ctx, pool, s.filling(b))
	}); err != nil {
		return 0, err
	}
	own := *b // whose database is another one
	own.database = "bench_rate_run"
	defer func() { _ = b.server.drop(ctx, own.database); _ = b.server.drop(ctx, template) }()
	figures, err := own.once(ctx, s, p, template)
	if err != nil {
		return 0, fmt.Errorf("finding the drain rate of %s: %w", name, err)
	}
	b.rates[name] = append(b.rates[name], figures[rate.name])
	return figures[rate.name], nil
}

func steadyState(ctx context.Context, r *run, perSecond float64, length time.Duration, oldSnapshot bool) error {
	if oldSnapshot {
		done, err := holdSnapshot(ctx, r.url)
		if err != nil {
			return err
		}
		defer done()
	}
	worker, err := r.start(ctx, r.order("work"), nil)
	if err != nil {
		return err
	}
	r.measure()
	f, err := startFeed(ctx, r, perSecond)
	if err != nil {
		return err
	}
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-worker.exited:
	case <-ctx.Done():
	}
	added, err := f.end()
	if err != nil {
		return err
	}
	atEnd, _, err := worker.state()
	if err != nil {
		return err
	}
	if err := r.measured(worker); err != nil {
		return err
	}
	// What waits is worked off, but not forever: a queue that has collapsed is
	// a finding and no failure.
	rest, cancel := context.WithTimeout(ctx, r.bench.options.limit+length/4)
	defer cancel()
	r.filling.jobs = int(added)
	whole := true
	if err := r.awaitFinished(rest, worker, added); errors.Is(rest.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
		whole = false
	} else if err != nil {
		return err
	}
	worker.mu.Lock()
	series := worker.series
	worker.mu.Unlock()
	total, err := stopAll(ctx, []*process{worker})
	if err != nil {
		return err
	}
	if err := r.check(ctx, total, whole); err != nil {
		return err
	}
	seconds := f.took.Seconds()
	r.figures[handledRate.name] = float64(atEnd.Finished) / seconds
	r.figures[offered.name] = perSecond
	r.figures[fed.name] = float64(added) / seconds
	r.figures[backlog.name] = float64(added - atEnd.Finished)
	spread := histogram{counts: total.Latencies, worst: total.Worst}
	r.figures[p50.name], r.figures[p99.name], r.figures[worst.name] = spread.quantile(0.5), spread.quantile(0.99), spread.worst
	r.figures[steadiness.name] = lastOfFirst(series, f.begun, f.took)
	return nil
}

// lastOfFirst compares how many jobs were done in the last third with the first.
func lastOfFirst(series [][2]int64, begun time.Time, took time.Duration) float64 {
	at := func(t time.Time) float64 {
		n := int64(0)
		for _, s := range series {
			if s[0] > t.UnixNano() {
				break
			}
			n = s[1]
		}
		return float64(n)
	}
	first := at(begun.Add(took / 3))
	if first == 0 {
		return 0
	}
	return (at(begun.Add(took)) - at(begun.Add(took*2/3))) / first
}

// holdSnapshot keeps a transaction open that still sees what is deleted from now
// on.
func holdSnapshot(ctx context.Context, url string) (done func(), err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "begin isolation level repeatable read; select count(*) from pg_class"); err != nil {
		return nil, errors.Join(fmt.Errorf("taking a snapshot: %w", err), conn.Close(ctx))
	}
	return func() { _ = conn.Close(context.WithoutCancel(ctx)) }, nil
}

// A feed adds jobs at a rate until it is ended.
type feed struct {
	stop, done chan struct{}
	begun      time.Time
	took       time.Duration
	added      int64
	err        error
}

const feedEvery = 10 * time.Millisecond

// startFeed starts one. Jobs are numbered from 1 on.
func startFeed(ctx context.Context, r *run, perSecond float64) (*feed, error) {
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	f := &feed{stop: make(chan struct{}), done: make(chan struct{}), begun: time.Now()}
	go func() {
		defer close(f.done)
		defer conn.Release()
		ticker := time.NewTicker(feedEvery)
		defer ticker.Stop()
		defer func() { f.took = time.Since(f.begun) }()
		for {
			select {
			case <-f.stop:
				return
			case <-ticker.C:
			}
			due := int64(perSecond*time.Since(f.begun).Seconds()) - f.added
			if due <= 0 {
				continue
			}
			at := float64(time.Now().UnixMicro()) / 1000
			if _, err := conn.Exec(ctx, r.peer.queue.feed(), due, f.added+1, at); err != nil {
				f.err = fmt.Errorf("adding jobs: %w", err)
				return
			}
			f.added += due
		}
	}()
	return f, nil
}

// end ends it and returns how many jobs it has added.
func (f *feed) end() (int64, error) {
	close(f.stop)
	<-f.done
	return f.added, f.err
}
