package interop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// The states in which an add or a removal may find the job of its key.
var keyStates = map[string]string{
	"waits":              "",
	"waits, tried":       "attempts = 2, last_error = 'no'",
	"failed for good":    "attempts = max_attempts, last_error = 'no'",
	"runs":               "attempts = 1, locked_by = 'worker-1', locked_at = now()",
	"runs, last attempt": "attempts = max_attempts, locked_by = 'worker-1', locked_at = now()",
	"locked long ago":    "attempts = 1, locked_by = 'worker-1', locked_at = now() - interval '5 hours'",
}

// What the job of the key is and what the new add brings.
var keyPayloads = map[string][2]string{
	"objects":       {`{"n": 1}`, `{"n": 2}`},
	"arrays":        {`[1]`, `[2, [3]]`},
	"array, object": {`[1]`, `{"n": 2}`},
}

type keyCase struct{ State, Payloads, Mode string }

func (c keyCase) key() string { return fmt.Sprintf("%s/%s/%s", c.State, c.Payloads, c.Mode) }

func keyCases() (cases []keyCase) {
	for state := range keyStates {
		for payloads := range keyPayloads {
			for _, mode := range []string{"replace", "preserve_run_at", "unsafe_dedupe", "remove"} {
				cases = append(cases, keyCase{state, payloads, mode})
			}
		}
	}
	return cases
}

// Every mode on a job in every state leaves the same rows, whoever's client adds
// on whoever's schema; removals likewise.
func TestKeyModesInEveryState(t *testing.T) {
	node.Require(t)
	want := keyRows(t, nodeDatabase(t, node.V18), nodeSide(node.V18)) // what we are measured by
	for name, c := range map[string]struct {
		changer side
		on      func(*testing.T) *database
	}{
		"gworker":                  {gworkerSide, gworkerDatabase},
		"gworker on Node's schema": {gworkerSide, func(t *testing.T) *database { return nodeDatabase(t, node.V18) }},
		"Node 0.18 on our schema":  {nodeSide(node.V18), gworkerDatabase},
		"Node 0.16 on our schema":  {nodeSide(node.V16), gworkerDatabase},
		"Rust on our schema":       {rustSide(rust.V13), gworkerDatabase},
		"Rust on its own schema":   {rustSide(rust.V14), func(t *testing.T) *database { return rustDatabase(t, rust.V14) }},
		"gworker on Rust's schema": {gworkerSide, func(t *testing.T) *database { return rustDatabase(t, rust.V14) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.changer.require(t)
			got := keyRows(t, c.on(t), c.changer)
			for _, c := range keyCases() {
				if len(want[c.key()]) == 0 && c.Mode != "remove" {
					t.Errorf("%s: Node leaves no row", c.key())
				}
				if diff := cmp.Diff(want[c.key()], got[c.key()]); diff != "" {
					t.Errorf("%s (-Node on its own schema +got):\n%s", c.key(), diff)
				}
			}
		})
	}
}

// keyRows lets a side add and remove in every case, and returns what is left of
// each. The cases' jobs have priorities of their own, since a job can lose its
// key.
func keyRows(t *testing.T, db *database, changer side) map[string][]storedJob {
	t.Helper()
	cases := keyCases()
	var calls []call
	for i, c := range cases {
		db.exec(`select graphile_worker.add_job('old', $1::text::json, job_key => $2, run_at => $3, priority => $4::int,
			max_attempts => 7, queue_name => 'q' || $4::int, flags => '{f}')`, keyPayloads[c.Payloads][0], c.key(), longAgo, i)
		if set := keyStates[c.State]; set != "" {
			db.exec("update graphile_worker._private_jobs set "+set+" where key = $1", c.key())
		}
		if c.Mode != "remove" {
			calls = append(calls, call{AddJob: &spec{
				Task: "new", Key: c.key(), KeyMode: c.Mode, Payload: json.RawMessage(keyPayloads[c.Payloads][1]),
				RunAt: longAgo.Add(time.Hour), Priority: i, MaxAttempts: 9,
			}})
		}
	}
	changer.add(t, db.url, calls...)
	var client *gworker.Client
	if changer == gworkerSide {
		var err error
		if client, err = gworker.NewClient(gworker.ClientConfig{DatabaseURL: db.url}); err != nil {
			t.Fatal(err)
		}
		defer client.Close()
	}
	var removals []adminCall
	for _, c := range cases {
		switch {
		case c.Mode != "remove":
		case changer.isRust():
			removals = append(removals, adminCall{Method: "removeJob", Options: &adminOptions{JobKey: c.key()}})
		case client == nil: // its client has no such method
			db.exec("select graphile_worker.remove_job($1)", c.key())
		default:
			if _, err := client.RemoveJob(t.Context(), c.key()); err != nil {
				t.Errorf("removing %s: %v", c.key(), err)
			}
		}
	}
	if removals != nil {
		changer.utilities(t, db.url, removals)
	}
	rows := map[string][]storedJob{}
	for _, row := range db.jobs() {
		c := cases[row.Priority]
		row.Priority = 0
		row.Queue = nil // its name holds the priority
		rows[c.key()] = append(rows[c.key()], row)
	}
	return rows
}

