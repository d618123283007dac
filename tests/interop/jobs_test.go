package interop_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// longAgo is a run_at that is due, exact to the millisecond as Node's are.
var longAgo = time.Date(2021, 3, 4, 5, 6, 7, 890e6, time.UTC)

// everyKindOfJob has each field of a spec away from its default at least once.
// Their priorities tell the jobs apart: add_jobs keeps no order.
func everyKindOfJob() []spec {
	return []spec{
		{Task: "plain"},
		{Task: "plain", Priority: 1, Payload: json.RawMessage(`{"nested":{"list":[1,2.5,-3e-7,null,true],"empty":{}},"":"no name"}`)},
		{Task: "text/with:odd-Characters.1", Priority: 2, Payload: json.RawMessage(`{"text":"line\nquote\"back\\slash ünï 漢字 🐘 \u0001"}`)},
		{Task: "plain", Priority: 3, Payload: json.RawMessage(`["a",{"b":1}]`)},
		{Task: "plain", Priority: 4, Payload: json.RawMessage(`"a string"`)},
		{Task: "queued", Priority: 5, Queue: "a queue's \"name\" with ünïcode", Payload: json.RawMessage(`{"n":1}`)},
		{Task: "queued", Priority: 6, Queue: "second", RunAt: longAgo},
		{Task: "plain", Priority: -7, MaxAttempts: 1},
		{Task: "plain", Priority: 32767, MaxAttempts: 32767},
		{Task: "plain", Priority: -32768},
		{Task: "keyed", Priority: 10, Key: "order 1: ünïque"},
		{Task: "keyed", Priority: 11, Key: "order 2", KeyMode: "preserve_run_at"},
		{Task: "flagged", Priority: 12, Flags: []string{"slow", "beta:2"}},
		{Task: "queued", Priority: 13, Queue: "all", RunAt: longAgo.Add(time.Hour), MaxAttempts: 7, Key: "order 3",
			Flags: []string{"one"}, Payload: json.RawMessage(`{"all":"fields"}`)},
	}
}

var everyTask = []string{"plain", "text/with:odd-Characters.1", "queued", "keyed", "flagged"}

// wantSeen is what a handler is to see of a spec.
func wantSeen(s spec) seenJob {
	want := seenJob{
		Task: s.Task, Queue: s.Queue, Payload: s.Payload, Priority: s.Priority, RunAt: s.RunAt,
		Attempts: 1, MaxAttempts: s.MaxAttempts, Key: s.Key, Flags: slices.Sorted(slices.Values(s.Flags)),
	}
	if want.Payload == nil {
		want.Payload = json.RawMessage(`{}`)
	}
	if want.MaxAttempts == 0 {
		want.MaxAttempts = 25
	}
	return want
}

// oneByOne and together are the two ways of adding.
func oneByOne(specs []spec) []call {
	var calls []call
	for i := range specs {
		if i%2 == 0 {
			calls = append(calls, call{AddJob: &specs[i]})
		} else {
			calls = append(calls, call{QuickAddJob: &specs[i]})
		}
	}
	return calls
}

func together(specs []spec) []call {
	for i := range specs {
		specs[i].KeyMode = "" // one for all, not one a job
	}
	return []call{{AddJobs: specs}}
}

func TestJobsAddedByNodeRunHere(t *testing.T) {
	forEachNode(t, func(t *testing.T, v node.Version) {
		testHandover(t, nodeSide(v), gworkerSide)
	})
}

func TestJobsAddedHereRunOnNode(t *testing.T) {
	forEachNode(t, func(t *testing.T, v node.Version) {
		testHandover(t, gworkerSide, nodeSide(v))
	})
}

