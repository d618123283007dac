package interop_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
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

// A Rust worker without recovery says nothing of itself. Our workers leave what it has
// locked alone for 4 hours, as Node's do, and then reset its locks, those of queues
// too; whether it still lives they cannot know.
func TestOldLocksOfRustAreReset(t *testing.T) {
	forEachRust(t, func(t *testing.T, v rust.Version) {
		db := gworkerDatabase(t)
		open := db.closeGate()
		living, dead := &lockHolder{name: "living", side: rustSide(v)}, &lockHolder{name: "dead", side: rustSide(v)}
		living.start(db, "slow")
		dead.start(db, "held")
		db.await("both jobs to start", func() bool { return len(db.seen()) == 2 })
		holder := db.lockedBy("slow")
		dead.process.kill(t)
		for queue, age := range map[string]string{"slow": "3 hours 58 minutes", "held": "4 hours 1 minute"} {
			for _, table := range []string{"_private_jobs", "_private_job_queues"} {
				db.exec(`update graphile_worker.`+table+` x set locked_at = now() - $2::interval
					where x.locked_by = (select locked_by from graphile_worker._private_job_queues where queue_name = $1)`, queue, age)
			}
		}

		// Each worker of ours looks for old locks at some moment of its first minute: of
		// several, one does soon.
		resets := make(chan event.OldLocksReset, 100)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer stop()
		for range 6 {
			worker, err := gworker.NewWorker(gworker.Config{
				DatabaseURL: db.url, Concurrency: 1,
				Tasks: []gworker.Task{gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error { return nil })},
				Observers: []func(event.Event){func(e event.Event) {
					if e, ok := e.(event.OldLocksReset); ok {
						resets <- e
					}
				}},
			})
			if err != nil {
				t.Fatal(err)
			}
			running.Go(func() {
				if err := worker.Run(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		select {
		case e := <-resets:
			if !slices.Equal(e.Queues, []string{"held"}) || len(e.JobIDs) != 1 {
				t.Errorf("reset %+v, want the locks of 4:01 hours", e)
			}
		case <-time.After(deadline):
			t.Fatal("no worker of ours has looked for old locks")
		}
		stop()
		running.Wait()
		if got := db.lockedBy("held"); got != "" {
			t.Errorf("the job of 4:01 hours is locked by %s", got)
		}
		if got := db.lockedBy("slow"); got != holder {
			t.Errorf("the job of 3:58 hours is locked by %q, want %s", got, holder)
		}
		open()
		gworkerSide.runOnce(t, db.url, "held")
		db.await("both jobs to end", func() bool { return len(db.jobs()) == 0 })
		living.process.stop(t)
		if runs := values[string](db, "select worker from interop.runs order by job_id, id"); !slices.Equal(runs, []string{"living", "dead", "gworker"}) {
			t.Errorf("the jobs were run by %v", runs)
		}
	})
}
