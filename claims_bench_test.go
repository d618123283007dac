package gworker_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

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
