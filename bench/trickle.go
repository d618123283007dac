package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Trickles: idle workers, and jobs that come one at a time at a rate which costs them
// little. So the figures are what a job costs by itself: each is a commit, a notification
// to every process, and a claim of one.

// settlingTime is how long workers are left alone first, usually 12 s: until all have written
// a heartbeat, and know of each other.
func (b *bench) settlingTime() time.Duration { return b.options.duration / 5 }

// counting is how long the server may keep back what a session has counted, while that
// polls.
const counting = 3 * time.Second

func (b *bench) trickleTime() time.Duration { return b.options.duration / 6 }

func trickleScenarios() []scenario {
	trickle := func(name, what string, processes, slots int, perSecond float64) scenario {
		return scenario{
			name: name, what: what, peers: []string{"gworker", "gworker-locked", "node", "river"}, filling: empty,
			metrics: append([]metric{transactions, afterCommit50, afterCommit99, worst}, usageMetrics...),
			seconds: fixed(func(b *bench) time.Duration { return b.settlingTime() + b.trickleTime() + counting }),
			run: func(ctx context.Context, r *run) error {
				return trickleOf(ctx, r, r.bench.processes(processes), r.bench.slots(slots), perSecond)
			},
		}
	}
	return []scenario{
		trickle("trickle", "200 jobs/s, one at a time, on an idle worker of 10 slots", 1, 10, 200),
		trickle("trickle16", "the same on 16 idle processes", 16, 10, 200),
		trickle("trickle500", "500 jobs/s, one at a time, on an idle worker of 24 slots", 1, slots, 500),
	}
}

func trickleOf(ctx context.Context, r *run, processes, slots int, perSecond float64) error {
	o := r.order("work")
	o.Concurrency, o.Record = slots, true
	var workers []*process
	for range processes {
		w, err := r.bench.spawn(ctx, r.peer, o, nil)
		if err != nil {
			return err
		}
		r.processes, workers = append(r.processes, w), append(workers, w)
	}
	for _, w := range workers {
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
	if err := sleep(ctx, workers[0], r.bench.settlingTime()); err != nil {
		return err
	}
	before, err := r.transactions(ctx)
	if err != nil {
		return err
	}
	r.measure()
	added, err := r.addSlowly(ctx, perSecond, r.bench.trickleTime())
	if err != nil {
		return err
	}
	if err := r.measured(workers...); err != nil {
		return err
	}
	if err := sleep(ctx, workers[0], counting); err != nil {
		return err
	}
	after, err := r.transactions(ctx)
	if err != nil {
		return err
	}
	r.filling.jobs = len(added)
	if _, err := r.awaitEmpty(ctx); err != nil {
		return err
	}
	total, err := stopAll(ctx, workers)
	if err != nil {
		return err
	}
	if err := r.check(ctx, total, true); err != nil {
		return err
	}
	r.figures[transactions.name] = (after - before) / float64(len(added))
	return r.startsAfterCommits(added, total.Times)
}

// transactions counts those of the database, as far as its sessions have told.
func (r *run) transactions(ctx context.Context) (n float64, err error) {
	err = r.bench.server.admin.QueryRow(ctx, `select (xact_commit + xact_rollback)::float8
		from pg_stat_database where datname = $1`, r.bench.database).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting transactions: %w", err)
	}
	return n, nil
}

// addSlowly adds jobs one by one, and returns their numbers, and when their commits were
// sent, in microseconds since 1970.
func (r *run) addSlowly(ctx context.Context, perSecond float64, length time.Duration) (added [][2]int64, err error) {
	conn, err := pgx.Connect(ctx, r.url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	begun, every := time.Now(), time.Duration(float64(time.Second)/perSecond)
	for n := int64(1); time.Since(begun) < length; n++ {
		timer := time.NewTimer(time.Until(begun.Add(time.Duration(n) * every)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
		at := time.Now().UnixMicro()
		if _, err := conn.Exec(ctx, r.peer.queue.addOne(), fmt.Sprintf(`{"n":%d}`, n)); err != nil {
			return nil, fmt.Errorf("adding a job: %w", err)
		}
		added = append(added, [2]int64{n, at})
	}
	return added, nil
}