// A job that is removed through its key while it runs goes on without it, and is
// not tried again.
func TestKeyedJobRemovedWhileRunning(t *testing.T) {
	forEachSide(t, func(t *testing.T, runner side) {
		for name, failure := range map[string]string{"the run succeeds": "", "the run fails": "too late"} {
			t.Run(name, func(t *testing.T) {
				db := gworkerDatabase(t)
				payload := fmt.Sprintf(`{"fail": %q}`, failure)
				runner.add(t, db.url, call{AddJob: &spec{Task: "keyed", Key: "k", Queue: "q", Payload: json.RawMessage(payload), MaxAttempts: 9}})
				open := db.closeGate()
				j := newJournal()
				p := runner.startWorker(t, order{ConnectionString: db.url, Tasks: []string{"keyed"}, Concurrency: 1, Once: true}, j)
				j.await(t, "started", 1)
				db.exec("select graphile_worker.remove_job('k')")
				want := []storedJob{{
					Task: "keyed", Queue: ptr("q"), Payload: payload, RunAt: longAgo, Attempts: 9, MaxAttempts: 9, Locked: true, QueueLocked: true,
				}}
				rows := func() []storedJob {
					got := db.jobs()
					for i := range got {
						got[i].RunAt = longAgo
					}
					return got
				}
				if diff := cmp.Diff(want, rows()); diff != "" {
					t.Errorf("the job while it runs (-want +got):\n%s", diff)
				}
				open()
				p.wait(t)
				if want[0].Locked, want[0].QueueLocked, want[0].LastError = false, false, ptr(runner.storedError(failure)); failure == "" {
					want = []storedJob{}
				}
				if diff := cmp.Diff(want, rows()); diff != "" {
					t.Errorf("the job afterwards (-want +got):\n%s", diff)
				}
			})
		}
	})
}

// Large calls of our client lock few keys also where the functions are Rust's, which
// lock each; and an add of Rust's with one of the keys waits until the call is over.
func TestManyKeysWithRustsFunctions(t *testing.T) {
	forEachRust(t, func(t *testing.T, v rust.Version) {
		db := rustDatabase(t, v)
		client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: db.url})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		specs := make([]gworker.JobSpec, 30_000) // the server has room for about 14,000 locks
		for i := range specs {
			specs[i] = gworker.JobSpec{Task: "fast", Payload: []int{1}, Key: fmt.Sprint("k", i)}
		}
		if _, err := client.AddJobs(t.Context(), specs); err != nil {
			t.Fatal(err)
		}
		db.exec("update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w', attempts = 1 where key in ('k7', 'k8')")
		conn, err := pgx.Connect(t.Context(), db.url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rows, err := client.WithTx(tx).AddJobs(t.Context(), specs)
		if err != nil || len(rows) != len(specs) {
			t.Fatalf("%d jobs, %v", len(rows), err)
		}
		var locks int
		if err := tx.QueryRow(t.Context(), "select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'").Scan(&locks); err != nil {
			t.Fatal(err)
		}
		if locks > 100 {
			t.Errorf("holds %d locks on keys", locks)
		}
		added := make(chan struct{})
		go func() {
			defer close(added)
			rustSide(v).add(t, db.url, call{AddJob: &spec{Task: "fast", Payload: json.RawMessage(`[2]`), Key: "k9"}})
		}()
		db.awaitWaiting(1)
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-added
		got := values[string](db, `select concat_ws(' ', key, payload::jsonb, revision) from graphile_worker._private_jobs
			where key in ('k1', 'k7', 'k9') order by key`)
		if want := []string{"k1 [1, 1] 1", "k7 [1] 0", "k9 [1, 1, 2] 2"}; !slices.Equal(got, want) {
			t.Errorf("stored %q, want %q", got, want)
		}
		if retired := values[int](db, "select count(*)::int from graphile_worker._private_jobs where key is null and attempts = max_attempts"); retired[0] != 2 {
			t.Errorf("%d jobs are retired, want 2", retired[0])
		}
	})
}
