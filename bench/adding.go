package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Adding: as fast as the adders can, for a while. The side "sql" is what
// programs without a client of ours do: it calls the schema's functions, by
// pgbench where that is on the machine.

func (b *bench) addingTime() time.Duration { return b.options.duration / 20 }

func addingScenarios() []scenario {
	all, both := []string{"gworker", "sql", "node", "river"}, []string{"gworker", "sql"}
	adding := func(name, what string, peers, quick []string, adders, perCall int, inTx, working bool) scenario {
		s := scenario{
			name: name, what: what, peers: peers, quick: quick, filling: empty,
			metrics: []metric{commits, addedRate, serverSeconds, serverMB},
			seconds: fixed(func(b *bench) time.Duration { return b.addingTime() + time.Second }),
			run: func(ctx context.Context, r *run) error {
				o := r.order("add")
				o.Adders, o.PerCall, o.InTx, o.Record = adders, perCall, inTx, working
				o.Seconds = r.bench.addingTime().Seconds()
				return add(ctx, r, o, working)
			},
		}
		if working {
			s.metrics = []metric{commits, afterCommit50, afterCommit99, serverSeconds, serverMB}
		}
		return s
	}
	return []scenario{
		adding("add-one", "one adder, a job a call", all, nil, 1, 1, false, false),
		adding("add-tx", "one adder, a job in a transaction of the caller's", both, nil, 1, 1, true, false),
		adding("add-100", "one adder, 100 jobs a call", all, nil, 1, 100, false, false),
		adding("add-10000", "one adder, 10,000 jobs a call", all, both, 1, 10_000, false, false),
		adding("add-16", "16 adders, a job a call", all, nil, 16, 1, false, false),
		adding("add-96", "96 adders, a job a call", all, both, 96, 1, false, false),
		adding("add-16-busy", "16 adders, while a worker runs the jobs", []string{"gworker", "node", "river"}, nil, 16, 1, false, true),
		adding("add-96-busy", "96 adders, while a worker runs the jobs", []string{"gworker", "node", "river"}, []string{"gworker"}, 96, 1, false, true),
	}
}

func add(ctx context.Context, r *run, o order, working bool) error {
	var worker *process
	if working {
		wo := r.order("work")
		wo.Record = true
		var err error
		if worker, err = r.start(ctx, wo, nil); err != nil {
			return err
		}
	}
	r.measure()
	var end reply
	var err error
	program, lookErr := exec.LookPath("pgbench")
	if r.peer.name == "sql" && o.PerCall == 1 && lookErr == nil {
		end, err = pgbench(ctx, r, program, o)
	} else {
		var adder *process
		if adder, err = r.start(ctx, o, nil); err == nil {
			end, err = adder.report(ctx)
		}
	}
	if err != nil {
		return err
	}
	if err := r.measured(); err != nil {
		return err
	}
	r.figures[commits.name] = float64(end.Calls) / (float64(end.Nanos) / 1e9)
	r.figures[addedRate.name] = float64(end.Added) / (float64(end.Nanos) / 1e9)
	if end.Added == 0 {
		return errors.New("nothing was added")
	}
	if !working {
		left, err := r.peer.queue.left(ctx, r.pool)
		if err == nil && left != end.Added {
			err = fmt.Errorf("%d jobs were added, and the table has %d", end.Added, left)
		}
		return err
	}
	r.filling.jobs = int(end.Added)
	if err := r.awaitFinished(ctx, worker, end.Added); err != nil {
		return err
	}
	total, err := stopAll(ctx, []*process{worker})
	if err != nil {
		return err
	}
	if err := r.check(ctx, total, true); err != nil {
		return err
	}
	return r.startsAfterCommits(end.Times, total.Times)
}

// awaitFinished waits until a worker has done so many jobs and the table knows.
func (r *run) awaitFinished(ctx context.Context, worker *process, jobs int64) error {
	for {
		latest, _, err := worker.state()
		if err != nil {
			return err
		}
		if latest.Finished >= jobs {
			_, err := r.awaitEmpty(ctx)
			return err
		}
		select {
		case <-worker.changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d jobs, of which %d are done: %w", jobs, latest.Finished, context.Cause(ctx))
		}
	}
}

// startsAfterCommits matches jobs by number. A job may start before its adder
// hears of the commit: that is 0.
func (r *run) startsAfterCommits(added, started [][2]int64) error {
	committed := make(map[int64]int64, len(added))
	for _, a := range added {
		committed[a[0]] = a[1]
	}
	var waits []float64
	for _, s := range started {
		at, ok := committed[s[0]]
		if !ok {
			return fmt.Errorf("job %d was started and not added", s[0])
		}
		waits = append(waits, math.Max(0, float64(s[1]-at)/1000))
	}
	if len(waits) != len(added) {
		return fmt.Errorf("%d jobs were added and %d started", len(added), len(waits))
	}
	r.figures[afterCommit50.name] = quantile(waits, 0.5)
	r.figures[afterCommit99.name] = quantile(waits, 0.99)
	r.figures[worst.name] = slices.Max(waits)
	return nil
}

func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

var (
	pgbenchCalls = regexp.MustCompile(`number of transactions actually processed: (\d+)`)
	pgbenchTPS   = regexp.MustCompile(`tps = ([\d.]+) \(without initial`)
)

// pgbench lets that program call add_job, as psql would send it.
func pgbench(ctx context.Context, r *run, program string, o order) (reply, error) {
	text := fmt.Sprintf("select * from graphile_worker.add_job('%s', '{\"n\":1}'::json);\n", taskName)
	if o.InTx {
		text = "begin;\n" + text + "commit;\n"
	}
	script := filepath.Join(r.bench.scratch, "add.sql")
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		return reply{}, err
	}
	cmd := exec.CommandContext(ctx, program, "--no-vacuum", "--protocol=simple", "--file="+script,
		"--client="+strconv.Itoa(o.Adders), "--jobs="+strconv.Itoa(min(2, o.Adders)),
		"--time="+strconv.Itoa(max(1, int(math.Round(o.Seconds)))), r.url)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return reply{}, fmt.Errorf("pgbench: %w: %s", err, lastLines(string(out)))
	}
	calls, tps := pgbenchCalls.FindSubmatch(out), pgbenchTPS.FindSubmatch(out)
	if calls == nil || tps == nil {
		return reply{}, fmt.Errorf("pgbench said something else: %s", strings.TrimSpace(string(out)))
	}
	n, err1 := strconv.ParseInt(string(calls[1]), 10, 64)
	perSecond, err2 := strconv.ParseFloat(string(tps[1]), 64)
	if err := errors.Join(err1, err2); err != nil {
		return reply{}, err
	}
	return reply{Calls: n, Added: n, Nanos: int64(float64(n) / perSecond * 1e9)}, nil
}
