package migrate_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker/internal/testdb"
)

// keyed is a call of add_jobs, or of a function like it, with the keys "k1" to "kn".
func keyed(function string, n int) string {
	return fmt.Sprintf(`select count(*) from graphile_worker.%s(array(
		select row('t', '[1]', null, null, null, 'k' || i, null, null)::graphile_worker.job_spec
		from generate_series(1, %d) i))`, function, n)
}

// oneLockAKey installs a function like add_jobs as another runtime has it: it locks
// each of its keys, and does not look again.
func (f fixture) oneLockAKey() {
	f.t.Helper()
	f.script(`create function graphile_worker.foreign_add_jobs(specs graphile_worker.job_spec[])
		returns setof graphile_worker._private_jobs language plpgsql as $$
		begin
			perform pg_advisory_xact_lock(hashtext(k)) from (select distinct s.job_key from unnest(specs) s order by 1) o (k);
			perform from graphile_worker._private_jobs j where j.key in (select s.job_key from unnest(specs) s)
				order by j.key for update;
			insert into graphile_worker._private_tasks (identifier)
				select distinct s.identifier from unnest(specs) s on conflict do nothing;
			update graphile_worker._private_jobs j set key = null, attempts = j.max_attempts
				where j.key in (select s.job_key from unnest(specs) s) and not j.is_available;
			return query insert into graphile_worker._private_jobs as j (task_id, payload, key)
				select t.id, s.payload, s.job_key from unnest(specs) s
				join graphile_worker._private_tasks t on t.identifier = s.identifier
				on conflict (key) do update set payload = excluded.payload, revision = j.revision + 1
				where j.locked_at is null returning j.*;
		end $$`)
}

// lockedKeys is how many locks a session holds that are neither on tables nor on
// transactions.
func lockedKeys(t *testing.T, tx pgx.Tx) (locks int) {
	t.Helper()
	err := tx.QueryRow(t.Context(), `select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'`).Scan(&locks)
	if err != nil {
		t.Fatal(err)
	}
	return locks
}

// The server's table of locks has room for about 100 a session.
func TestAddingLocksFewKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	var sample testdb.Sample
	for what, call := range map[string]string{
		"one call":                keyed("add_jobs", 100_000),
		"a call for each":         `select count(graphile_worker.add_job('t', job_key := 'k' || i)) from generate_series(1, 15000) i`,
		"a call for each, dedupe": `select count(graphile_worker.add_job('t', job_key := 'k' || i, job_key_mode := 'unsafe_dedupe')) from generate_series(1, 15000) i`,
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newMigrated(t)
			tx := f.begin(call)
			if locks := lockedKeys(t, tx); locks > 100 {
				t.Errorf("holds %d locks on keys, want 100 at most", locks)
			}
			f.commit(tx)
			wantEqual(t, "jobs without their key", 0, one[int](f, `select count(*)::int from graphile_worker.jobs where key is null`))
		})
	}
}

// What is rolled back unlocks its keys, and they count no more.
func TestLockedKeysOfASavepoint(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	tx := f.begin(`savepoint s;` + keyed("add_jobs", 90) + `; rollback to savepoint s;` + keyed("add_jobs", 95))
	wantEqual(t, "locks on keys", 95, lockedKeys(t, tx))
	f.commit(tx)
	tx = f.begin(keyed("add_jobs", 100))
	wantEqual(t, "locks on keys of the next transaction", 100, lockedKeys(t, tx))
	f.commit(tx)
}

