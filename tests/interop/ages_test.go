package interop_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// newestListing is the listing of a schema that the newest Rust worker has migrated.
const newestListing = "../../internal/migrate/testdata/revision-22.txt"

// newest is the last revision that the side's migrations write.
func (s side) newest() int {
	if s.isRust() {
		return s.crate.Revision
	}
	return 20 // Node 0.18 and gworker
}

// migrateAs runs the migrations of a side; tried says that they failed.
func (db *database) migrateAs(s side) (tried error) {
	db.t.Helper()
	switch {
	case s.isNode():
		return db.migrateWithNode(s.version).end(db.t)
	case s.isRust():
		return db.migrateWithRust(s.crate).end(db.t)
	}
	_, err := migrate.Up(db.t.Context(), db.pool(), migrate.Options{})
	return err
}

// databaseAt has the schema as a side makes it on its way to its newest revision. No
// runtime can be told to stop before: a trigger on the ledger stops it.
func databaseAt(t *testing.T, s side, revision int) *database {
	t.Helper()
	s.require(t)
	db := emptyDatabase(t)
	db.exec("create schema graphile_worker")
	db.exec(`create table graphile_worker.migrations (
		id int primary key, ts timestamptz not null default now(), breaking boolean not null default false)`)
	db.exec(`create function interop.stop() returns trigger language plpgsql as $$ begin raise exception 'as far as here'; end $$`)
	db.exec(fmt.Sprintf(`create trigger stop before insert on graphile_worker.migrations
		for each row when (new.id > %d) execute function interop.stop()`, revision))
	if err := db.migrateAs(s); (err == nil) != (revision == s.newest()) {
		t.Fatalf("%s, to be stopped at %d: %v", s, revision, err)
	}
	db.exec("drop trigger stop on graphile_worker.migrations")
	if at := value[int](db, "select max(id) from graphile_worker.migrations"); at != revision {
		t.Fatalf("%s stopped at %d, want %d", s, at, revision)
	}
	return db
}

// seedAged adds two jobs to a schema of any age, one of which has been tried.
func (db *database) seedAged() {
	db.t.Helper()
	if value[bool](db, "select exists (select from pg_proc where proname = 'add_job')") {
		db.exec(`select graphile_worker.add_job('greet', '{"n": 1}'::json, 'a queue', '2020-01-02 03:04:05+00', 7::smallint)`)
		db.exec(`select graphile_worker.add_job('greet', '{"n": 2}'::json, 'another')`)
	} else { // ours pass through the early revisions without their functions
		db.exec("insert into graphile_worker.job_queues (queue_name, job_count) values ('a queue', 1), ('another', 1)")
		db.exec(`insert into graphile_worker.jobs (task_identifier, payload, queue_name, run_at, max_attempts)
			values ('greet', '{"n": 1}', 'a queue', '2020-01-02 03:04:05+00', 7), ('greet', '{"n": 2}', 'another', now(), 25)`)
	}
	table := "jobs"
	if value[bool](db, "select to_regclass('graphile_worker._private_jobs') is not null") {
		table = "_private_jobs"
	}
	db.exec("update graphile_worker." + table + " set attempts = 2, last_error = 'no' where payload::jsonb = '{\"n\": 2}'")
}

// wantAged asserts that the two are as they were.
func (db *database) wantAged(after string) {
	db.t.Helper()
	jobs := db.jobs()
	if len(jobs) != 2 {
		db.t.Fatalf("%s: %d jobs are left of 2: %+v", after, len(jobs), jobs)
	}
	// Node's and Rust's 11 give them new ids in the order in which the rows lie.
	slices.SortFunc(jobs, func(a, b storedJob) int { return strings.Compare(a.Payload, b.Payload) })
	want := []storedJob{
		{Task: "greet", Queue: ptr("a queue"), Payload: `{"n": 1}`, MaxAttempts: 7, RunAt: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), Available: true},
		{Task: "greet", Queue: ptr("another"), Payload: `{"n": 2}`, MaxAttempts: 25, RunAt: jobs[1].RunAt, Attempts: 2, LastError: ptr("no"), Available: true},
	}
	jobs[0].RunAt = jobs[0].RunAt.UTC()
	if diff := cmp.Diff(want, jobs); diff != "" {
		db.t.Errorf("%s: jobs (-want +got):\n%s", after, diff)
	}
}

