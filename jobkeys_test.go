package gworker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
)

// keyedRow is what adding by key changes of a row.
type keyedRow struct {
	Key, Task, Payload, LastError string
	RunAt                         time.Time
	Attempts, Revision            int
	Locked                        bool
}

func keyedRows(t *testing.T, pool *pgxpool.Pool) (rows []keyedRow) {
	t.Helper()
	var all []byte
	scan(t, pool, `select coalesce(json_agg(json_build_object('Key', coalesce(j.key, ''), 'Task', t.identifier,
			'Payload', j.payload::jsonb::text, 'LastError', coalesce(j.last_error, ''), 'RunAt', j.run_at, 'Attempts', j.attempts,
			'Revision', j.revision, 'Locked', j.locked_by is not null) order by j.id), '[]')
		from graphile_worker._private_jobs j join graphile_worker._private_tasks t on t.id = j.task_id`, nil, &all)
	if err := json.Unmarshal(all, &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

func oneKeyed(t *testing.T, pool *pgxpool.Pool) keyedRow {
	t.Helper()
	rows := keyedRows(t, pool)
	if len(rows) != 1 {
		t.Fatalf("jobs: %+v, want one", rows)
	}
	return rows[0]
}

func due(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	exec(t, pool, "update graphile_worker._private_jobs set run_at = now() where is_available")
}

// seenPayloads is a task that notes what it is run on.
type seenPayloads struct {
	mu   sync.Mutex
	list []string
}

func (s *seenPayloads) task(name string) gworker.Task {
	return gworker.NewRawTask(name, func(_ context.Context, job *gworker.RawJob) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.list = append(s.list, string(job.Payload))
		return nil
	})
}

func (s *seenPayloads) want(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.list, want) {
		t.Errorf("the task was run on %q, want %q", s.list, want)
	}
}

func TestDebounceRunsTheLastAddOnce(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	var seen seenPayloads
	config := gworker.Config{Pool: pool, Tasks: []gworker.Task{seen.task("index_document")}}
	var before time.Time
	for version := range 3 {
		if err := indexLater(t.Context(), client, Document{ID: 7, Version: version}); err != nil {
			t.Fatal(err)
		}
		row := oneKeyed(t, pool)
		if !row.RunAt.After(before) || row.Revision != version {
			t.Errorf("add %d: %+v, want one that waits longer than until %s", version, row, before)
		}
		before = row.RunAt
		runOnce(t, config)
		seen.want(t) // not yet
	}
	due(t, pool)
	runOnce(t, config)
	seen.want(t, `{"id":7,"version":2}`)
	if rows := keyedRows(t, pool); len(rows) != 0 {
		t.Errorf("left: %+v", rows)
	}
}

func TestThrottleKeepsTheFirstTime(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	var seen seenPayloads
	config := gworker.Config{Pool: pool, Tasks: []gworker.Task{seen.task("report_document")}}
	round := func(from int) time.Time {
		var first time.Time
		for version := from; version < from+3; version++ {
			if err := reportSoon(t.Context(), client, Document{ID: 7, Version: version}); err != nil {
				t.Fatal(err)
			}
			row := oneKeyed(t, pool)
			if version == from {
				first = row.RunAt
			}
			if !row.RunAt.Equal(first) || row.Payload != fmt.Sprintf(`{"id": 7, "version": %d}`, version) {
				t.Errorf("add %d: %+v, want its payload at %s", version, row, first)
			}
		}
		due(t, pool)
		runOnce(t, config)
		return first
	}
	first := round(0)
	seen.want(t, `{"id":7,"version":2}`)
	if second := round(3); !second.After(first) {
		t.Errorf("the second report is for %s, the first was for %s", second, first)
	}
	seen.want(t, `{"id":7,"version":2}`, `{"id":7,"version":5}`)
}

