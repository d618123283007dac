package migrate_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/testdb"
)

// A start is what a run may find.
type start struct {
	revision int
	make     func(f fixture)
	applied  []int // by the run
}

func starts() map[string]start {
	all := map[string]start{
		"Node at 19": {19, func(f fixture) {
			f.at20Node()
			f.sql(`delete from graphile_worker.migrations where id = 20`)
		}, []int{19, 20}},
		"Node at 20": {20, fixture.at20Node, []int{19, 20}},
		"Rust at 19": {19, fixture.at19Rust, []int{19, 20}},
		"Rust at 20": {20, fixture.at20Rust, nil},
		"Rust at 21": {21, func(f fixture) {
			f.at20Rust()
			f.sql(`insert into graphile_worker.migrations (id, ts) values (21, '2025-01-21')`)
		}, nil},
		"ours at 19": {19, func(f fixture) { f.install(19) }, []int{20}},
		"ours at 20": {20, func(f fixture) { f.up() }, nil},
	}
	for revision := 1; revision <= 18; revision++ {
		all[fmt.Sprintf("Node at %d", revision)] = start{revision, func(f fixture) { f.at(revision) }, fromTo(revision+1, 20)}
	}
	return all
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, start := range starts() {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			start.make(f)
			var jobs, contents []string
			if start.revision < 11 {
				f.seedEarly(start.revision)
				jobs = f.earlyJobs(start.revision)
			} else {
				f.seed(start.revision)
				contents = f.contents()
			}
			ledger, bodies := f.ledger(), f.bodies()

			result := f.upQuietly()
			wantEqual(t, "applied", start.applied, ids(result.Applied))
			f.wantCatalog("revision-20-rust.txt")
			if start.revision < 11 {
				wantEqual(t, "jobs", jobs, f.earlyJobs(20))
				contents = f.contents()
			} else {
				wantEqual(t, "contents", contents, f.contents())
			}
			wantEqual(t, "earlier rows of the ledger", ledger, f.ledger()[:len(ledger)])
			for _, row := range result.Ledger.Revisions[len(ledger):] {
				wantEqual(t, fmt.Sprintf("revision %d is breaking", row.ID), slices.Contains(breaking, row.ID), row.Breaking)
			}
			if start.applied == nil {
				wantEqual(t, "functions", bodies, f.bodies())
			}

			// Once more.
			ledger, bodies = f.ledger(), f.bodies()
			wantEqual(t, "applied again", nil, ids(f.upQuietly().Applied))
			wantEqual(t, "ledger", ledger, f.ledger())
			wantEqual(t, "functions", bodies, f.bodies())
			wantEqual(t, "contents", contents, f.contents())
			if start.applied != nil || what == "ours at 20" {
				f.wantOwnAdding()
			}
		})
	}
}

// What comes after 20 stands on it, so all of it stays.
func TestRevision22IsLeftAsItIs(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, change := range map[string]string{
		"Rust's alone":      ``,
		"on Node's 19":      `update graphile_worker.migrations set breaking = true, ts = '2024-01-19' where id = 19`,
		"with the last row": `delete from graphile_worker.migrations where id < 22`,
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			f.at22()
			f.seed(22)
			f.script(change)
			ledger, bodies, contents := f.ledger(), f.bodies(), f.contents()
			for range 2 {
				result := f.upQuietly()
				wantEqual(t, "applied", nil, ids(result.Applied))
				wantEqual(t, "newest", 22, result.Ledger.Newest)
				f.wantCatalog("revision-22.txt")
				wantEqual(t, "ledger", ledger, f.ledger())
				wantEqual(t, "functions", bodies, f.bodies())
				wantEqual(t, "contents", contents, f.contents())
			}
		})
	}
}

// Ids go at revision 11, and numbers have to fit into smaller columns.
func TestNumbersAreCutToFit(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	f := newFixture(t, "")
	f.at10()
	f.sql(`insert into graphile_worker.jobs (task_identifier, priority, attempts, max_attempts) values
		('low', -100000, 0, 25), ('high', 100000, 25, 25),
		('one left', 0, 40000, 50000), ('none left', 0, 50000, 50000), ('many failures', 0, 60000, 20),
		('never tried', 0, 0, 0), ('negative', 0, -3, -2)`)
	f.up()
	wantEqual(t, "jobs", []string{
		"low -32768 0/25 t", "high 32767 25/25 f",
		"one left 0 32766/32767 t", "none left 0 32767/32767 f", "many failures 0 32767/20 f",
		"never tried 0 1/1 f", "negative 0 -3/1 t",
	}, f.lines(`select concat_ws(' ', t.identifier, j.priority, j.attempts || '/' || j.max_attempts, j.is_available)
		from graphile_worker._private_jobs j join graphile_worker._private_tasks t on t.id = j.task_id order by j.id`))
}

// upQuietly is a run that warns of nothing.
func (f fixture) upQuietly() migrate.Result {
	f.t.Helper()
	result, err := migrate.Up(f.t.Context(), f.Pool, migrate.Options{
		Schema:    f.name,
		OnWarning: func(text string) { f.t.Errorf("warned: %s", text) },
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return result
}

// wantOwnAdding shows that jobs can be added, that adding locks keys, and that
// it looks again where a job is claimed meanwhile.
func (f fixture) wantOwnAdding() {
	f.t.Helper()
	ctx := f.t.Context()
	before := one[int](f, `select count(*)::int from graphile_worker.jobs`)
	tx, err := f.Begin(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	_, err = tx.Exec(ctx, f.name.Render(`select graphile_worker.add_job('a task', '{"a":1}', 'a queue', job_key := 'a key', flags := '{x}')`))
	if err != nil {
		f.t.Fatal(err)
	}
	wantEqual(f.t, "locked keys", 1, one[int](f, `select count(*)::int from pg_locks where locktype = 'advisory' and granted
		and database = (select oid from pg_database where datname = current_database())
		and objsubid = 1 and (classid::bigint << 32 | objid::bigint) = hashtext('a key')`))
	if err := tx.Commit(ctx); err != nil {
		f.t.Fatal(err)
	}
	wantEqual(f.t, "jobs", before+1, one[int](f, `select count(*)::int from graphile_worker.jobs`))
	if err := f.addWhileTaken(`select graphile_worker.add_job('another', job_key := 'taken')`); err != nil {
		f.t.Fatal(err)
	}
	wantEqual(f.t, "task of the key", "another", one[string](f, `select task_identifier from graphile_worker.jobs where key = 'taken'`))
}

// addWhileTaken adds jobs while one with the key "taken" appears that runs already,
// as may happen where workers lock no keys.
func (f fixture) addWhileTaken(call string) error {
	f.t.Helper()
	ctx := f.t.Context()
	tx, err := f.Begin(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	_, err = tx.Exec(ctx, f.name.Render(`with task as (
			insert into graphile_worker._private_tasks (identifier) values ('in between') returning id)
		insert into graphile_worker._private_jobs (task_id, key, locked_at, locked_by)
		select id, 'taken', now(), 'worker-3' from task`))
	if err != nil {
		f.t.Fatal(err)
	}
	adding := make(chan error, 1)
	go func() { adding <- f.try(call) }()
	f.waitForWaiters(ctx, 1)
	if err := tx.Commit(ctx); err != nil {
		f.t.Fatal(err)
	}
	return <-adding
}
