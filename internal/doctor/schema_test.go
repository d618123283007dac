package doctor_test

import (
	"io/fs"
	"slices"
	"testing"

	"github.com/gworker/gworker/db"
	"github.com/gworker/gworker/internal/doctor"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/testdb"
)

// at is a database whose schema our migration files have brought to a revision.
func at(t testing.TB, revision int) patient {
	t.Helper()
	p := newPatient(t, testdb.Empty(t))
	files, err := fs.Glob(db.Migrations, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	for _, file := range files[:revision+1] { // the first makes the schema
		text, err := fs.ReadFile(db.Migrations, file)
		if err != nil {
			t.Fatal(err)
		}
		p.do(string(text))
	}
	return p
}

func TestWithoutTheSchema(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	p := newPatient(t, testdb.Empty(t))
	r := p.examine()
	want(t, r, "schema", doctor.Problem, `"graphile_worker" is not installed`, "gworker migrate")
	wantOthersOK(t, r, "schema")
	if _, found := r.Find("latency"); found || r.Revision != 0 {
		t.Errorf("%s", dump(t, r))
	}
	p.do("create schema graphile_worker")
	want(t, p.examine(), "schema", doctor.Problem, "is not installed")
	p.do("create table graphile_worker.mine (id int)")
	want(t, p.examine(), "objects", doctor.Problem, "no ledger")

	p = healthy(t)
	var err error
	if p.name, err = schema.Parse("elsewhere"); err != nil {
		t.Fatal(err)
	}
	want(t, p.examine(), "schema", doctor.Problem, `"elsewhere" is not installed`, "gworker migrate --schema 'elsewhere'")
}

func TestOldRevisions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, revision := range []int{1, 2, 10, 11, 15, 16, 18, 19} {
		r := at(t, revision).examine()
		want(t, r, "schema", doctor.Warning, "a migration would apply revision", "wait for 4 hours")
		wantOthersOK(t, r, "schema")
	}
}

func TestLockedJobsBeforeRevision11(t *testing.T) {
	p := at(t, 10)
	p.do("insert into graphile_worker.jobs (task_identifier, queue_name, locked_at) values ('x', 'q', now())")
	want(t, p.examine(), "schema", doctor.Problem, "There are locked jobs present", "Shut the old workers down")
}

// Node's 19 is a marker and its 20 changes no object.
func TestNodesSchema(t *testing.T) {
	p := at(t, 18)
	p.do("insert into graphile_worker.migrations (id, breaking) values (19, true), (20, false)")
	p.locked("pool-0123456789abcdef01", "1 minute")
	r := p.examine()
	want(t, r, "schema", doctor.Warning, "revision 20 of Node's worker", "apply revisions 19 to 20", "Without revision 20's")
	want(t, r, "unknown-workers", doctor.Note, "of Node")
	wantOthersOK(t, r, "schema", "unknown-workers")
	if _, found := r.Find("stale-workers"); found {
		t.Error("there are stale workers where none can register")
	}
	p.locked("gworker_a", "1 hour")
	want(t, p.examine(), "unknown-workers", doctor.Note, "of gworker")
}

// What Rust's workers add, as far as the catalog shows it.
func TestRustsSchema(t *testing.T) {
	p := healthy(t)
	p.do(`
		insert into graphile_worker.migrations (id) values (21), (22);
		create table graphile_worker._private_job_retirements (
			id bigint primary key references graphile_worker._private_jobs (id) on delete cascade);
		create or replace function graphile_worker.complete_jobs(job_ids bigint[])
		returns setof graphile_worker._private_jobs language sql as 'delete from graphile_worker._private_jobs returning *';`)
	r := p.examine()
	want(t, r, "schema", doctor.OK, "revision 22 of Rust's worker")
	want(t, r, "functions", doctor.OK, "1 of other makers")
	want(t, r, "foreign-keys", doctor.Note, "Rust's revision 22", "Each job that ends is deleted", "Leave Rust's as it is")
	wantOthersOK(t, r, "foreign-keys")
}

func TestNewerRevisions(t *testing.T) {
	p := healthy(t)
	p.do("insert into graphile_worker.migrations (id) values (99)")
	r := p.examine()
	want(t, r, "schema", doctor.Warning, "revision 99", "knows revisions up to 22", "Update gworker")
	wantOthersOK(t, r, "schema")
	p.do("update graphile_worker.migrations set breaking = true where id = 99")
	want(t, p.examine(), "schema", doctor.Problem, "includes breaking migration 99", "exit status 57")
}

