package migrate_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/testdb"
)

// begin opens a transaction on a connection of its own and runs statements in it.
func (f fixture) begin(text string) pgx.Tx {
	f.t.Helper()
	tx, err := f.connect().Begin(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := tx.Exec(f.t.Context(), text); err != nil {
		f.t.Fatalf("%v\n%s", err, text)
	}
	return tx
}

func (f fixture) commit(tx pgx.Tx) {
	f.t.Helper()
	if err := tx.Commit(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// aside runs a statement while the test goes on, and returns when it waits for
// another session.
func (f fixture) aside(text string) <-chan error {
	f.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- f.try(text) }()
	f.waitForWaiters(f.t.Context(), 1)
	return ended
}

func (f fixture) succeeds(ended <-chan error) {
	f.t.Helper()
	if err := <-ended; err != nil {
		f.t.Fatal(err)
	}
}

const waitingFor = `select wait_event from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`

// Without the lock on the key, the second would fail or make a job of its own.
func TestAddingWithOneKeyTakesTurns(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, test := range map[string]struct{ finish, want string }{
		"after a commit":   {"commit", `second {} at now p0 0/25 key=k r1 touched`},
		"after a rollback": {"rollback", `second {} at now p0 0/25 key=k r0`},
	} {
		for _, mode := range []string{"replace", "preserve_run_at"} {
			t.Run(what+" "+mode, func(t *testing.T) {
				sample.Take(t)
				t.Parallel()
				f := newMigrated(t)
				first := f.begin(`select graphile_worker.add_job('first', run_at := '2023-01-01', job_key := 'k')`)
				second := f.aside(`select graphile_worker.add_job('second', job_key := 'k', job_key_mode := '` + mode + `')`)
				wantEqual(t, "waits for", []string{"advisory"}, f.lines(waitingFor))
				if _, err := first.Exec(t.Context(), test.finish); err != nil {
					t.Fatal(err)
				}
				f.succeeds(second)
				want := test.want
				if mode == "preserve_run_at" && test.finish == "commit" {
					want = `second {} at 2023-01-01 p0 0/25 key=k r1 touched`
				}
				wantEqual(t, "jobs", []string{want}, f.jobs())
			})
		}
	}
}

func TestDeduplicatingTakesTurns(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	const call = `select graphile_worker.add_job('first', job_key := 'k', job_key_mode := 'unsafe_dedupe')`
	first := f.begin(call)
	second := f.aside(call)
	wantEqual(t, "waits for", []string{"advisory"}, f.lines(waitingFor))
	f.commit(first)
	f.succeeds(second)
	wantEqual(t, "revision", 1, one[int](f, `select revision from graphile_worker.jobs`))
}

// Keys are locked in one order, whatever the order of the specs, so that two
// calls cannot wait for each other.
func TestKeysAreLockedInOrder(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	first := f.begin(`select pg_advisory_xact_lock(hashtext('a'))`)
	adding := f.aside(`select graphile_worker.add_jobs(array[
		('t', null, null, null, null, 'b', null, null)::graphile_worker.job_spec,
		('t', null, null, null, null, 'a', null, null)::graphile_worker.job_spec])`)
	wantEqual(t, "locked keys", 1, one[int](f, `select count(*)::int from pg_locks where locktype = 'advisory' and granted
		and database = (select oid from pg_database where datname = current_database())`))
	f.commit(first)
	f.succeeds(adding)
	wantEqual(t, "keys", []string{"b", "a"}, f.lines(`select key from graphile_worker.jobs order by id`))
}

// A worker that claims a job locks no keys. Who adds waits for it and sees a job
// that runs.
func TestClaimedWhileAdding(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	f.sql(`select graphile_worker.add_job('first', job_key := 'k')`)
	claim := f.begin(`update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'w'`)
	adding := f.aside(`select graphile_worker.add_job('second', job_key := 'k')`)
	f.commit(claim)
	f.succeeds(adding)
	wantEqual(t, "jobs", []string{
		"first {} at 1 25/25 r0", "second {} at 1 0/25 r0",
	}, f.lines(`select concat_ws(' ', task_identifier, '{} at 1', attempts || '/' || max_attempts, 'r' || revision)
		from graphile_worker.jobs order by id`))
	wantEqual(t, "keys", []string{"second"}, f.lines(`select task_identifier from graphile_worker.jobs where key = 'k'`))
}

// Also where the job has gone when its turn comes.
func TestCompletedWhileAdding(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	f.sql(`select graphile_worker.add_job('first', job_key := 'k')`)
	complete := f.begin(`delete from graphile_worker._private_jobs`)
	adding := f.aside(`select graphile_worker.add_job('second', job_key := 'k')`)
	f.commit(complete)
	f.succeeds(adding)
	wantEqual(t, "jobs", []string{"second {} at now p0 0/25 key=k r0"}, f.jobs())
}

// A job that appears and is claimed meanwhile, without a lock on its key: it gives up
// its key like any that runs.
func TestClaimedByOneWhoLocksNoKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	const taken = `select concat_ws(' ', task_identifier, attempts || '/' || max_attempts, 'key=' || key, 'r' || revision)
		from graphile_worker.jobs order by id`
	for call, want := range map[string][]string{
		`add_job('another', job_key := 'taken')`: {"in between 25/25 r0", "another 0/25 key=taken r0"},
		`add_jobs(array[('another', null, null, null, null, 'taken', null, null)::graphile_worker.job_spec,
			('other', null, null, null, null, null, null, null)::graphile_worker.job_spec])`: {
			"in between 25/25 r0", "other 0/25 r0", "another 0/25 key=taken r0",
		},
		// Who only wants to have the job once takes it as it is.
		`add_job('another', job_key := 'taken', job_key_mode := 'unsafe_dedupe')`: {"in between 0/25 key=taken r1"},
	} {
		f := newMigrated(t)
		if err := f.addWhileTaken("select graphile_worker." + call); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "jobs after "+call, want, f.lines(taken))
	}
}

