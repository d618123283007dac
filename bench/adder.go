package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// numbersOfAdder are far enough apart for each adder's jobs.
const numbersOfAdder = 10_000_000

// addAll calls add from as many goroutines as there are to be adders, until the
// time is over, and says how often. add adds order.PerCall jobs, numbered from
// first on.
func addAll(o order, add func(ctx context.Context, first int64) error) error {
	ctx := context.Background()
	say(reply{Event: "ready", At: time.Now().UnixNano()})
	begun := time.Now()
	until := begun.Add(time.Duration(o.Seconds * float64(time.Second)))
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		end   = reply{Event: "end"}
		first error
	)
	for a := range o.Adders {
		wg.Go(func() {
			var times [][2]int64
			calls, next := int64(0), int64(a)*numbersOfAdder
			for time.Now().Before(until) {
				if err := add(ctx, next); err != nil {
					mu.Lock()
					first = err
					mu.Unlock()
					break
				}
				if o.Record {
					times = append(times, [2]int64{next, time.Now().UnixMicro()})
				}
				calls, next = calls+1, next+int64(o.PerCall)
			}
			mu.Lock()
			defer mu.Unlock()
			end.Calls += calls
			end.Added += calls * int64(o.PerCall)
			end.Times = append(end.Times, times...)
		})
	}
	wg.Wait()
	if first != nil {
		return fmt.Errorf("adding: %w", first)
	}
	end.Nanos, end.At = int64(time.Since(begun)), time.Now().UnixNano()
	say(end)
	return nil
}

// addSQL calls the schema's functions, as psql would: in the simple protocol,
// nothing prepared, from a connection for each adder.
func addSQL(o order, _ <-chan struct{}) error {
	ctx := context.Background()
	pool, err := adderPool(ctx, o)
	if err != nil {
		return err
	}
	defer pool.Close()
	return addAll(o, func(ctx context.Context, first int64) error {
		call := func(q interface {
			Query(context.Context, string, ...any) (pgx.Rows, error)
		}) error {
			rows, err := q.Query(ctx, sqlOfAdd(first, o.PerCall), pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				return err
			}
			rows.Close() // reads the rows and drops them, as psql does with \o /dev/null
			return rows.Err()
		}
		if o.InTx {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return call(tx) })
		}
		return call(pool)
	})
}

func sqlOfAdd(first int64, jobs int) string {
	if jobs == 1 {
		return fmt.Sprintf(`select * from graphile_worker.add_job('%s', '{"n":%d}'::json)`, taskName, first)
	}
	// The payloads are sent, as a client's are.
	payloads := make([]byte, 0, jobs*20)
	for i := range int64(jobs) {
		if i > 0 {
			payloads = append(payloads, ',')
		}
		payloads = fmt.Appendf(payloads, `"{\"n\":%d}"`, first+i)
	}
	return fmt.Sprintf(`select * from graphile_worker.add_jobs(array(
		select row('%s', p::json, null, null, null, null, null, null)::graphile_worker.job_spec
		from unnest('{%s}'::text[]) p))`, taskName, payloads)
}