// TestCollectJoinsArraysWhileTheJobWaits: what comes while it runs is for the
// next job.
func TestCollectJoinsArraysWhileTheJobWaits(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	var seen [][]string
	notify := func(messages ...string) {
		for _, message := range messages {
			if err := notifyTogether(t.Context(), client, 7, message); err != nil {
				t.Error(err)
			}
		}
	}
	config := gworker.Config{Pool: pool, Tasks: []gworker.Task{
		gworker.NewTask("notify", func(_ context.Context, job *gworker.Job[[]string]) error {
			seen = append(seen, job.Payload)
			if len(seen) == 1 {
				notify("three", "four")
			}
			return nil
		}),
	}}
	notify("one", "two")
	due(t, pool)
	runOnce(t, config)
	due(t, pool)
	runOnce(t, config)
	if diff := cmp.Diff([][]string{{"one", "two"}, {"three", "four"}}, seen); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
	// Two arrays only: anything else is replaced.
	for _, c := range []struct {
		old, new any
		want     string
	}{
		{[]int{1}, map[string]int{"a": 1}, `{"a": 1}`},
		{map[string]int{"a": 1}, []int{1}, `[1]`},
		{[]int{}, []any{1, []int{2}}, `[1, [2]]`},
	} {
		for _, mode := range []gworker.KeyMode{gworker.KeyReplace, gworker.KeyPreserveRunAt} {
			add(t, client, gworker.JobSpec{Task: "x", Key: "k", Payload: c.old})
			add(t, client, gworker.JobSpec{Task: "x", Key: "k", Payload: c.new, KeyMode: mode})
			if row := oneKeyed(t, pool); row.Payload != c.want {
				t.Errorf("%s: %v and then %v: %s", mode, c.old, c.new, row.Payload)
			}
			if _, err := client.RemoveJob(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

var (
	soon  = time.Date(2040, 1, 2, 3, 4, 5, 0, time.UTC)
	later = time.Date(2050, 1, 2, 3, 4, 5, 0, time.UTC)
)

// TestKeyOfAJobInEachState adds in each mode on a job that has failed and waits
// for its retry, one that has failed permanently, and one that runs. The jobs
// get into these states by a real worker.
func TestKeyOfAJobInEachState(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	retired := func(r keyedRow) keyedRow {
		r.Key, r.Attempts = "", 2
		return r
	}
	waiting := keyedRow{Key: "k", Task: "x", Payload: `["old"]`, LastError: "no", RunAt: soon, Attempts: 1}
	failed := keyedRow{Key: "k", Task: "x", Payload: `["old"]`, LastError: "no", RunAt: soon, Attempts: 2}
	running := keyedRow{Key: "k", Task: "x", Payload: `["old"]`, RunAt: soon, Attempts: 1, Locked: true}
	fresh := keyedRow{Key: "k", Task: "y", Payload: `["new"]`, RunAt: later}
	joined := keyedRow{Key: "k", Task: "y", Payload: `["old", "new"]`, RunAt: later, Revision: 1}
	again := func(r keyedRow) keyedRow {
		r.Revision++
		return r
	}
	for _, c := range []struct {
		state string
		mode  gworker.KeyMode
		want  []keyedRow
	}{
		{"waits for its retry", gworker.KeyReplace, []keyedRow{joined}},
		{"waits for its retry", gworker.KeyPreserveRunAt, []keyedRow{joined}}, // it was tried, so its time is not kept
		{"waits for its retry", gworker.KeyUnsafeDedupe, []keyedRow{again(waiting)}},
		{"has failed for good", gworker.KeyReplace, []keyedRow{retired(failed), fresh}},
		{"has failed for good", gworker.KeyPreserveRunAt, []keyedRow{retired(failed), fresh}},
		{"has failed for good", gworker.KeyUnsafeDedupe, []keyedRow{again(failed)}},
		{"runs", gworker.KeyReplace, []keyedRow{retired(running), fresh}},
		{"runs", gworker.KeyPreserveRunAt, []keyedRow{retired(running), fresh}},
		{"runs", gworker.KeyUnsafeDedupe, []keyedRow{again(running)}},
	} {
		t.Run(c.state+"/"+string(c.mode), func(t *testing.T) {
			pool := migrated(t)
			client := newClient(t, pool)
			spec := gworker.JobSpec{Task: "x", Key: "k", Payload: []string{"old"}, MaxAttempts: 2}
			if c.state == "has failed for good" {
				spec.MaxAttempts = 1
			}
			old := add(t, client, spec)
			end := func() {}
			if c.state == "runs" {
				end = runUntil(t, pool, old.ID)
			} else {
				runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
					gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error { return errors.New("no") }),
				}})
			}
			// What is not the same each time: when it was to run.
			exec(t, pool, "update graphile_worker._private_jobs set run_at = $1, max_attempts = 2, attempts = case when $2 then 2 else attempts end",
				soon, c.state == "has failed for good")
			got, err := client.AddJob(t.Context(), gworker.JobSpec{Task: "y", Key: "k", KeyMode: c.mode, Payload: []string{"new"}, RunAt: later})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, keyedRows(t, pool)); diff != "" {
				t.Errorf("the jobs (-want +got):\n%s", diff)
			}
			if same := len(c.want) == 1; (got.ID == old.ID) != same {
				t.Errorf("returned job %d, and the old one is %d", got.ID, old.ID)
			}
			if c.state == "runs" {
				end()
				if diff := cmp.Diff(c.want[1:], keyedRows(t, pool)); len(c.want) > 1 && diff != "" {
					t.Errorf("the jobs when it had ended (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// runUntil starts the job of task x, and returns how to let it complete.
func runUntil(t *testing.T, pool *pgxpool.Pool, id int64) (end func()) {
	t.Helper()
	started, gate := make(chan struct{}), make(chan struct{})
	worker := start(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
		gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error { close(started); <-gate; return nil }),
	}})
	<-started
	return func() {
		close(gate)
		waitFor(t, worker.Events, func(e event.JobCompleted) bool { return e.Job.ID == id })
	}
}

// TestRemoveJobInEachState: a job that runs is not stopped, and not tried again.
func TestRemoveJobInEachState(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for name, failure := range map[string]error{"the run succeeds": nil, "the run fails": errors.New("no")} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			pool := migrated(t)
			client := newClient(t, pool)
			started, end := make(chan struct{}), make(chan error)
			worker := start(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
				gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error { started <- struct{}{}; return <-end }),
			}})
			job := add(t, client, gworker.JobSpec{Task: "x", Key: "k", MaxAttempts: 2})
			<-started
			removed, err := client.RemoveJob(t.Context(), "k")
			if err != nil || removed.ID != job.ID || removed.Key != "" || removed.Attempts != 2 || removed.LockedBy != worker.ID() {
				t.Errorf("removed %+v, %v", removed, err)
			}
			if _, err := client.RemoveJob(t.Context(), "k"); !errors.Is(err, gworker.ErrJobNotFound) {
				t.Errorf("a second time: %v", err)
			}
			next := add(t, client, gworker.JobSpec{Task: "later", Key: "k"}) // the key is free
			if next.ID == job.ID {
				t.Error("the key still belongs to the removed job")
			}
			end <- failure
			if failure == nil {
				waitFor(t, worker.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
			} else {
				waitFor(t, worker.Events, func(e event.JobPermanentlyFailed) bool { return e.Job.ID == job.ID })
			}
			rows := keyedRows(t, pool)
			if want := map[bool]int{true: 1, false: 2}[failure == nil]; len(rows) != want {
				t.Errorf("left: %+v", rows)
			}
			if failure != nil && (rows[0].Attempts != 2 || rows[0].LastError != "no" || rows[0].Key != "" || rows[0].Locked) {
				t.Errorf("the removed job: %+v", rows[0])
			}
		})
	}
	t.Run("failed for good", func(t *testing.T) {
		pool := migrated(t)
		client := newClient(t, pool)
		add(t, client, gworker.JobSpec{Task: "x", Key: "k", MaxAttempts: 1})
		runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
			gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error { return errors.New("no") }),
		}})
		// The way out where unsafe_dedupe finds a job that never runs again.
		stuck := add(t, client, gworker.JobSpec{Task: "x", Key: "k", KeyMode: gworker.KeyUnsafeDedupe})
		if stuck.Attempts != 1 || stuck.LastError != "no" {
			t.Errorf("added %+v, want the failed job", stuck)
		}
		if removed, err := client.RemoveJob(t.Context(), "k"); err != nil || removed.ID != stuck.ID {
			t.Errorf("removed %+v, %v", removed, err)
		}
		if fresh := add(t, client, gworker.JobSpec{Task: "x", Key: "k", KeyMode: gworker.KeyUnsafeDedupe}); fresh.ID == stuck.ID || fresh.Attempts != 0 {
			t.Errorf("added %+v, want a new job", fresh)
		}
	})
}

