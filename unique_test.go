package gworker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gworker/gworker"
)

// hook is a spec of a webhook that is unique for a day.
func hook(payload string) gworker.JobSpec {
	return gworker.JobSpec{Task: "hook", Payload: json.RawMessage(payload), UniqueFor: 24 * time.Hour}
}

// wantDuplicate compares a row with the first one.
func wantDuplicate(t *testing.T, got, first *gworker.JobRow, state gworker.DuplicateState) {
	t.Helper()
	if got == nil || got.Duplicate == nil || got.Added() {
		t.Fatalf("not a duplicate: %+v", got)
	}
	d := got.Duplicate
	if got.ID != first.ID || got.Task != first.Task || d.State != state {
		t.Errorf("duplicate of job %d of %q, %s, want %d of %q, %s", got.ID, got.Task, d.State, first.ID, first.Task, state)
	}
	if gone := got.MaxAttempts == 0; gone != (state == gworker.DuplicateGone) {
		t.Errorf("the row of a job that is %s: %+v", state, got)
	}
	if d.AddedAt.IsZero() || !d.AddedAt.Before(d.ExpiresAt) {
		t.Errorf("added at %s and expires at %s", d.AddedAt, d.ExpiresAt)
	}
}

func wantAdded(t *testing.T, got *gworker.JobRow) {
	t.Helper()
	if got == nil || got.Duplicate != nil || !got.Added() || got.ID == 0 || got.MaxAttempts == 0 {
		t.Fatalf("not added: %+v", got)
	}
}

// The row of the first job is returned while it is there, with what has become of it, and its
// id when it is gone: nothing is added until the time is over.
func TestUniqueBeyondCompletion(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	spec := hook(`{"event":7}`)
	spec.Queue, spec.Priority = "q", 4
	first := add(t, client, spec)
	wantAdded(t, first)
	if string(first.Payload) != `{"event":7}` || first.Queue != "q" || first.Priority != 4 || first.MaxAttempts != 25 {
		t.Errorf("%+v", first)
	}
	again := add(t, client, spec)
	wantDuplicate(t, again, first, gworker.DuplicateWaiting)
	if d := again.Duplicate.ExpiresAt.Sub(again.Duplicate.AddedAt); d != 24*time.Hour {
		t.Errorf("unique for %s", d)
	}
	if string(again.Payload) != `{"event":7}` || again.Queue != "q" || again.Revision != 0 {
		t.Errorf("%+v", again)
	}

	exec(t, pool, "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w', attempts = 25")
	wantDuplicate(t, add(t, client, spec), first, gworker.DuplicateRunning)
	exec(t, pool, "update graphile_worker._private_jobs set locked_at = null, locked_by = null")
	wantDuplicate(t, add(t, client, spec), first, gworker.DuplicateFailed)
	exec(t, pool, "update graphile_worker._private_jobs set attempts = 0")

	runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask("hook", nothing)}})
	if n := jobCount(t, pool); n != 0 {
		t.Fatalf("%d jobs are left", n)
	}
	gone := add(t, client, spec)
	wantDuplicate(t, gone, first, gworker.DuplicateGone)
	if len(gone.Payload) > 0 || !gone.RunAt.IsZero() || jobCount(t, pool) != 0 {
		t.Errorf("%+v", gone)
	}

	// An expired row that is still there does not count, nor one that was swept.
	for _, sql := range []string{
		"update graphile_worker._gworker_unique set expires_at = clock_timestamp() - interval '1 microsecond'",
		"delete from graphile_worker._gworker_unique",
	} {
		exec(t, pool, sql)
		second := add(t, client, spec)
		wantAdded(t, second)
		if second.ID == first.ID {
			t.Errorf("the id %d again", second.ID)
		}
		wantDuplicate(t, add(t, client, spec), second, gworker.DuplicateWaiting)
	}
}

// The time runs from the first add, and passes by itself.
func TestUniqueExpires(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	spec := hook(`{}`)
	spec.UniqueFor = 300 * time.Millisecond
	first, began := add(t, client, spec), time.Now()
	longer := spec
	longer.UniqueFor = time.Hour
	if d := add(t, client, longer); time.Since(began) < 200*time.Millisecond {
		wantDuplicate(t, d, first, gworker.DuplicateWaiting)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if row := add(t, client, spec); row.Added() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not expire")
		}
	}
	if d := time.Since(began); d < 250*time.Millisecond {
		t.Errorf("free after %s", d)
	}
}