// testHandover has one side add every kind of job in both ways, and the other
// run them.
func testHandover(t *testing.T, adder, runner side) {
	t.Run("AddJob", func(t *testing.T) {
		testHandoverOf(t, adder, runner, oneByOne(everyKindOfJob()))
	})
	t.Run("AddJobs", func(t *testing.T) {
		if adder == nodeSide(node.V16) {
			t.Skipf("%s's client has no addJobs", adder)
		}
		testHandoverOf(t, adder, runner, together(everyKindOfJob()))
	})
}

func testHandoverOf(t *testing.T, adder, runner side, calls []call) {
	db := gworkerDatabase(t)
	ids := adder.add(t, db.url, calls...)
	slices.Sort(ids)
	if diff := cmp.Diff(values[int64](db, "select id from graphile_worker._private_jobs order by id"), ids); diff != "" {
		t.Fatalf("ids of the jobs (-stored +returned by %s's client):\n%s", adder, diff)
	}
	runner.runOnce(t, db.url, everyTask...)
	if left := db.jobs(); len(left) > 0 {
		t.Errorf("%s left jobs: %+v", runner, left)
	}

	want := make(map[int]seenJob) // by priority
	for _, s := range everyKindOfJob() {
		want[s.Priority] = wantSeen(s)
	}
	seen := db.seen()
	if len(seen) != len(want) {
		t.Errorf("%s ran %d jobs, want %d", runner, len(seen), len(want))
	}
	for _, got := range seen {
		if want[got.Priority].RunAt.IsZero() { // the database's time then
			got.RunAt = time.Time{}
		}
		if diff := cmp.Diff(want[got.Priority], got, asJSON); diff != "" {
			t.Errorf("a job added by %s as %s's handler saw it (-want +got):\n%s", adder, runner, diff)
		}
	}
}

// asJSON compares JSON by meaning, and an empty list as equal to none.
var asJSON = cmp.Options{
	cmp.Transformer("JSON", func(raw json.RawMessage) (v any) {
		if err := json.Unmarshal(raw, &v); err != nil {
			return string(raw)
		}
		return v
	}),
	cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Flags" },
		cmp.Comparer(func(a, b []string) bool { return slices.Equal(a, b) })),
}

// A job that waits is changed through its key by whichever client.
func TestWaitingJobIsReplacedAcrossClients(t *testing.T) {
	first := spec{Task: "keyed", Key: "k", Payload: json.RawMessage(`["first"]`), RunAt: longAgo, Priority: 3, Flags: []string{"f"}}
	changes := map[string]spec{
		"replace":           {Task: "other", Key: "k", Payload: json.RawMessage(`{"n":2}`), RunAt: longAgo.Add(time.Hour), MaxAttempts: 4, Queue: "q"},
		"arrays are joined": {Task: "keyed", Key: "k", Payload: json.RawMessage(`["second"]`), RunAt: longAgo.Add(time.Hour)},
		"preserve_run_at":   {Task: "keyed", Key: "k", KeyMode: "preserve_run_at", RunAt: longAgo.Add(time.Hour)},
		"unsafe_dedupe":     {Task: "other", Key: "k", KeyMode: "unsafe_dedupe", RunAt: longAgo.Add(time.Hour)},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node.Require(t)
			rows := make(map[side][]storedJob)
			for adder, changer := range map[side]side{
				nodeSide(node.V18): nodeSide(node.V18), // what we are measured by
				gworkerSide:        nodeSide(node.V16),
				nodeSide(node.V17): gworkerSide,
				rustSide(rust.V13): rustSide(rust.V14),
			} {
				adder.require(t)
				changer.require(t)
				db := gworkerDatabase(t)
				adder.add(t, db.url, call{AddJob: &first})
				changer.add(t, db.url, call{AddJob: &change})
				rows[changer] = db.jobs()
			}
			want := rows[nodeSide(node.V18)]
			if len(want) != 1 || want[0].Revision != 1 {
				t.Fatalf("Node alone leaves %+v, which is not one job replaced once", want)
			}
			for changer, got := range rows {
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("the job as %s changed it (-Node alone +got):\n%s", changer, diff)
				}
			}
		})
	}
}
