package interop_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestBatchJob: a batch job leaves alike what failed of it, whoever has run it,
// but for the two cases in which Node takes a handler's mistake for success. The
// crate words its errors in its own way.
func TestBatchJob(t *testing.T) {
	const (
		unlike   = "the batch handler returned 1 results for 2 elements: it must return one for each, or nil"
		noArray  = "the payload of a batch job must be a JSON array, an element for each piece of work"
		complete = ""

		noRustArray = "batch job payload must be a JSON array"
	)
	cases := []struct {
		payload string
		// What is left of the job, and its error; complete if it is gone.
		left, failure string
		// here is the error of ours where Node's workers complete the job.
		here string
		rust string // the crate's error, where the job fails there
		runs bool   // whether our handler is called at all
	}{
		{
			payload: `[{"n":0},{"n":1,"fail":"one: line\nof two","deep":{"x":[1.5,null,"ü"]}},{"n":2},{"fail":"three","n":3}]`,
			left:    `[{"n":1,"fail":"one: line\nof two","deep":{"x":[1.5,null,"ü"]}},{"fail":"three","n":3}]`,
			failure: "Batch failures:\none: line\nof two\nthree", runs: true,
			rust: "2 batch item(s) failed: 1: one: line\nof two, 3: three",
		},
		{
			payload: `[{"fail":"b"},{"fail":"a"},{"fail":"b"}]`, left: `[{"fail":"b"},{"fail":"a"},{"fail":"b"}]`,
			failure: "Batch failures:\nb\na\nb", runs: true,
			rust: "3 batch item(s) failed: 0: b, 1: a, 2: b",
		},
		{payload: `[{"n":0},{"n":1},"text",4]`, failure: complete, runs: true},
		{payload: `[]`, failure: complete},
		{payload: `[{"n":0},{"n":1,"noResult":true}]`, here: unlike, rust: "batch handler returned 1 results for 2 payload items", runs: true},
		{payload: `{"n":0}`, here: noArray, rust: noRustArray},
		{payload: `{"n":0,"fail":"no batch"}`, here: noArray, rust: noRustArray, failure: "no batch", left: `{"n":0,"fail":"no batch"}`},
	}
	forEachSide(t, func(t *testing.T, s side) {
		db := gworkerDatabase(t)
		for i, c := range cases {
			db.exec("select graphile_worker.add_job('batch', $1::json, job_key => 'key ' || $2::int, queue_name => 'queue ' || $2)",
				json.RawMessage(c.payload), i)
		}
		s.startWorker(t, order{ConnectionString: db.url, BatchTasks: []string{"batch"}, Concurrency: 1, Once: true}, newJournal()).wait(t)

		type row struct {
			Number              int
			Left, Failure       string
			Attempts            int
			Locked, QueueLocked bool
			FailedAt, Now       time.Time
		}
		rows := query[row](db, `
			select substr(j.key, 5)::int, j.payload::text, coalesce(j.last_error, ''), j.attempts, j.locked_at is not null or j.locked_by is not null,
				q.locked_at is not null or q.locked_by is not null, j.run_at - exp(least(j.attempts, 10)) * interval '1 second', clock_timestamp()
			from graphile_worker._private_jobs j join graphile_worker._private_job_queues q on q.id = j.job_queue_id order by j.id`)
		for i, c := range cases {
			type run struct {
				Payload json.RawMessage
				Started time.Time
			}
			runs := query[run](db, "select (job -> 'payload')::text, started_at from interop.runs where job ->> 'key' = 'key ' || $1::int order by id", i)
			if c.runs && len(runs) == 0 {
				t.Errorf("%s was not run", c.payload)
				continue
			}
			if len(runs) > 0 {
				if diff := cmp.Diff(json.RawMessage(c.payload), runs[0].Payload, asJSON); diff != "" {
					t.Errorf("%s as its handler saw it (-want +got):\n%s", c.payload, diff)
				}
			}
			failure, left := c.failure, c.left
			if c.here != "" && !s.isNode() {
				failure, left = c.here, c.payload
			}
			if c.rust != "" && s.isRust() {
				failure = s.storedError(c.rust)
			}
			at := slices.IndexFunc(rows, func(r row) bool { return r.Number == i })
			switch {
			case failure == complete && at < 0:
				continue
			case failure == complete:
				t.Errorf("%s: left as %+v, want it complete", c.payload, rows[at])
				continue
			case at < 0:
				t.Errorf("%s: the job is gone, want it to fail with %q", c.payload, failure)
				continue
			}
			got := rows[at]
			if diff := cmp.Diff(json.RawMessage(left), json.RawMessage(got.Left), asJSON); diff != "" {
				t.Errorf("%s: what is left (-want +got):\n%s", c.payload, diff)
			}
			if got.Failure != failure || got.Locked || got.QueueLocked {
				t.Errorf("%s: left as %+v, want the error %q", c.payload, got, failure)
			}
			// One run, unless the machine was so slow that a retry became due.
			if attempts := len(runs); attempts > 0 && got.Attempts != attempts || got.Attempts < 1 {
				t.Errorf("%s: %d attempts after %d runs", c.payload, got.Attempts, attempts)
			}
			if got.FailedAt.After(got.Now) || len(runs) > 0 && got.FailedAt.Before(runs[len(runs)-1].Started) {
				t.Errorf("%s: the next run is counted from %s, which is not during the run", c.payload, got.FailedAt)
			}
		}
	})
}