// adders are all ways to add in Go, each in a transaction that is committed.
func adders(t *testing.T, pool *pgxpool.Pool, do func(name string, jobs gworker.JobAdder)) {
	t.Helper()
	client := newClient(t, pool)
	do("client", client)
	if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { do("pgx", client.WithTx(tx)); return nil }); err != nil {
		t.Error(err)
	}
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	do("database/sql", client.WithSQLTx(tx))
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	unprepared, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, NoPreparedStatements: true})
	if err != nil {
		t.Fatal(err)
	}
	do("unprepared", unprepared)
	task := gworker.NewRawTask("adds", func(_ context.Context, j *gworker.RawJob) error {
		do("worker", j.Client())
		return nil
	})
	add(t, client, gworker.JobSpec{Task: "adds"})
	runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{task}})
}

// Every way to add knows the jobs of every other, one by one and many at once.
func TestUniqueInEveryWayToAdd(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	var first *gworker.JobRow
	ways := 0
	adders(t, pool, func(name string, jobs gworker.JobAdder) {
		ways++
		spec := hook(`{"one":1}`)
		spec.MaxAttempts, spec.Flags, spec.RunAt = 3, []string{"f"}, time.Now().Add(time.Hour)
		row, err := jobs.AddJob(t.Context(), spec)
		switch {
		case err != nil:
			t.Fatalf("%s: %v", name, err)
		case first == nil:
			first = row
			wantAdded(t, row)
		default:
			wantDuplicate(t, row, first, gworker.DuplicateWaiting)
		}

		own, other := hook(fmt.Sprintf(`{"way":%q}`, name)), gworker.JobSpec{Task: "plain " + name, Flags: []string{"x", "y"}, Queue: "q"}
		keyed := gworker.JobSpec{Task: "keyed", Key: "k " + name, UniqueFor: time.Hour, UniqueKey: name}
		rows, err := jobs.AddJobs(t.Context(), []gworker.JobSpec{other, own, spec, keyed, own, other})
		if err != nil || len(rows) != 6 {
			t.Fatalf("%s: %d rows, %v", name, len(rows), err)
		}
		for _, i := range []int{0, 1, 3, 5} {
			wantAdded(t, rows[i])
		}
		wantDuplicate(t, rows[2], first, gworker.DuplicateWaiting)
		wantDuplicate(t, rows[4], rows[1], gworker.DuplicateWaiting)
		if rows[0].Task != other.Task || rows[0].Queue != "q" || len(rows[0].Flags) != 2 || rows[3].Key != keyed.Key || string(rows[4].Payload) != string(rows[1].Payload) {
			t.Errorf("%s: %+v", name, rows)
		}
		// All of them again: only what is not unique is added.
		rows, err = jobs.AddJobs(t.Context(), []gworker.JobSpec{own, other, keyed})
		if err != nil || len(rows) != 3 || rows[0].Added() || !rows[1].Added() || rows[2].Added() || rows[2].Key != keyed.Key {
			t.Errorf("%s again: %+v, %v", name, rows, err)
		}
	})
	if n := jobCount(t, pool); ways != 5 || n != 1+5*5 {
		t.Errorf("%d jobs in %d ways", n, ways)
	}
}

// What a transaction takes back, or a savepoint of it, was never added.
func TestUniqueInATransaction(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	away := errors.New("away")
	spec := hook(`{}`)
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		first := add(t, client.WithTx(tx), spec)
		wantAdded(t, first)
		wantDuplicate(t, add(t, client.WithTx(tx), spec), first, gworker.DuplicateWaiting)
		if err := pgx.BeginFunc(t.Context(), tx, func(inner pgx.Tx) error {
			rows, err := client.WithTx(inner).AddJobs(t.Context(), []gworker.JobSpec{hook(`[1]`), hook(`[2]`)})
			if err != nil || !rows[0].Added() || !rows[1].Added() {
				t.Errorf("%+v, %v", rows, err)
			}
			return away
		}); !errors.Is(err, away) {
			t.Error(err)
		}
		wantAdded(t, add(t, client.WithTx(tx), hook(`[1]`)))
		return away
	})
	if !errors.Is(err, away) || jobCount(t, pool) != 0 {
		t.Fatal(err)
	}
	wantAdded(t, add(t, client, spec))
}

