package gworker_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

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
	w := start(t, gworker.Config{Pool: pool, Concurrency: 4, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}, Observers: []func(gworker.Event){
		func(e gworker.Event) {
			if started, is := e.(gworker.JobStarted); is && !lockIsWritten(t, pool, started.Job.ID) {
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
			waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == job.ID })
		}
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if after := next(); after != before {
		t.Errorf("the next MultiXact was %s and is %s", before, after)
	}
}
