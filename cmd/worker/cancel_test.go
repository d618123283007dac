package main

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker/internal/testdb"
)

func TestCancel(t *testing.T) {
	database := testdb.Migrated(t)
	pool := testdb.Pool(t, database)
	exec := func(sql string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`select graphile_worker.add_job(name) from unnest(array['mine', 'nodes', 'waiting']) with ordinality n (name, place) order by place`)
	exec(`update graphile_worker._private_jobs set attempts = 1, locked_at = now(),
		locked_by = case id when 1 then 'gworker_a' else 'pool-1' end where id < 3`)

	worker(t, "", "cancel", "1", "--reason", "not wanted", "-c", database).want(t, 0, "job 1 (mine) runs on gworker_a, which has been told")
	worker(t, "", "cancel", "2", "-c", database).want(t, 0, "job 2 (nodes) runs on pool-1, which is not a gworker")
	worker(t, "", "cancel", "3", "-c", database).want(t, 0, "job 3 (waiting) did not run, and has failed permanently")
	worker(t, "", "cancel", "3", "--reason", "again", "-c", database).want(t, 0, "failed permanently before: the job was cancelled")
	worker(t, "", "cancel", "4", "-c", database).want(t, 1, "cancelling job 4: no such job")

	for id, want := range map[string]cancelJSON{
		"1": {ID: 1, State: "requested", Task: "mine", WorkerID: "gworker_a", Reason: "not wanted"},
		"2": {ID: 2, State: "kept_from_retrying", Task: "nodes", WorkerID: "pool-1", Reason: "the job was cancelled"},
		"3": {ID: 3, State: "already_failed", Task: "waiting", Reason: "the job was cancelled"},
		"4": {ID: 4, State: "not_found"},
	} {
		r := worker(t, "", "cancel", id, "--json", "-c", database)
		status := 0
		if want.State == "not_found" {
			status = 1
		}
		r.want(t, status)
		var got cancelJSON
		if err := json.Unmarshal([]byte(r.out), &got); err != nil {
			t.Errorf("printed %s: %v", r.out, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("of job %s (-want +got):\n%s", id, diff)
		}
	}

	worker(t, "", "cancel").want(t, 2, "name the ids of the jobs")
	worker(t, "", "cancel", "x").want(t, 2, `"x" is not the id of a job`)
	worker(t, "", "cancel", "1", "--reason", "\xff", "-c", database).want(t, 2, "--reason is not valid UTF-8")
}