// What a trigger takes away is tried again a few times, and then given up.
func TestAddingInVain(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	f.script(`create function graphile_worker.nothing() returns trigger language plpgsql as 'begin return null; end';
		create trigger nothing before insert on graphile_worker._private_jobs
		for each row when (new.key is not null) execute function graphile_worker.nothing()`)
	answer := wantState(t, f.try(`select graphile_worker.add_job('another', job_key := 'taken')`), "GWNOR")
	wantEqual(t, "text", `Unable to schedule job for key "taken"`, answer.Message)
	wantEqual(t, "hint", "Somebody locked the job with this key meanwhile. Add the job again.", answer.Hint)
	wantEqual(t, "jobs", nil, f.jobs())

	// Many at once: the others are added, and a row is short.
	f.sql(`select graphile_worker.add_jobs(array[
		('another', null, null, null, null, 'taken', null, null)::graphile_worker.job_spec,
		('other', null, null, null, null, null, null, null)::graphile_worker.job_spec])`)
	wantEqual(t, "tasks", []string{"other"}, f.lines(`select task_identifier from graphile_worker.jobs`))
}

// A job must not be lost because its task or queue is cleaned up just then. The
// queue is another's that is being added, which makes the call wait after it has
// found the task.
func TestCleanedUpWhileAdding(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, call := range map[string]string{
		"add_job":       `add_job('t', queue_name := 'q')`,
		"unsafe_dedupe": `add_job('t', queue_name := 'q', job_key := 'k', job_key_mode := 'unsafe_dedupe')`,
		"add_jobs":      `add_jobs(array[('t', null, 'q', null, null, null, null, null)::graphile_worker.job_spec])`,
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newMigrated(t)
			f.sql(`insert into graphile_worker._private_tasks (identifier) values ('t')`)
			queue := f.begin(`insert into graphile_worker._private_job_queues (queue_name) values ('q')`)
			adding := f.aside(`select graphile_worker.` + call)
			f.sql(`delete from graphile_worker._private_tasks`)
			f.commit(queue)
			wantState(t, <-adding, "40001")
			wantEqual(t, "jobs", nil, f.jobs())
			f.sql(`select graphile_worker.` + call)
			wantEqual(t, "jobs", 1, len(f.jobs()))
		})
	}
}
