package interop_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/tests/interop/node"
)

// A job that a Node worker runs goes on when it is cancelled, and is not tried
// again.
func TestCancelOfAJobThatNodeRuns(t *testing.T) {
	forEachNode(t, func(t *testing.T, v node.Version) {
		for name, failure := range map[string]string{"the run succeeds": "", "the run fails": "its own error"} {
			t.Run(name, func(t *testing.T) { testCancelOfNode(t, nodeSide(v), failure) })
		}
	})
}

func testCancelOfNode(t *testing.T, runner side, failure string) {
	db := gworkerDatabase(t)
	pool, err := pgxpool.New(t.Context(), db.url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	job, err := client.AddJob(t.Context(), gworker.JobSpec{
		Task: "slow", Queue: "q", Key: "k", Flags: []string{"f"}, Payload: json.RawMessage(fmt.Sprintf(`{"fail": %q}`, failure)),
	})
	if err != nil {
		t.Fatal(err)
	}
	open := db.closeGate()
	j := newJournal()
	p := runner.startWorker(t, order{ConnectionString: db.url, Tasks: []string{"slow"}, Concurrency: 1, Once: true}, j)
	j.await(t, "started", 1)

	result, err := client.Cancel(t.Context(), job.ID, "not wanted")
	if err != nil || result.State != gworker.CancelKeptFromRetrying {
		t.Fatalf("cancelling: %+v, %v", result, err)
	}
	if now := db.jobs(); len(now) != 1 || !now[0].Locked || !now[0].QueueLocked || now[0].Key != nil || now[0].Attempts != now[0].MaxAttempts {
		t.Errorf("while it runs the job is %+v", now)
	}
	// Node's own functions leave it alone, too.
	db.exec("select graphile_worker.reschedule_jobs(array[$1::bigint], attempts => 0)", job.ID)
	open()
	p.wait(t)
	if failure == "" {
		if left := db.jobs(); len(left) != 0 {
			t.Errorf("the job is %+v", left)
		}
		return
	}
	// It is not runnable for anybody, now or after its backoff.
	db.exec("update graphile_worker._private_jobs set run_at = now()")
	runner.runOnce(t, db.url, "slow")
	gworkerSide.runOnce(t, db.url, "slow")
	if runs := len(db.seen()); runs != 1 {
		t.Errorf("it was run %d times", runs)
	}
	left := db.jobs()
	if len(left) != 1 || left[0].Locked || left[0].QueueLocked || left[0].Available || left[0].LastError == nil || *left[0].LastError != failure {
		t.Errorf("the job is %+v", left)
	}
	// An operator may bring it back, and what is left of the mark is no flag.
	db.exec("select graphile_worker.reschedule_jobs(array[$1::bigint], attempts => 0, run_at => now())", job.ID)
	gworkerSide.runOnce(t, db.url, "slow")
	seen := db.seen()
	if len(seen) != 2 || len(seen[1].Flags) != 1 || seen[1].Flags[0] != "f" {
		t.Errorf("the runs are %+v", seen)
	}
}
