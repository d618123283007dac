package migrate_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/testdb"
)

// Early versions of Node made the ledger without the column.
func TestLedgerWithoutBreaking(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, make := range map[string]func(fixture){
		"at 1":         func(f fixture) { f.at(1) },
		"at 3":         func(f fixture) { f.at(3) },
		"at 10":        fixture.at10,
		"at 18":        fixture.at18,
		"at Node's 20": fixture.at20Node,
		"at Rust's 20": fixture.at20Rust,
		"at ours":      func(f fixture) { f.up() },
		"without a row": func(f fixture) {
			f.install(0)
			f.sql(`create table graphile_worker.migrations (id int primary key, ts timestamptz not null default now(), breaking int)`)
		},
		"with few rows":     func(f fixture) { f.at10(); f.sql(`delete from graphile_worker.migrations where id in (1, 2, 9)`) },
		"with the last row": func(f fixture) { f.at18(); f.sql(`delete from graphile_worker.migrations where id < 18`) },
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			make(f)
			f.sql(`alter table graphile_worker.migrations drop column breaking`)
			const rows = `select id || ' ' || ts from graphile_worker.migrations order by id`
			before := f.lines(rows)
			f.upQuietly()
			f.wantCatalog("revision-20-rust.txt")
			wantEqual(t, "earlier rows", before, f.lines(rows)[:len(before)])
			wantEqual(t, "rows with a wrong mark", nil, f.lines(`select id::text from graphile_worker.migrations
				where breaking <> (id in (1, 3, 11, 13, 14, 16)) order by id`))
			wantEqual(t, "newest", "20", f.lines(`select max(id)::text from graphile_worker.migrations`)[0])
			wantEqual(t, "applied again", nil, ids(f.upQuietly().Applied))
		})
	}
}

// The highest row says what is there, whatever rows are missing below it.
func TestLedgerWithSomeRowsOnly(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, test := range map[string]struct {
		make    func(fixture)
		delete  string
		applied []int
	}{
		"only 10":          {fixture.at10, "id < 10", fromTo(11, 20)},
		"only 1 and 10":    {fixture.at10, "id between 2 and 9", fromTo(11, 20)},
		"only 18":          {fixture.at18, "id < 18", fromTo(19, 20)},
		"only Node's 20":   {fixture.at20Node, "id < 20", fromTo(19, 20)},
		"only Rust's 20":   {fixture.at20Rust, "id < 20", nil},
		"only our 20":      {func(f fixture) { f.up() }, "id < 20", nil},
		"none, and tables": {func(f fixture) { f.install(0) }, "", fromTo(1, 20)},
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			test.make(f)
			if test.delete != "" {
				f.sql(`delete from graphile_worker.migrations where ` + test.delete)
			} else {
				f.sql(`create table graphile_worker.migrations (id int primary key, ts timestamptz not null default now(),
					breaking boolean not null default false)`)
			}
			before := f.ledger()
			wantEqual(t, "applied", test.applied, ids(f.upQuietly().Applied))
			f.wantCatalog("revision-20-rust.txt")
			after := f.ledger()
			for _, row := range before {
				wantMember(t, row, after)
			}
			wantEqual(t, "applied again", nil, ids(f.upQuietly().Applied))
			wantEqual(t, "ledger", after, f.ledger())
		})
	}
}