func TestMissingObjects(t *testing.T) {
	p := healthy(t)
	p.do("insert into graphile_worker.migrations (id) values (21), (22); drop index graphile_worker.jobs_main_index")
	r := p.examine()
	want(t, r, "objects", doctor.Problem, "index _private_jobs.jobs_main_index")
	wantOthersOK(t, r, "objects")
	p.do("alter table graphile_worker._private_jobs alter column revision type bigint, drop column updated_at cascade")
	r = p.examine()
	want(t, r, "objects", doctor.Problem, "column _private_jobs.revision int4", "column _private_jobs.updated_at timestamptz")
	if _, found := r.Find("latency"); found {
		t.Error("a table that lacks a column was read")
	}

	// Without Rust's, a migration brings back what is missing.
	p = healthy(t)
	p.do("drop index graphile_worker.jobs_main_index")
	r = p.examine()
	want(t, r, "schema", doctor.Warning, "apply revisions 19 to 20")
	want(t, r, "objects", doctor.OK, "1 object is missing")
}

func TestChangedFunctions(t *testing.T) {
	p := healthyIn(t, oddName)
	p.do(`create or replace function graphile_worker.force_unlock_workers(worker_ids text[]) returns void language sql as 'select null::void'`)
	r := p.examine()
	want(t, r, "functions", doctor.Warning, "1 function has", "force_unlock_workers")
	wantOthersOK(t, r, "functions")
	p.helps(r, "functions")
	p.do(`create or replace function graphile_worker.worker_deregister(worker_id text) returns void language sql as '-- made by gworker
		select null::void'`)
	want(t, p.examine(), "functions", doctor.Warning, "2 functions have", "worker_deregister")
	// Where Rust has written its own over some, only what bears our mark tells.
	p.do("insert into graphile_worker.migrations (id) values (21), (22)")
	want(t, p.examine(), "functions", doctor.Warning, "1 function has", "worker_deregister")
}

func TestTriggers(t *testing.T) {
	p := healthyIn(t, oddName)
	p.do(`create function mine() returns trigger language plpgsql as 'begin return new; end';
		create trigger "my Trigger" before update on graphile_worker._private_jobs for each row execute function mine()`)
	r := p.examine()
	want(t, r, "triggers", doctor.Note, "my Trigger on _private_jobs")
	wantOthersOK(t, r, "triggers")
	p.helps(r, "triggers")
	wantOthersOK(t, p.examine())
}

func TestInvalidIndexes(t *testing.T) {
	p := healthyIn(t, oddName)
	p.do("create index mine on graphile_worker._private_jobs (attempts)")
	wantOthersOK(t, p.examine())
	p.do("update pg_index set indisvalid = false where indexrelid = (select oid from pg_class where relname = 'mine')")
	r := p.examine()
	want(t, r, "indexes", doctor.Warning, "1 index is invalid: mine")
	wantOthersOK(t, r, "indexes")
	p.helps(r, "indexes")
	wantOthersOK(t, p.examine())
}

func TestForeignKeys(t *testing.T) {
	p := healthyIn(t, oddName)
	p.do(`create table "my Orders" (id int primary key, job_id bigint unique references graphile_worker._private_jobs (id) on delete set null)`)
	r := p.examine()
	want(t, r, "foreign-keys", doctor.Warning, `"public"."my Orders"`, "which has an index")
	wantOthersOK(t, r, "foreign-keys")
	p.helps(r, "foreign-keys")
	wantOthersOK(t, p.examine())
	p.do(`create table walks (job_id bigint references graphile_worker._private_jobs (id))`)
	want(t, p.examine(), "foreign-keys", doctor.Problem, "which has no index", "create index concurrently")
}

func TestUnloggedTables(t *testing.T) {
	p := healthyIn(t, oddName)
	p.do("alter table graphile_worker._private_jobs set unlogged")
	r := p.examine()
	want(t, r, "unlogged-tables", doctor.Warning, "_private_jobs")
	wantOthersOK(t, r, "unlogged-tables")
	p.helps(r, "unlogged-tables")
	wantOthersOK(t, p.examine())
}

func TestIdentities(t *testing.T) {
	p := healthyIn(t, oddName)
	p.do("alter table graphile_worker._private_job_queues alter column id restart with 1600000000")
	p.do("select graphile_worker.add_job('x', queue_name => 'q')")
	r := p.examine()
	want(t, r, "identities", doctor.Warning, "_private_job_queues.id has used 74.5 % of its 2,147,483,647 numbers")
	wantOthersOK(t, r, "identities")
	p.do("alter table graphile_worker._private_jobs alter column id restart with 9000000000000000000")
	p.do("select graphile_worker.add_job('x')")
	want(t, p.examine(), "identities", doctor.Problem, "_private_jobs.id has used 97.6 %", "_private_job_queues.id")
}