// wantCatalog asserts that the schema is as a listing says.
func (db *database) wantCatalog(after, listing string) {
	db.t.Helper()
	got := values[string](db, readFile(db.t, catalogQuery), "graphile_worker")
	want := strings.Split(strings.TrimSpace(readFile(db.t, listing)), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		db.t.Errorf("%s: catalog (-want +got):\n%s", after, diff)
	}
}

// A schema of each runtime and of each age is taken over by Rust and then by us, and by
// us and then by Rust: what comes out is the same, with its jobs and ledger rows. Only
// a run of ours that was broken off before revision 11 has to be finished by us.
func TestTakeoverAtEachAge(t *testing.T) {
	ours, theirs, nodes := gworkerSide, rustSide(rust.V14), nodeSide(node.V18)
	for _, origin := range []side{nodes, theirs, ours} {
		for revision := 1; revision <= origin.newest(); revision++ {
			for _, heirs := range [][]side{{theirs, ours}, {ours, theirs}} {
				if origin == ours && heirs[0] == ours {
					continue // which is all one way
				}
				t.Run(fmt.Sprintf("%s at %d, %s, %s", origin, revision, heirs[0], heirs[1]), func(t *testing.T) {
					t.Parallel()
					testTakeover(t, origin, revision, heirs...)
				})
			}
		}
	}
	// The release that ends at 20 takes Node's 20 for its own, and makes no recovery
	// tables; we do.
	for revision := 18; revision <= 20; revision++ {
		for _, heirs := range [][]side{{rustSide(rust.V13), ours, theirs}, {ours, rustSide(rust.V13), theirs}} {
			t.Run(fmt.Sprintf("%s at %d, %s, %s, %s", nodes, revision, heirs[0], heirs[1], heirs[2]), func(t *testing.T) {
				t.Parallel()
				testTakeover(t, nodes, revision, heirs...)
			})
		}
	}
}

// lastWithoutFunctions is the last revision that our migrations pass through without
// the functions and triggers of its time, which 11 replaces.
const lastWithoutFunctions = 10

func testTakeover(t *testing.T, origin side, revision int, heirs ...side) {
	for _, s := range heirs {
		s.require(t)
	}
	db := databaseAt(t, origin, revision)
	db.seedAged()
	for _, heir := range heirs {
		before := db.ledger()
		err := db.migrateAs(heir)
		if heir.isRust() && origin == gworkerSide && before[len(before)-1].ID <= lastWithoutFunctions {
			// It stops at what is not there, and leaves the rest to us.
			if rows := db.ledger(); err == nil || rows[len(rows)-1].ID > lastWithoutFunctions {
				t.Errorf("%s takes over what we left half way: %v; it is at %+v", heir, err, rows)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", heir, err)
		}
		after := "after " + heir.String()
		rows := db.ledger()
		if last := rows[len(rows)-1].ID; last != max(before[len(before)-1].ID, heir.newest()) {
			t.Errorf("%s the ledger ends at %d", after, last)
		}
		if diff := cmp.Diff(before, rows[:len(before)]); diff != "" {
			t.Errorf("%s, the rows before are (-before +after):\n%s", after, diff)
		}
		switch last := rows[len(rows)-1].ID; {
		case last == 22:
			db.wantCatalog(after, newestListing)
		case heir == gworkerSide:
			db.wantCatalog(after, finishedListing)
		}
		db.wantAged(after)
	}
	if revision%6 == 0 { // a process takes its time
		last := heirs[len(heirs)-1]
		last.runOnce(t, db.url, "greet")
		db.ranBy(last, last)
	}
}