// A large call and a small one, of either make, go one after the other, also where the
// job is claimed as soon as it is there.
func TestLargeCallsTakeTurns(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	const claimed = `update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w', attempts = 1 where key = 'k7'`
	const small = `select graphile_worker.add_job('small', '[2]', job_key := 'k7')`
	for what, test := range map[string]struct {
		first, second string
		want          []string
	}{
		"small after large":          {keyed("add_jobs", 200), small, []string{"small [1, 2] r1"}},
		"small after large, claimed": {keyed("add_jobs", 200) + ";" + claimed, small, []string{"small [2] r0"}},
		"large after small":          {small, keyed("add_jobs", 200), []string{"t [2, 1] r1"}},
		"large after small, claimed": {small + ";" + claimed, keyed("add_jobs", 200), []string{"t [1] r0"}},
		"large after large, claimed": {keyed("add_jobs", 300) + ";" + claimed, keyed("add_jobs", 200), []string{"t [1] r0"}},
		"large after foreign":        {keyed("foreign_add_jobs", 10), keyed("add_jobs", 200), []string{"t [1, 1] r1"}},
		"large after foreign, claimed": {
			keyed("foreign_add_jobs", 10) + ";" + claimed, keyed("add_jobs", 200), []string{"t [1] r0"},
		},
		"foreign after large":      {keyed("add_jobs", 200), keyed("foreign_add_jobs", 10), []string{"t [1] r1"}},
		"deduplicated after large": {keyed("add_jobs", 200), `select graphile_worker.add_job('small', job_key := 'k7', job_key_mode := 'unsafe_dedupe')`, []string{"t [1] r1"}},
		"large after the lock of a key": {
			`select pg_advisory_xact_lock(hashtext('k7'))`, keyed("add_jobs", 200), []string{"t [1] r0"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newMigrated(t)
			f.oneLockAKey()
			first := f.begin(test.first)
			second := f.aside(test.second)
			f.commit(first)
			f.succeeds(second)
			wantEqual(t, "jobs with the key", test.want, f.lines(`
				select concat_ws(' ', t.identifier, j.payload, 'r' || j.revision) from graphile_worker._private_jobs j
				join graphile_worker._private_tasks t on t.id = j.task_id where j.key = 'k7'`))
		})
	}
}

// Whatever order the specs have, calls for many keys do not wait for each other.
func TestLargeCallsDoNotDeadlock(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	f := newMigrated(t)
	var group sync.WaitGroup
	for i := range 4 {
		group.Add(1)
		go func() {
			defer group.Done()
			for range 5 {
				err := f.try(fmt.Sprintf(`select graphile_worker.add_jobs(array(
					select row('t', '{}', null, null, null, 'k' || i, null, null)::graphile_worker.job_spec
					from generate_series(1, 500) i order by md5(i::text || %d)))`, i))
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	group.Wait()
	wantEqual(t, "adds", 4*5*500, one[int](f, `select sum(revision + 1)::int from graphile_worker.jobs`))
}

// Every add of a key counts, whoever adds, while a worker takes what it finds: an add
// makes a row or a revision of one.
func TestAddsOfOneKeyAreAllThere(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	f := newMigrated(t)
	f.oneLockAKey()
	f.sql(`insert into graphile_worker._private_tasks (identifier) values ('t')`)
	var adding, claiming sync.WaitGroup
	ended := make(chan struct{})
	claimed := 0
	claiming.Add(1)
	go func() {
		defer claiming.Done()
		const claim = `update graphile_worker._private_jobs set locked_at = now(), attempts = attempts + 1
			where id in (select id from graphile_worker._private_jobs where is_available limit 20 for update skip locked)`
		const finish = `with gone as (delete from graphile_worker._private_jobs
				where id in (select id from graphile_worker._private_jobs where locked_at is not null for update skip locked)
				returning revision)
			select coalesce(sum(revision + 1), 0)::int from gone`
		for {
			if err := f.try(claim); err != nil {
				t.Error(err)
				return
			}
			claimed += one[int](f, finish)
			select {
			case <-ended:
				return
			default:
			}
		}
	}()
	var mu sync.Mutex
	added := 0
	for i := range 6 {
		adding.Add(1)
		go func() {
			defer adding.Done()
			random := rand.New(rand.NewPCG(uint64(i), 7))
			for range 40 {
				call, n := fmt.Sprintf(`select graphile_worker.add_job('t', job_key := 'k%d')`, 1+random.IntN(120)), 1
				switch i % 3 {
				case 1:
					call, n = keyed("add_jobs", 120), 120
				case 2:
					call = fmt.Sprintf(`select graphile_worker.foreign_add_jobs(array[('t', '{}', null, null, null, 'k%d',
						null, null)::graphile_worker.job_spec])`, 1+random.IntN(120))
				}
				tag, err := f.Exec(t.Context(), call)
				var answer *pgconn.PgError
				switch {
				case errors.As(err, &answer) && answer.Code == "40P01":
					continue // adds again in an application
				case err != nil:
					t.Error(err)
					return
				case i%3 == 2:
					n = int(tag.RowsAffected()) // it does not look again
				}
				mu.Lock()
				added += n
				mu.Unlock()
			}
		}()
	}
	adding.Wait()
	close(ended)
	claiming.Wait()
	left := one[int](f, `select coalesce(sum(revision + 1), 0)::int from graphile_worker.jobs`)
	wantEqual(t, "adds", added, claimed+left)
}
