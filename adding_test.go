package gworker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// byFunctions adds by the schema's functions, each time in a transaction of its own.
type byFunctions struct {
	pool   *pgxpool.Pool
	client *gworker.Client
}

func (a byFunctions) add(ctx context.Context, specs []gworker.JobSpec, single bool) (rows []*gworker.JobRow, err error) {
	err = pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		rows, err = addWith(ctx, a.client.WithTx(tx), specs, single)
		return err
	})
	return rows, err
}

func addWith(ctx context.Context, adder gworker.JobAdder, specs []gworker.JobSpec, single bool) ([]*gworker.JobRow, error) {
	if !single {
		return adder.AddJobs(ctx, specs)
	}
	row, err := adder.AddJob(ctx, specs[0])
	if err != nil {
		return nil, err
	}
	return []*gworker.JobRow{row}, nil
}

// randomSpec is a spec of few tasks, queues and keys, so that they meet.
func randomSpec(r *rand.Rand) gworker.JobSpec {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	payloads := []any{nil, map[string]int{"n": r.IntN(9)}, []int{r.IntN(9)}, []int{}, json.RawMessage(" [ 1.0, {\"a\":1,\"a\":2} ] "), "text", json.RawMessage("null")}
	flags := [][]string{nil, {}, {"a"}, {"b", "a", "b"}, {`<q"uote> \`}}
	spec := gworker.JobSpec{
		Task: fmt.Sprintf("task %d", r.IntN(12)), Payload: payloads[r.IntN(len(payloads))],
		Queue: pick("", "", "q1", "q2", "q3", `{"q"}`), Flags: flags[r.IntN(len(flags))],
	}
	if r.IntN(2) == 0 {
		spec.RunAt = time.Date(2040, 1, 1+r.IntN(28), 0, 0, 0, 123456000, time.UTC)
	}
	if r.IntN(2) == 0 {
		spec.MaxAttempts, spec.Priority = 1+r.IntN(9), r.IntN(9)-4
	}
	return spec
}

// randomAdd is what one call adds.
func randomAdd(r *rand.Rand) (specs []gworker.JobSpec, single bool) {
	modes := []gworker.KeyMode{"", gworker.KeyReplace, gworker.KeyPreserveRunAt, gworker.KeyUnsafeDedupe}
	if r.IntN(3) > 0 {
		spec := randomSpec(r)
		if r.IntN(4) > 0 {
			spec.Key = fmt.Sprintf("key %d", r.IntN(5))
		}
		spec.KeyMode = modes[r.IntN(len(modes))]
		return []gworker.JobSpec{spec}, true
	}
	mode, keyed := modes[1+r.IntN(2)], r.IntN(2) == 0
	for i := range 1 + r.IntN(5) {
		spec := randomSpec(r)
		spec.KeyMode = mode
		if keyed && r.IntN(2) == 0 {
			spec.Key = fmt.Sprintf("key %d", i)
		}
		specs = append(specs, spec)
	}
	return specs, false
}

// tablesOf are all rows that adding touches. Numbers of jobs may have gaps, which
// every conflict of keys makes; those of tasks and queues are used up by new ones
// only. A time that nobody gave is "now".
func tablesOf(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	var text string
	scan(t, pool, `select
		(select string_agg(concat_ws(' ', id, identifier), E'\n' order by id) from graphile_worker._private_tasks)
		|| E'\n' || coalesce((select string_agg(concat_ws(' ', id, queue_name, locked_by), E'\n' order by id) from graphile_worker._private_job_queues), '')
		|| E'\n' || (select string_agg(jsonb_build_array(
			task_id, job_queue_id, payload::text, priority, case when run_at > '2035-01-01' then run_at::text
				when abs(extract(epoch from run_at - created_at)) < 3600 then 'now' else 'odd' end,
			attempts, max_attempts, last_error, updated_at > '2021-01-01', key, locked_at, locked_by, revision, flags,
			is_available)::text, E'\n' order by id) from graphile_worker._private_jobs)`, nil, &text)
	return text
}

// TestOwnStatementsHaveTheEffectOfTheFunctions runs the same random adds through
// both and compares what is returned and what is stored.
func TestOwnStatementsHaveTheEffectOfTheFunctions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 5))
			config, err := pgxpool.ParseConfig(testdb.Migrated(t))
			if err != nil {
				t.Fatal(err)
			}
			if seed == 3 {
				config.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable"
			}
			ours, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			client, err := gworker.NewClient(gworker.ClientConfig{Pool: ours, NoPreparedStatements: seed == 2})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			pool := migrated(t)
			functions := byFunctions{pool: pool, client: newClient(t, pool)}
			changes := []string{
				"update graphile_worker._private_jobs set locked_at = '2026-01-01', locked_by = 'w', attempts = attempts + 1 where key = $1",
				"update graphile_worker._private_jobs set attempts = max_attempts, last_error = 'no' where key = $1",
				"update graphile_worker._private_jobs set attempts = 1, max_attempts = 9, last_error = 'no' where key = $1",
				"update graphile_worker._private_jobs set locked_at = null, locked_by = null where key = $1",
				"delete from graphile_worker._private_jobs where key = $1",
			}
			for step := range 150 {
				for _, p := range []*pgxpool.Pool{ours, pool} {
					exec(t, p, "update graphile_worker._private_jobs set updated_at = '2020-01-01'")
				}
				if r.IntN(3) == 0 {
					change, key := changes[r.IntN(len(changes))], fmt.Sprintf("key %d", r.IntN(5))
					exec(t, ours, change, key)
					exec(t, pool, change, key)
				}
				specs, single := randomAdd(r)
				got, err := addWith(t.Context(), client, specs, single)
				want, wantErr := functions.add(t.Context(), specs, single)
				if err != nil || wantErr != nil {
					t.Fatalf("step %d, %+v: %v and %v", step, specs, err, wantErr)
				}
				if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(gworker.JobRow{}, "ID"), cmpopts.EquateApproxTime(time.Hour)); diff != "" {
					t.Fatalf("step %d, %+v: rows differ (-function +ours):\n%s", step, specs, diff)
				}
				if diff := cmp.Diff(strings.Split(tablesOf(t, pool), "\n"), strings.Split(tablesOf(t, ours), "\n")); diff != "" {
					t.Fatalf("step %d, %+v: tables differ (-function +ours):\n%s", step, specs, diff)
				}
			}
		})
	}
}

// TestConcurrentAddersOfNewNames: nobody fails, and nothing is added twice or
// lost, where all of them add tasks, queues and keys that are new at that moment.
func TestConcurrentAddersOfNewNames(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const adders, rounds = 12, 15
	config, err := pgxpool.ParseConfig(testdb.Migrated(t))
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = adders + 2
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	client := newClient(t, pool)
	defer client.Close()
	functions := byFunctions{pool: pool, client: client}
	for round := range rounds {
		var ready, done sync.WaitGroup
		ready.Add(adders)
		for i := range adders {
			done.Go(func() {
				ready.Done()
				ready.Wait()
				spec := gworker.JobSpec{Task: fmt.Sprint("task ", round), Queue: fmt.Sprint("queue ", round)}
				specs, single := []gworker.JobSpec{spec, spec}, false
				specs[1].Task, specs[1].Queue = fmt.Sprint("a task ", round), fmt.Sprint("a queue ", round)
				switch i % 6 {
				case 0, 1:
					single = true
				case 2, 3:
					single, specs[0].Key, specs[0].Payload = true, fmt.Sprint("key ", round), []int{i}
				}
				var err error
				if i%6%2 == 0 {
					_, err = addWith(t.Context(), client, specs, single)
				} else {
					_, err = functions.add(t.Context(), specs, single)
				}
				if err != nil {
					t.Errorf("adder %d: %v", i, err)
				}
			})
		}
		done.Wait()
		// Twice 2 single ones, one keyed one with what 4 brought, 4 of 2 jobs.
		var jobs, brought, revision int
		scan(t, pool, `select count(*), coalesce(max(json_array_length(payload)) filter (where key is not null), 0), max(revision)
			from graphile_worker._private_jobs`, nil, &jobs, &brought, &revision)
		if jobs != 4+1+8 || brought != 4 || revision != 3 {
			t.Fatalf("round %d: %d jobs, the keyed one with %d payloads in revision %d; want 13, 4, 3", round, jobs, brought, revision)
		}
		var tasks, queues int
		scan(t, pool, "select (select count(*) from graphile_worker._private_tasks), (select count(*) from graphile_worker._private_job_queues)", nil, &tasks, &queues)
		if tasks != 2*(round+1) || queues != 2*(round+1) {
			t.Fatalf("round %d: %d tasks, %d queues", round, tasks, queues)
		}
		exec(t, pool, "delete from graphile_worker._private_jobs")
	}
}

// A keyed add waits for whoever has the lock on the key, and holds it itself.
func TestKeyedAddTakesTheLockOnItsKey(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	defer client.Close()
	add(t, client, gworker.JobSpec{Task: "x"})
	for _, mode := range []gworker.KeyMode{gworker.KeyReplace, gworker.KeyUnsafeDedupe} {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		if _, err := tx.Exec(t.Context(), "select pg_advisory_xact_lock(hashtext('k'))"); err != nil {
			t.Fatal(err)
		}
		added := make(chan error, 1)
		go func() {
			_, err := client.AddJob(context.Background(), gworker.JobSpec{Task: "new " + string(mode), Key: "k", KeyMode: mode})
			added <- err
		}()
		deadline := time.Now().Add(patience)
		for waiting := 0; waiting == 0; {
			scan(t, pool, `select count(*) from pg_locks where locktype = 'advisory' and not granted
				and database = (select oid from pg_database where datname = current_database())`, nil, &waiting)
			select {
			case err := <-added:
				t.Fatalf("%s: did not wait for the lock on the key (%v)", mode, err)
			default:
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: nobody waits for the lock on the key", mode)
			}
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-added; err != nil {
			t.Fatal(err)
		}
	}
}

// Whoever cleans up waits for an add of ours that is under way, as for one of the
// functions: its task and queue are not deleted.
func TestCleanupDuringOwnAdds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for _, keyed := range []string{"", "k"} {
		pool := migrated(t)
		client := newClient(t, pool)
		defer client.Close()
		add(t, client, gworker.JobSpec{Task: "x", Queue: "q"})
		// The add's statement stops after it has found its task, in a trigger.
		exec(t, pool, `create function stop() returns trigger language plpgsql as $$
			begin perform pg_advisory_xact_lock(77); return new; end $$`)
		exec(t, pool, "create trigger stop before insert on graphile_worker._private_jobs for each row execute function stop()")
		exec(t, pool, "delete from graphile_worker._private_jobs")
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		if _, err := tx.Exec(t.Context(), "select pg_advisory_xact_lock(77)"); err != nil {
			t.Fatal(err)
		}
		added := make(chan error, 1)
		go func() {
			_, err := client.AddJob(context.Background(), gworker.JobSpec{Task: "x", Queue: "q", Key: keyed})
			added <- err
		}()
		deadline := time.Now().Add(patience)
		for waiting := 0; waiting == 0; {
			scan(t, pool, `select count(*) from pg_locks where locktype = 'advisory' and not granted
				and database = (select oid from pg_database where datname = current_database())`, nil, &waiting)
			if time.Now().After(deadline) {
				t.Fatal("the add does not wait in the trigger")
			}
		}
		if result, err := client.Cleanup(t.Context(), gworker.CleanupOptions{}); !errors.Is(err, gworker.ErrCleanupBusy) {
			t.Errorf("cleanup during an add: %+v, %v", result, err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-added; err != nil {
			t.Fatal(err)
		}
		var seen int
		scan(t, pool, "select count(*) from graphile_worker.jobs where task_identifier = 'x' and queue_name = 'q'", nil, &seen)
		if seen != 1 {
			t.Errorf("%d jobs have their task and queue, want 1", seen)
		}
	}
}
