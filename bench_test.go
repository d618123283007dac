package gworker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/internal/testdb"
)

// BenchmarkAdding adds through the client and, in turn with it, by calling the
// schema's functions on connections of the same kind, on a server that waits for
// its disk. "ratio" is the functions' time divided by the client's:
//
//	go test -run - -bench Adding -benchtime 1x .
func BenchmarkAdding(b *testing.B) {
	pool := durable(b)
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	call := func(text string, args ...any) error {
		_, err := pool.Exec(context.Background(), text, args...)
		return err
	}
	addOne := func(spec gworker.JobSpec) error {
		_, err := client.AddJob(context.Background(), spec)
		return err
	}
	payload := json.RawMessage(`{"to":"ada@example.com","n":1}`)
	for _, c := range []struct {
		name     string
		parallel int
		each     int
		ours     func(i, n int) error
		function func(i, n int) error
	}{
		{"single", 1, 400,
			func(int, int) error { return addOne(gworker.JobSpec{Task: "x", Payload: payload}) },
			func(int, int) error { return call("select graphile_worker.add_job('x', $1)", payload) }},
		{"keyed", 1, 400,
			func(_, n int) error {
				return addOne(gworker.JobSpec{Task: "x", Payload: payload, Key: fmt.Sprint(n % 50)})
			},
			func(_, n int) error {
				return call("select graphile_worker.add_job('x', $1, job_key => $2)", payload, fmt.Sprint(n%50))
			}},
		{"96 adders", 96, 50,
			func(int, int) error { return addOne(gworker.JobSpec{Task: "x", Payload: payload}) },
			func(int, int) error { return call("select graphile_worker.add_job('x', $1)", payload) }},
		{"96 keyed adders", 96, 50,
			func(i, n int) error {
				return addOne(gworker.JobSpec{Task: "x", Payload: payload, Key: fmt.Sprint(i, n%5)})
			},
			func(i, n int) error {
				return call("select graphile_worker.add_job('x', $1, job_key => $2)", payload, fmt.Sprint(i, n%5))
			}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var ours, function time.Duration
			run := func(f func(i, n int) error) time.Duration {
				if _, err := pool.Exec(b.Context(), "truncate graphile_worker._private_jobs"); err != nil {
					b.Fatal(err)
				}
				began := time.Now()
				var done sync.WaitGroup
				for i := range c.parallel {
					done.Go(func() {
						for n := range c.each {
							if err := f(i, n); err != nil {
								b.Error(err)
							}
						}
					})
				}
				done.Wait()
				return time.Since(began)
			}
			for b.Loop() {
				for range 3 {
					ours += run(c.ours)
					function += run(c.function)
				}
			}
			adds := float64(3 * b.N * c.parallel * c.each)
			b.ReportMetric(adds/ours.Seconds(), "adds/s")
			b.ReportMetric(adds/function.Seconds(), "functions'-adds/s")
			b.ReportMetric(function.Seconds()/ours.Seconds(), "ratio")
		})
	}
}

// BenchmarkAddingMany adds 10,000 jobs in one call, in turn with the statement
// that one would write in psql, which returns nothing but the count. "ratio"
// is the client's time divided by the statement's:
//
//	go test -run - -bench AddingMany -benchtime 5x .
func BenchmarkAddingMany(b *testing.B) {
	const jobs = 10_000
	pool := durable(b)
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	specs := make([]gworker.JobSpec, jobs)
	var rows []string
	for i := range specs {
		payload := fmt.Sprintf(`{"to":"ada@example.com","n":%d}`, i)
		specs[i] = gworker.JobSpec{Task: "x", Payload: json.RawMessage(payload)}
		rows = append(rows, fmt.Sprintf("row('x','%s',null,null,null,null,null,null)::graphile_worker.job_spec", payload))
	}
	literal := "select count(*) from graphile_worker.add_jobs(array[" + strings.Join(rows, ",") + "])"
	generated := `select count(*) from graphile_worker.add_jobs(array(select row('x',
		json_build_object('to', 'ada@example.com', 'n', i), null, null, null, null, null, null)::graphile_worker.job_spec
		from generate_series(1, 10000) i))`
	var ours, psql, short time.Duration
	timed := func(total *time.Duration, f func() error) {
		if _, err := pool.Exec(b.Context(), "truncate graphile_worker._private_jobs"); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		*total += time.Since(began)
	}
	b.ReportAllocs()
	for b.Loop() {
		timed(&ours, func() error { _, err := client.AddJobs(b.Context(), specs); return err })
		timed(&psql, func() error { _, err := pool.Exec(b.Context(), literal, pgx.QueryExecModeSimpleProtocol); return err })
		timed(&short, func() error { _, err := pool.Exec(b.Context(), generated); return err })
	}
	b.ReportMetric(ours.Seconds()*1000/float64(b.N), "ms/call")
	b.ReportMetric(ours.Seconds()/psql.Seconds(), "ratio-to-literals")
	b.ReportMetric(ours.Seconds()/short.Seconds(), "ratio-to-generate_series")
}