// Many keyed jobs lock few keys, and come back in the order of their specs.
func TestAddManyKeyedJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	specs := make([]gworker.JobSpec, 20_000)
	for i := range specs {
		specs[i] = gworker.JobSpec{Task: "t", Payload: i}
		if i%10 != 0 {
			specs[i].Key = fmt.Sprintf("k%d", len(specs)-i)
		}
	}
	wantOrder := func(rows []*gworker.JobRow, revision int) {
		t.Helper()
		if len(rows) != len(specs) {
			t.Fatalf("%d rows for %d specs", len(rows), len(specs))
		}
		for i, row := range rows {
			if row.Key != specs[i].Key || string(row.Payload) != strconv.Itoa(i) || row.Key != "" && row.Revision != revision {
				t.Fatalf("row %d is %s with key %q, revision %d", i, row.Payload, row.Key, row.Revision)
			}
		}
	}
	rows, err := client.AddJobs(t.Context(), specs)
	if err != nil {
		t.Fatal(err)
	}
	wantOrder(rows, 0)
	err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		rows, err := client.WithTx(tx).AddJobs(t.Context(), specs)
		if err != nil {
			return err
		}
		wantOrder(rows, 1)
		var locks int
		err = tx.QueryRow(t.Context(), "select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'").Scan(&locks)
		if locks > 100 {
			t.Errorf("holds %d locks on keys", locks)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// onlySmallCalls has the schema's add_jobs refuse more specs than 100, as the lock table
// refuses a function that locks each key.
func onlySmallCalls(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	exec(t, pool, `alter function graphile_worker.add_jobs rename to our_add_jobs`)
	exec(t, pool, `create function graphile_worker.add_jobs(specs graphile_worker.job_spec[], job_key_preserve_run_at boolean default false)
		returns setof graphile_worker._private_jobs language plpgsql as $$
		begin
			if cardinality(specs) > 100 then
				raise 'out of shared memory' using errcode = '53200';
			end if;
			return query select * from graphile_worker.our_add_jobs(specs, job_key_preserve_run_at);
		end $$`)
}

// TestManyKeysHaveTheEffectOfTheFunction runs the same random adds in calls of more than
// 100 keys, which the client makes itself, and in calls of the function.
func TestManyKeysHaveTheEffectOfTheFunction(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 6))
	byClient, byFunction := migrated(t), migrated(t)
	filler := make([]gworker.JobSpec, 100)
	for i := range filler {
		filler[i] = gworker.JobSpec{Task: "filler", Key: fmt.Sprint("filler ", i), Payload: i}
	}
	client, functions := newClient(t, byClient), byFunctions{pool: byFunction, client: newClient(t, byFunction)}
	for _, p := range []*pgxpool.Pool{byClient, byFunction} {
		exec(t, p, "select graphile_worker.add_job('filler', job_key := 'first')")
	}
	onlySmallCalls(t, byClient)
	changes := []string{
		"update graphile_worker._private_jobs set locked_at = '2026-01-01', locked_by = 'w', attempts = attempts + 1 where key = $1",
		"update graphile_worker._private_jobs set attempts = max_attempts, last_error = 'no' where key = $1",
		"update graphile_worker._private_jobs set attempts = 1, max_attempts = 9, last_error = 'no' where key = $1",
		"delete from graphile_worker._private_jobs where key = $1",
	}
	for step := range 60 {
		for _, p := range []*pgxpool.Pool{byClient, byFunction} {
			exec(t, p, "update graphile_worker._private_jobs set updated_at = '2020-01-01'")
		}
		change, key := changes[r.IntN(len(changes))], fmt.Sprintf("key %d", r.IntN(5))
		exec(t, byClient, change, key)
		exec(t, byFunction, change, key)
		var specs []gworker.JobSpec
		preserve := r.IntN(2) == 0
		for i := range 8 {
			spec := randomSpec(r)
			if spec.KeyMode = gworker.KeyReplace; preserve {
				spec.KeyMode = gworker.KeyPreserveRunAt
			}
			if i < 5 {
				spec.Key = fmt.Sprintf("key %d", i)
			}
			specs = append(specs, spec)
		}
		for i := range filler {
			filler[i].KeyMode = specs[0].KeyMode
		}
		want, err := functions.add(t.Context(), specs, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := functions.add(t.Context(), filler, false); err != nil {
			t.Fatal(err)
		}
		var got []*gworker.JobRow
		if all := append(slices.Clone(specs), filler...); step%2 == 0 {
			got, err = client.AddJobs(t.Context(), all)
		} else {
			got, err = byFunctions{pool: byClient, client: client}.add(t.Context(), all, false)
		}
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got[:len(specs)], cmpopts.IgnoreFields(gworker.JobRow{}, "ID"), cmpopts.EquateApproxTime(time.Hour)); diff != "" {
			t.Fatalf("step %d: rows differ (-function +client):\n%s", step, diff)
		}
		rows := func(pool *pgxpool.Pool) []string {
			lines := strings.Split(tablesOf(t, pool), "\n")
			slices.Sort(lines) // a large call inserts in the order of the keys
			return lines
		}
		if diff := cmp.Diff(rows(byFunction), rows(byClient)); diff != "" {
			t.Fatalf("step %d, %+v: tables differ (-function +client):\n%s", step, specs, diff)
		}
	}
}

