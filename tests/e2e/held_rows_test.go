package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// Rows of held claims travel in another form than those of locked ones.
func TestHeldJobsArriveAsTheyStandInTheTable(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for _, hold := range []time.Duration{0, time.Second} {
		t.Run(hold.String(), func(t *testing.T) {
			sample.Take(t)
			pool := migrated(t)
			client := newClient(t, pool)
			for i := range 200 {
				spec := gworker.JobSpec{
					Task: fmt.Sprintf("task%d", i%3), Payload: map[string]any{"n": i, "text": strings.Repeat("x", i*i/10)},
					Priority: i % 4, MaxAttempts: 1 + i%30,
				}
				if i%5 == 0 {
					spec.Key = fmt.Sprintf("key%d", i)
				}
				if i%7 == 0 {
					spec.Queue = fmt.Sprintf("queue%d", i)
				}
				if i%11 == 0 {
					spec.Flags = []string{"b", "a"}
				}
				add(t, client, spec)
			}
			exec(t, pool, `update graphile_worker._private_jobs set
				created_at = case when id % 2 = 0 then run_at else created_at - id * interval '1 minute' end,
				updated_at = case when id % 3 = 0 then created_at - interval '5 s' when id % 3 = 1 then run_at else updated_at end,
				revision = case when id % 4 = 0 then id else 0 end,
				attempts = case when id % 5 = 0 and max_attempts > 1 then 1 else 0 end,
				last_error = case when id % 5 = 0 then 'failed' end`)
			want := map[int64]gworker.JobRow{}
			list, err := client.ListJobs(t.Context(), gworker.JobFilter{Limit: 1000, WithPayload: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, j := range list.Jobs {
				want[j.ID] = j.JobRow
			}

			var mu sync.Mutex
			got := map[int64]gworker.JobRow{}
			var tasks []gworker.Task
			for i := range 3 {
				tasks = append(tasks, gworker.NewRawTask(fmt.Sprintf("task%d", i), func(_ context.Context, j *gworker.RawJob) error {
					mu.Lock()
					defer mu.Unlock()
					row := j.JobRow
					row.Payload = append(json.RawMessage(nil), j.Payload...)
					got[j.ID] = row
					_ = append(j.Payload, "overwrites what comes behind"...)
					return nil
				}))
			}
			runOnce(t, gworker.Config{Pool: pool, Tasks: tasks, HoldTime: &hold, Concurrency: 3})
			if len(got) != len(want) {
				t.Fatalf("%d of %d jobs ran", len(got), len(want))
			}
			for id, w := range want {
				g := got[id]
				if g.LockedBy == "" || g.LockedAt.IsZero() {
					t.Errorf("job %d has no lock: %+v", id, g)
				}
				g.LockedBy, g.LockedAt = w.LockedBy, w.LockedAt
				w.Attempts++
				for _, at := range []*time.Time{&g.RunAt, &g.CreatedAt, &g.UpdatedAt, &w.RunAt, &w.CreatedAt, &w.UpdatedAt} {
					*at = at.UTC()
				}
				if !reflect.DeepEqual(g, w) {
					t.Errorf("job %d arrived as\n%+v\nand stood in the table as\n%+v", id, g, w)
				}
			}
		})
	}
}

// TestHeldJobsLeaveNoMultiXacts: rows that are locked and then deleted behind a savepoint
// have one, and index scans never mark the entries of such rows as dead. So later claims
// read all that earlier ones have deleted, until a vacuum.
func TestHeldJobsLeaveNoMultiXacts(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t, testdb.PrivateServer(t).URL("postgres"))
	client := newClient(t, pool)
	if err := client.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := func() (id string) {
		exec(t, pool, "checkpoint")
		scan(t, pool, "select next_multixact_id::text from pg_control_checkpoint()", nil, &id)
		return id
	}
	before := next()
	var held atomic.Int64
	w := start(t, gworker.Config{Pool: pool, Concurrency: 4, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}, Observers: []func(event.Event){
		func(e event.Event) {
			if started, is := e.(event.JobStarted); is && !testworker.IsLocked(t, pool, started.Job.ID) {
				held.Add(1)
			}
		},
	}})
	for round := 0; held.Load() < 20; round++ {
		var specs []gworker.JobSpec
		for i := range 10 {
			specs = append(specs, gworker.JobSpec{Task: "x", Queue: fmt.Sprint("q", i%5)})
		}
		jobs, err := client.AddJobs(t.Context(), specs)
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range jobs {
			waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
		}
	}
	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	if after := next(); after != before {
		t.Errorf("the next MultiXact was %s and is %s", before, after)
	}
}