// durable is a migrated database of a server that waits for its disk, and enough
// connections for everybody.
func durable(b *testing.B) *pgxpool.Pool {
	b.Helper()
	server, err := devpg.Start(b.Context(), devpg.Options{IgnoreEnvironment: true, Settings: map[string]string{"max_connections": "110"}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	config, err := pgxpool.ParseConfig(server.URL("postgres"))
	if err != nil {
		b.Fatal(err)
	}
	config.MaxConns = 98
	pool, err := pgxpool.NewWithConfig(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		b.Fatal(err)
	}
	if err := client.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	return pool
}

// BenchmarkAddingToStart measures from the return of an add to the first line of
// the handler, with 96 adders who add 5 jobs a second each and a worker that has
// nothing else to do: through the client and, in turn with it, by calling add_job.
//
//	go test -run - -bench AddingToStart -benchtime 3x .
func BenchmarkAddingToStart(b *testing.B) {
	const adders, each, pause = 96, 10, 200 * time.Millisecond
	pool := durable(b)
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	var mu sync.Mutex
	started := map[int64]time.Time{}
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: pool.Config().ConnString(), Concurrency: 24, PollInterval: time.Minute,
		Tasks: []gworker.Task{gworker.NewRawTask("x", func(_ context.Context, job *gworker.RawJob) error {
			mu.Lock()
			defer mu.Unlock()
			started[job.ID] = time.Now()
			return nil
		})},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	sides := map[string]func() (int64, error){
		"client": func() (int64, error) {
			job, err := client.AddJob(context.Background(), gworker.JobSpec{Task: "x"})
			if err != nil {
				return 0, err
			}
			return job.ID, nil
		},
		"add_job": func() (id int64, err error) {
			err = pool.QueryRow(context.Background(), "select id from graphile_worker.add_job('x')").Scan(&id)
			return id, err
		},
	}
	round := func(add func() (int64, error)) (waits []time.Duration) {
		var done sync.WaitGroup
		for i := range adders {
			done.Go(func() {
				time.Sleep(time.Duration(i) * pause / adders)
				ticks := time.NewTicker(pause)
				defer ticks.Stop()
				for range each {
					<-ticks.C
					id, err := add()
					returned := time.Now()
					if err != nil {
						b.Error(err)
						return
					}
					at := time.Time{}
					for at.IsZero() {
						time.Sleep(time.Millisecond)
						mu.Lock()
						at = started[id]
						mu.Unlock()
					}
					mu.Lock()
					waits = append(waits, at.Sub(returned))
					mu.Unlock()
				}
			})
		}
		done.Wait()
		return waits
	}
	waits := map[string][]time.Duration{}
	for _, add := range sides {
		round(add) // the worker starts, and connections are made and prepare
	}
	for b.Loop() {
		for name, add := range sides {
			waits[name] = append(waits[name], round(add)...)
		}
	}
	stop()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	for name, all := range waits {
		slices.Sort(all)
		for what, place := range map[string]int{"p50": len(all) / 2, "p90": len(all) * 9 / 10, "p99": len(all) * 99 / 100} {
			b.ReportMetric(all[place].Seconds()*1000, name+"-"+what+"-ms")
		}
	}
}

// BenchmarkLocalQueue drains 2,000 jobs, with handlers that take no time and a
// few milliseconds, few slots and many, and local queues of several sizes:
//
//	go test -run - -bench LocalQueue -benchtime 3x .
func BenchmarkLocalQueue(b *testing.B) {
	const jobs = 2000
	for _, takes := range []time.Duration{0, 5 * time.Millisecond} {
		for _, slots := range []int{1, 10, 50} {
			for _, size := range []int{0, 50, 500} {
				if takes > 0 && slots == 1 {
					continue // the handlers decide
				}
				b.Run(fmt.Sprintf("handler=%s/slots=%d/size=%d", takes, slots, size), func(b *testing.B) {
					pool := testdb.Pool(b, testdb.Migrated(b))
					for b.Loop() {
						b.StopTimer()
						if _, err := pool.Exec(b.Context(), "select graphile_worker.add_job('x') from generate_series(1, $1)", jobs); err != nil {
							b.Fatal(err)
						}
						worker, err := gworker.NewWorker(gworker.Config{
							Pool: pool, Concurrency: slots, LocalQueue: gworker.LocalQueueConfig{Size: size},
							Tasks: []gworker.Task{gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error {
								time.Sleep(takes)
								return nil
							})},
						})
						if err != nil {
							b.Fatal(err)
						}
						b.StartTimer()
						if err := worker.RunOnce(b.Context()); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(jobs*float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
				})
			}
		}
	}
}
