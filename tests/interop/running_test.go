package interop_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// A job that is replaced through its key while it runs is retired: the run goes
// on without the key and on its last attempt, and a new job waits.
func TestKeyedJobReplacedWhileRunning(t *testing.T) {
	for name, failure := range map[string]string{"the run succeeds": "", "the run fails": "too late"} {
		t.Run(name, func(t *testing.T) {
			forEachSide(t, func(t *testing.T, runner side) {
				for _, replacer := range []side{gworkerSide, nodeSide(node.V18), rustSide(rust.V14)} {
					t.Run("replaced by "+replacer.String(), func(t *testing.T) {
						testReplacedWhileRunning(t, runner, replacer, failure)
					})
				}
			})
		})
	}
}

func testReplacedWhileRunning(t *testing.T, runner, replacer side, failure string) {
	replacer.require(t)
	db := gworkerDatabase(t)
	first := fmt.Sprintf(`{"fail": %q, "version": 1}`, failure)
	second := `{"version": 2}`
	replacer.add(t, db.url, call{AddJob: &spec{
		Task: "keyed", Key: "k", Queue: "old", Payload: json.RawMessage(first), RunAt: longAgo, Priority: 5, MaxAttempts: 9,
	}})
	open := db.closeGate()
	j := newJournal()
	p := runner.startWorker(t, order{ConnectionString: db.url, Tasks: []string{"keyed"}, Concurrency: 1, Once: true}, j)
	j.await(t, "started", 1)

	replacer.add(t, db.url, call{AddJob: &spec{
		Task: "keyed", Key: "k", Queue: "new", Payload: json.RawMessage(second), RunAt: longAgo.Add(time.Hour),
	}})
	retired := storedJob{
		Task: "keyed", Queue: ptr("old"), Payload: first, Priority: 5, RunAt: longAgo,
		Attempts: 9, MaxAttempts: 9, Locked: true, QueueLocked: true,
	}
	waiting := storedJob{
		Task: "keyed", Queue: ptr("new"), Payload: second, RunAt: longAgo.Add(time.Hour),
		MaxAttempts: 25, Key: ptr("k"), Available: true,
	}
	if diff := cmp.Diff([]storedJob{retired, waiting}, db.jobs()); diff != "" {
		t.Errorf("the jobs while the first runs (-want +got):\n%s", diff)
	}

	open()
	p.wait(t)
	payloads := values[string](db, "select job ->> 'payload' from interop.runs order by id")
	if diff := cmp.Diff([]string{first, second}, payloads); diff != "" {
		t.Errorf("payloads of the runs (-want +got):\n%s", diff)
	}
	want := []storedJob{}
	if failure != "" {
		retired.Locked, retired.QueueLocked, retired.LastError = false, false, ptr(runner.storedError(failure))
		want = append(want, retired)
	}
	got := db.jobs()
	for i := range got {
		got[i].RunAt = longAgo // of a retry that never comes; for its time see TestFailingJob
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the jobs afterwards (-want +got):\n%s", diff)
	}
}

func ptr[T any](v T) *T { return &v }