// Two adders at once: the other waits for the end of the first's transaction, and goes by it.
func TestUniqueWaitsForTheOther(t *testing.T) {
	t.Parallel()
	for _, commits := range []bool{true, false} {
		for _, expired := range []bool{false, true} { // whether a row of before is there
			for _, many := range []bool{false, true} {
				t.Run(fmt.Sprintf("commits %t, expired %t, many %t", commits, expired, many), func(t *testing.T) {
					t.Parallel()
					pool := migrated(t)
					client := newClient(t, pool)
					spec := hook(`{}`)
					if expired {
						add(t, client, spec)
						exec(t, pool, "update graphile_worker._gworker_unique set expires_at = now() - interval '1 s'")
					}
					tx, err := pool.Begin(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = tx.Rollback(context.Background()) }()
					first := add(t, client.WithTx(tx), spec)
					wantAdded(t, first)
					type answer struct {
						rows []*gworker.JobRow
						err  error
					}
					answers := make(chan answer, 1)
					go func() {
						rows, err := addWith(t.Context(), client, []gworker.JobSpec{spec}, !many)
						answers <- answer{rows, err}
					}()
					waitForLock(t, pool)
					select {
					case a := <-answers:
						t.Fatalf("it did not wait: %+v", a)
					default:
					}
					if commits {
						err = tx.Commit(t.Context())
					} else {
						err = tx.Rollback(t.Context())
					}
					a := <-answers
					if err != nil || a.err != nil || len(a.rows) != 1 {
						t.Fatal(err, a.err)
					}
					if commits {
						wantDuplicate(t, a.rows[0], first, gworker.DuplicateWaiting)
					} else {
						wantAdded(t, a.rows[0])
					}
					want := 1
					if expired {
						want = 2
					}
					if n := jobCount(t, pool); n != want {
						t.Errorf("%d jobs, want %d", n, want)
					}
				})
			}
		}
	}
}

// A call takes its keys in their order, whatever the order of its specs: it holds none behind
// one that it waits for, so that no two calls wait for each other.
func TestUniqueKeysAreTakenInOrder(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	spec := func(key string) gworker.JobSpec {
		return gworker.JobSpec{Task: "hook", UniqueFor: time.Hour, UniqueKey: key}
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	add(t, client, gworker.JobSpec{Task: "hook"}) // else others wait for the task's row
	add(t, client.WithTx(tx), spec("a"))
	var specs []gworker.JobSpec
	for _, key := range []string{"i", "h", "g", "f", "a", "e", "d", "c", "b"} {
		specs = append(specs, spec(key))
	}
	done := make(chan error, 1)
	go func() {
		_, err := client.AddJobs(t.Context(), specs)
		done <- err
	}()
	waitForLock(t, pool)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, key := range []string{"b", "c", "d", "e", "f", "g", "h", "i"} {
		if row, err := client.AddJob(ctx, spec(key)); err != nil || !row.Added() {
			t.Fatalf("%s: %+v, %v", key, row, err)
		}
	}
	if err := errors.Join(tx.Commit(t.Context()), <-done); err != nil {
		t.Error(err)
	}
	if n := jobCount(t, pool); n != 10 {
		t.Errorf("%d jobs", n)
	}
}

// waitForLock waits until a session of the database waits for another.
func waitForLock(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var n int
		scan(t, pool, "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'", nil, &n)
		if n > 0 {
			return
		}
	}
	t.Fatal("nobody waits")
}

// However many add the same, in calls of one and of many and in any order, there is one job.
func TestUniqueUnderContention(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	const keys = 20
	done := make(chan error)
	added := make(chan string, 10_000)
	for n := range 6 {
		go func() {
			r := rand.New(rand.NewPCG(uint64(n), 1))
			for range 15 {
				var specs []gworker.JobSpec
				for _, k := range r.Perm(keys)[:1+r.IntN(keys)] {
					specs = append(specs, gworker.JobSpec{Task: "hook", UniqueFor: time.Hour, UniqueKey: fmt.Sprint(k), Payload: k})
				}
				rows, err := addWith(t.Context(), client, specs, n%2 == 0)
				if err != nil {
					done <- err
					return
				}
				for _, row := range rows {
					if row.Added() {
						added <- string(row.Payload)
					}
				}
			}
			done <- nil
		}()
	}
	for range 6 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	close(added)
	var all []string
	for payload := range added {
		all = append(all, payload)
	}
	slices.Sort(all)
	if n := len(all); n != len(slices.Compact(all)) || n != keys || jobCount(t, pool) != keys {
		t.Errorf("%d jobs were added as told, and %d are there", n, jobCount(t, pool))
	}
}