// TestLargeCallsTakeTurns: large calls with the same keys in other orders do not wait
// for each other in a circle, but for whoever has locked a key.
func TestLargeCallsTakeTurns(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	specs := make([]gworker.JobSpec, 150)
	for i := range specs {
		specs[i] = gworker.JobSpec{Task: fmt.Sprint("t", i%7), Queue: fmt.Sprint("q", i%3), Key: fmt.Sprint("k", i)}
	}
	other, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(t.Context(), "select pg_advisory_xact_lock(hashtext('k77')::bigint)"); err != nil {
		t.Fatal(err)
	}
	const calls, rounds = 2, 10 // the pool has four connections
	var all sync.WaitGroup
	for n := range calls {
		all.Go(func() {
			mine := slices.Clone(specs)
			rand.New(rand.NewPCG(uint64(n), 1)).Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			for range rounds {
				if _, err := client.AddJobs(t.Context(), mine); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for waiting := 0; waiting == 0; {
		scan(t, pool, `select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'`, nil, &waiting)
	}
	var added int
	if scan(t, pool, "select count(*) from graphile_worker._private_jobs", nil, &added); added != 0 {
		t.Errorf("%d jobs were added while a key was locked", added)
	}
	if err := other.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	var jobs, least, most int
	scan(t, pool, "select count(*), min(revision), max(revision) from graphile_worker._private_jobs", nil, &jobs, &least, &most)
	if want := calls*rounds - 1; jobs != len(specs) || least != want || most != want {
		t.Errorf("%d jobs of revisions %d to %d, want %d of %d", jobs, least, most, len(specs), want)
	}
}
