package scheduler_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

// TestClaimsAreBoundedByTheirPayloads, which nothing tells of beforehand: many small jobs
// and then some large ones, in queues and not. What is stored of them is a small part of
// their size. One that is larger than the bound is claimed alone.
func TestClaimsAreBoundedByTheirPayloads(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, kind := range map[string]func(*fixture){
		"locked":  func(*fixture) {},
		"held":    func(f *fixture) { f.holdFor(time.Hour) },
		"clock":   func(f *fixture) { f.config.Now = time.Now },
		"limited": func(f *fixture) { f.config.TaskLimits = map[string]int{"x": 1000} },
	} {
		for queues, queue := range map[string]string{"plain": "null", "queued": "'q' || n"} {
			t.Run(name+" "+queues, func(t *testing.T) {
				t.Parallel()
				const most = 16 << 20
				var mu sync.Mutex
				sizes, runs := map[int64]int{}, map[int64]int{}
				f := newFixture(t, map[string]scheduler.Handler{"x": func(_ context.Context, j *job.Claimed) job.Outcome {
					mu.Lock()
					defer mu.Unlock()
					runs[j.ID]++
					sizes[j.Lock.At.UnixMicro()] += len(j.Payload)
					return job.Outcome{Kind: job.Completed}
				}})
				kind(f)
				f.config.PollInterval = time.Hour
				f.exec(t, `insert into graphile_worker._private_job_queues (queue_name) select 'q' || n from generate_series(1, 214) n`)
				f.exec(t, `insert into graphile_worker._private_tasks (identifier) values ('x')`)
				f.exec(t, `insert into graphile_worker._private_jobs (task_id, payload, job_queue_id)
					select t.id, to_json(repeat('x', case when n <= 200 then 1 when n = 214 then 17000000 else 3000000 end)),
						(select q.id from graphile_worker._private_job_queues q where q.queue_name = `+queue+`)
					from graphile_worker._private_tasks t, generate_series(1, 214) n where t.identifier = 'x'`)
				if err := scheduler.New(f.config).RunOnce(t.Context()); err != nil {
					t.Fatal(err)
				}
				ranOnce(t, runs, 214)
				for _, size := range sizes {
					if size > most && size != 17000002 {
						t.Errorf("a claim took %d bytes of payloads", size)
					}
				}
			})
		}
	}
}