// Rust's upgrades leave other functions than Node's.
func TestHalfWayUpgradesOfRust(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	const (
		withoutFailing = `drop function graphile_worker.permanently_fail_jobs(bigint[], text)`
		withIntegers   = `drop function graphile_worker.reschedule_jobs(bigint[], timestamptz, smallint, smallint, smallint);
			create function graphile_worker.reschedule_jobs(job_ids bigint[], run_at timestamptz default null,
				priority int default null, attempts int default null, max_attempts int default null)
			returns setof graphile_worker.jobs language sql as $gw$ select * from graphile_worker.jobs $gw$`
	)
	// Two functions of one name would make every call ambiguous.
	const another = `create function graphile_worker.reschedule_jobs(job_ids bigint[], run_at timestamptz default null)
		returns setof graphile_worker.jobs language sql as $gw$ select * from graphile_worker.jobs $gw$`
	type halfWay struct {
		revision int
		change   string
	}
	all := map[string]halfWay{
		"at 13 with one more":                     {13, another},
		"at 15 with one more":                     {15, another},
		"at 13 with integers":                     {13, withIntegers},
		"at 13 with integers and without failing": {13, withIntegers + ";" + withoutFailing},
	}
	for revision := 11; revision <= 18; revision++ {
		all[fmt.Sprintf("at %d without failing", revision)] = halfWay{revision, withoutFailing}
	}
	for what, test := range all {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			f.at(test.revision)
			f.script(test.change)
			f.seed(test.revision)
			before := f.contents()
			wantEqual(t, "applied", fromTo(test.revision+1, 20), ids(f.upQuietly().Applied))
			f.wantCatalog("revision-20-rust.txt")
			wantEqual(t, "contents", before, f.contents())
		})
	}
}

// No function of an earlier time may be in the way, whatever its signature.
func TestNoFunctionIsTakenForGranted(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for _, revision := range []int{1, 9, 10, 11, 13, 14, 15, 17} {
		t.Run(fmt.Sprint(revision), func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			f.at(revision)
			f.dropFunctions()
			f.up()
			f.wantCatalog("revision-20-rust.txt")
		})
	}
}

// What is lost although the ledger has its row is made again where it can be.
func TestLostObjectsAreMadeAgain(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, test := range map[string]struct {
		lose    string
		applied []int
	}{
		"workers":           {`drop table graphile_worker._private_workers`, []int{20}},
		"index of workers":  {`drop index graphile_worker._private_workers_last_heartbeat_at_idx`, []int{20}},
		"recovery":          {`drop function graphile_worker.recover_dead_worker_jobs`, []int{20}},
		"heartbeat":         {`drop function graphile_worker.worker_heartbeat`, []int{20}},
		"add_job":           {`drop function graphile_worker.add_job`, []int{19, 20}},
		"add_jobs":          {`drop function graphile_worker.add_jobs`, []int{19, 20}},
		"complete_jobs":     {`drop function graphile_worker.complete_jobs`, []int{19, 20}},
		"fail_jobs":         {`drop function graphile_worker.permanently_fail_jobs`, []int{19, 20}},
		"reschedule_jobs":   {`drop function graphile_worker.reschedule_jobs`, []int{19, 20}},
		"remove_job":        {`drop function graphile_worker.remove_job`, []int{19, 20}},
		"force_unlock":      {`drop function graphile_worker.force_unlock_workers`, []int{19, 20}},
		"type":              {`drop type graphile_worker.job_spec cascade`, []int{19, 20}},
		"view":              {`drop view graphile_worker.jobs`, []int{19, 20}},
		"index for queues":  {`drop index graphile_worker.jobs_main_index`, []int{19, 20}},
		"index for others":  {`drop index graphile_worker.jobs_no_queue_index`, []int{19, 20}},
		"crontabs":          {`drop table graphile_worker._private_known_crontabs`, []int{19, 20}},
		"primary key":       {`alter table graphile_worker._private_jobs drop constraint jobs_pkey1`, []int{19, 20}},
		"key":               {`alter table graphile_worker._private_jobs drop constraint jobs_key_key1`, []int{19, 20}},
		"check":             {`alter table graphile_worker._private_jobs drop constraint jobs_max_attempts_check`, []int{19, 20}},
		"check of tasks":    {`alter table graphile_worker._private_tasks drop constraint tasks_identifier_check`, []int{19, 20}},
		"names of queues":   {`alter table graphile_worker._private_job_queues drop constraint job_queues_queue_name_key`, []int{19, 20}},
		"all tables":        {`drop table graphile_worker._private_jobs, graphile_worker._private_tasks, graphile_worker._private_job_queues cascade`, []int{19, 20}},
		"functions, all":    {``, []int{19, 20}},
		"many from both":    {`drop view graphile_worker.jobs; drop table graphile_worker._private_workers`, []int{19, 20}},
		"indexes and marks": {`drop index graphile_worker.jobs_main_index; drop function graphile_worker.add_jobs`, []int{19, 20}},
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newMigrated(t)
			f.seed(20)
			if test.lose == "" {
				f.dropFunctions()
			}
			f.script(test.lose)
			ledger, contents := f.ledger(), f.contents()
			wantEqual(t, "applied", test.applied, ids(f.upQuietly().Applied))
			f.wantCatalog("revision-20-rust.txt")
			wantEqual(t, "ledger", ledger, f.ledger())
			wantEqual(t, "contents", contents, f.contents())
			wantEqual(t, "applied again", nil, ids(f.upQuietly().Applied))
		})
	}
}

