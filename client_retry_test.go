package gworker_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testworker"
)

// TestRetryJobs: what has failed, for whichever reason, and what waits runs again now,
// with all its attempts; what runs and what is gone is left out.
func TestRetryJobs(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	ids := testworker.AddEach(t, client,
		gworker.JobSpec{Task: "failed", MaxAttempts: 3}, gworker.JobSpec{Task: "capped"}, gworker.JobSpec{Task: "retrying"},
		gworker.JobSpec{Task: "scheduled", RunAt: time.Now().Add(time.Hour)}, gworker.JobSpec{Task: "running"})
	exec(t, pool, `update graphile_worker._private_jobs set locked_by = 'other', locked_at = now(), attempts = 1 where id = $1`, ids["running"])
	exec(t, pool, `update graphile_worker._private_jobs set attempts = 2 where id = $1`, ids["failed"])
	failing := testworker.Fail(errors.New("no"))
	tasks := func(task func(string) gworker.Task) []gworker.Task {
		return []gworker.Task{task("failed"), task("capped").With(gworker.TaskOptions{MaxAttempts: 1}), task("retrying"), task("scheduled"), task("running")}
	}
	runOnce(t, gworker.Config{Pool: pool, Tasks: tasks(func(name string) gworker.Task { return gworker.NewRawTask(name, failing) })})
	for name, want := range map[string]string{"failed": "3/3|no|failed", "capped": "1/1|no|failed", "retrying": "1/25|no|again"} {
		if got := testworker.Row(t, pool, ids[name]); got != want {
			t.Errorf("%s is %q before, not %q", name, got, want)
		}
	}
	all := append(slices.Collect(maps.Values(ids)), 1_000_000)
	result, err := client.RetryJobs(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Jobs) != 4 || len(result.Untouched) != 2 {
		t.Errorf("%d changed, %d not", len(result.Jobs), len(result.Untouched))
	}
	for _, job := range result.Jobs {
		if job.State != gworker.StateReady || job.Attempts != 0 {
			t.Errorf("%s is %s with %d attempts", job.Task, job.State, job.Attempts)
		}
	}
	e := runOnce(t, gworker.Config{Pool: pool, Tasks: tasks(func(name string) gworker.Task { return gworker.NewRawTask(name, testworker.Fail(nil)) })})
	if n := count[event.JobCompleted](e); n != 4 {
		t.Errorf("%d jobs ran again", n)
	}
}

// TestAddedTellsOfAnExistingJob: each way to add a job tells whether it is new.
func TestAddedTellsOfAnExistingJob(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	add(t, client, gworker.JobSpec{Task: "x"}) // or the first add of the task waits for the other's transaction
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	for _, mode := range []gworker.KeyMode{gworker.KeyUnsafeDedupe, gworker.KeyReplace, gworker.KeyPreserveRunAt} {
		for name, adder := range map[string]gworker.JobAdder{"client": client, "transaction": client.WithTx(tx)} {
			spec := gworker.JobSpec{Task: "x", Key: name + string(mode), KeyMode: mode}
			for i, want := range []bool{true, false, false} {
				if job := add(t, adder, spec); job.Added() != want {
					t.Errorf("%s, %s: add %d says %t", name, mode, i, !want)
				}
			}
		}
	}
	if job := add(t, client, gworker.JobSpec{Task: "x"}); !job.Added() {
		t.Error("a job without a key is not new")
	}
}

// TestJobsAsJSON: they have the names of the columns.
func TestJobsAsJSON(t *testing.T) {
	t.Parallel()
	client := newClient(t, migrated(t))
	job := add(t, client, gworker.JobSpec{Task: "x", Queue: "q", Payload: json.RawMessage(`{"a":1}`)})
	info, err := client.GetJob(t.Context(), job.ID)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{"JobRow": job, "JobInfo": info, "Job": gworker.RawJob{JobRow: *job, Payload: job.Payload}} {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"id", "task_identifier", "queue_name", "payload", "run_at", "attempts", "max_attempts"} {
			if _, ok := fields[field]; !ok {
				t.Errorf("%s has no %q: %s", name, field, text)
			}
		}
		if payload, ok := fields["payload"].(map[string]any); !ok || payload["a"] != 1.0 {
			t.Errorf("%s has another payload: %s", name, text)
		}
	}
	var back gworker.JobRow
	text, err := json.Marshal(job)
	if err == nil {
		err = json.Unmarshal(text, &back)
	}
	if err != nil || back.ID != job.ID || back.Task != job.Task || !back.RunAt.Equal(job.RunAt) {
		t.Errorf("read back: %+v (%v)", back, err)
	}
}
