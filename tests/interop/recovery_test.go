package interop_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/tests/interop/node"
)

// Node's workers never say that they live: however long their jobs take, a sweep
// leaves them alone, unless the operator says otherwise.
func TestJobsOfNodeAreNotSwept(t *testing.T) {
	forEachNode(t, func(t *testing.T, v node.Version) {
		db := gworkerDatabase(t)
		db.exec("select graphile_worker.add_job('slow', queue_name => 'q')")
		open := db.closeGate()
		j := newJournal()
		p := nodeSide(v).startWorker(t, order{ConnectionString: db.url, Tasks: []string{"slow"}, Concurrency: 1, Once: true}, j)
		j.await(t, "started", 1)
		db.exec("update graphile_worker._private_jobs set locked_at = now() - interval '3 hours'")
		db.exec("update graphile_worker._private_job_queues set locked_at = now() - interval '3 hours'")
		running := db.jobs()

		pool, err := pgxpool.New(t.Context(), db.url)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		result, err := client.Sweep(t.Context(), gworker.SweepOptions{Recovery: gworker.RecoveryConfig{StaleAfter: time.Second}})
		if err != nil || len(result.Workers) != 0 {
			t.Errorf("swept %+v, %v", result, err)
		}
		if now := db.jobs(); len(now) != 1 || now[0].Attempts != running[0].Attempts || !now[0].Locked || !now[0].QueueLocked {
			t.Errorf("the job of %s was %+v and is %+v", v, running, now)
		}
		result, err = client.Sweep(t.Context(), gworker.SweepOptions{NodeLocksOlderThan: 2 * time.Hour, DryRun: true})
		if err != nil || len(result.Workers) != 1 || len(result.Workers[0].Jobs) != 1 {
			t.Errorf("when told to, it would sweep %+v, %v", result, err)
		}
		open()
		p.wait(t)
		if runs := len(db.seen()); runs != 1 {
			t.Errorf("it was run %d times", runs)
		}
	})
}