// What cannot be made again is named.
func TestLostObjectsAreNamed(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, test := range map[string]struct {
		make    func(fixture) // nil for our 20
		lose    string
		missing []string
	}{
		"a table's column": {
			nil, `alter table graphile_worker._private_tasks drop column identifier cascade`,
			[]string{"column _private_tasks.identifier text"},
		},
		"a column in the view": {
			nil, `alter table graphile_worker._private_jobs drop column flags cascade`,
			[]string{"column _private_jobs.flags jsonb"},
		},
		"a column of crontabs": {
			nil, `alter table graphile_worker._private_known_crontabs drop column last_execution`,
			[]string{"column _private_known_crontabs.last_execution timestamptz"},
		},
		"a column of the type": {
			nil, `alter type graphile_worker.job_spec drop attribute flags`,
			[]string{"column job_spec.flags _text"},
		},
		"a column of workers": {
			nil, `alter table graphile_worker._private_workers drop column metadata`,
			[]string{"column _private_workers.metadata jsonb"},
		},
		"a column at Node's 18": {
			fixture.at18, `alter table graphile_worker._private_known_crontabs drop column last_execution`,
			[]string{"column _private_known_crontabs.last_execution timestamptz"},
		},
		// Rust's own migrations made the rest, and nothing of 19 or 20 runs there.
		"an index at Rust's 22": {
			fixture.at22, `drop index graphile_worker.jobs_main_index`,
			[]string{"index _private_jobs.jobs_main_index"},
		},
		"a view and a function at Rust's 22": {
			fixture.at22, `drop view graphile_worker.jobs; drop function graphile_worker.worker_heartbeat`,
			[]string{"view jobs", "function worker_heartbeat(text, json)"},
		},
		"recovery on Node's 20 under a row of Rust's": {
			func(f fixture) {
				f.at20Node()
				f.sql(`insert into graphile_worker.migrations (id) values (21)`)
			}, ``,
			[]string{"table _private_workers", "function recover_dead_worker_jobs(_text, interval)"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			var f fixture
			if test.make == nil {
				f = newMigrated(t)
			} else {
				f = newFixture(t, "")
				test.make(f)
			}
			f.seed(18)
			f.script(test.lose)
			contents, ledger := f.contents(), f.ledger()
			_, err := migrate.Up(t.Context(), f.Pool, migrate.Options{})
			var incomplete *migrate.MissingObjectsError
			if !errors.As(err, &incomplete) {
				t.Fatalf("got error %v", err)
			}
			for _, name := range test.missing {
				wantMember(t, name, incomplete.Missing)
				wantContains(t, err.Error(), name)
			}
			wantContains(t, err.Error(), `schema "graphile_worker" is incomplete although its ledger says otherwise.`)
			wantEqual(t, "contents", contents, f.contents())
			wantEqual(t, "earlier rows of the ledger", ledger, f.ledger()[:len(ledger)])
		})
	}
}
