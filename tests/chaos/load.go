//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
)

// What became of an add.
const (
	added      = "added"
	unknown    = "unknown" // the answer was lost: the job may be there
	rolledBack = "rolledback"
)

// An entry is a job of the load.
type entry struct {
	n        int64
	state    string
	expect   string // how it must end: ok or failed
	attempts int
	key      string
	runs     int    // of a job that fails: the fewest that are recorded
	stored   string // and what its last error begins with
}

const (
	adders       = 4
	keysPerAdder = 3
	queues       = 6
	maxFails     = 2 // the attempts of jobs that fail for good
)

// Jobs of a task are held if nearly all of them are short. Those of plain are now and then
// so long that it seldom is held, and middling ones are held only by the worker with the
// long hold time.
func taskNames() []string {
	return []string{"plain", "short", "middling", "queued", "keyed", "failing"}
}

// load adds jobs, and knows afterwards which jobs there must be.
type load struct {
	pool   *pgxpool.Pool
	client *gworker.Client
	rate   int
	next   atomic.Int64
	errors atomic.Int64

	mu      sync.Mutex
	entries []*entry
}

func newLoad(url string, rate int) (*load, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = adders + 2
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, err
	}
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, StatementTimeout: statementTimeout})
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &load{pool: pool, client: client, rate: rate}, nil
}

// run adds jobs until ctx ends. That interrupts no add.
func (l *load) run(ctx context.Context, seed uint64) {
	var wait sync.WaitGroup
	for i := range adders {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)+100))
			ticker := time.NewTicker(time.Second * adders / time.Duration(l.rate))
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
				if !l.step(context.WithoutCancel(ctx), random, i) {
					l.errors.Add(1)
				}
			}
		})
	}
	wait.Wait()
}

// step adds one job, or several at once.
func (l *load) step(ctx context.Context, random *rand.Rand, adder int) (ok bool) {
	switch roll := random.IntN(100); {
	case roll < 5: // a few in one statement
		specs, entries := make([]gworker.JobSpec, 5), make([]*entry, 5)
		for i := range specs {
			specs[i], entries[i] = l.plain(random)
		}
		_, err := l.client.AddJobs(ctx, specs)
		return l.remember(err, entries...)
	case roll < 15: // in a transaction, one in three of which is taken back
		spec, e := l.draw(random, adder)
		commit := random.IntN(3) > 0
		if !commit {
			spec.Key, e.key = "", ""
		}
		err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
			if _, err := l.client.WithTx(tx).AddJob(ctx, spec); err != nil || commit {
				return err
			}
			return errTakenBack
		})
		if !commit {
			e.state = rolledBack
			l.keep(e)
			return errors.Is(err, errTakenBack)
		}
		return l.remember(err, e)
	case roll < 20: // from SQL, as triggers do
		spec, e := l.plain(random)
		_, err := l.pool.Exec(ctx, "select graphile_worker.add_job($1, payload => $2, queue_name => nullif($3, ''))",
			spec.Task, spec.Payload, spec.Queue)
		return l.remember(err, e)
	default:
		spec, e := l.draw(random, adder)
		_, err := l.client.AddJob(ctx, spec)
		return l.remember(err, e)
	}
}

var errTakenBack = errors.New("taken back")

// draw is a job of any kind.
func (l *load) draw(random *rand.Rand, adder int) (gworker.JobSpec, *entry) {
	spec, e := l.plain(random)
	p := spec.Payload.(payload)
	switch roll := random.IntN(100); {
	case roll < 10: // each key is of one adder, whose adds come one after another
		spec.Task, spec.Queue = "keyed", ""
		spec.Key = fmt.Sprintf("key %d.%d", adder, random.IntN(keysPerAdder))
		e.key = spec.Key
	case roll < 13:
		p.Fails = 99
		spec.Task, spec.MaxAttempts = "failing", maxFails
		e.expect, e.attempts, e.runs, e.stored = "failed", maxFails, maxFails, failure
	case roll < 18: // fails once
		p.Fails = 1
		spec.Task = "failing"
	}
	spec.Payload = p
	return spec, e
}

// plain is a job that just takes some time.
func (l *load) plain(random *rand.Rand) (gworker.JobSpec, *entry) {
	n := l.next.Add(1)
	p := payload{N: n}
	spec := gworker.JobSpec{Task: "plain"}
	switch roll := random.IntN(1000); {
	case roll < 1500/max(l.rate, 100): // longer than it takes to be declared dead, and not too many
		p.Ms = 3000 + random.IntN(9000)
	case roll < 50:
		p.Ms = 100 + random.IntN(400)
	case roll < 150:
		spec.Task = "middling"
		p.Ms = 100 + random.IntN(400)
	case roll < 170: // longer than a claim is held
		spec.Task = "short"
		p.Ms = 60 + random.IntN(300)
	case roll < 400:
		spec.Task, spec.Queue = "queued", fmt.Sprintf("queue %d", random.IntN(queues))
		p.Ms = random.IntN(40)
	case roll < 450:
		p.Ms = random.IntN(20)
	default:
		spec.Task = "short"
		p.Ms = random.IntN(20)
	}
	spec.Payload = p
	return spec, &entry{n: n, expect: "ok", attempts: 25}
}

func (l *load) remember(err error, entries ...*entry) bool {
	state := added
	if err != nil {
		state = unknown
		// As any application with a pool has to: after a failover its connections
		// lead to a read-only server.
		l.pool.Reset()
	}
	for _, e := range entries {
		e.state = state
	}
	l.keep(entries...)
	return err == nil
}

func (l *load) keep(entries ...*entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, entries...)
}

// rows are the entries for the oracle. An add with a key may take the place of
// earlier ones.
func (l *load) rows() (rows [][]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	later := make(map[string]bool)
	for i := len(l.entries) - 1; i >= 0; i-- {
		e := l.entries[i]
		rows = append(rows, []any{e.n, e.state, e.expect, e.attempts, e.key != "" && later[e.key], e.runs, e.stored})
		if e.key != "" {
			later[e.key] = true
		}
	}
	return rows
}

func (l *load) count() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.state == added {
			n++
		}
	}
	return n
}
