package interop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// The sentences of the crate's page on compatibility, see docs/from-rust.md.

// installers are the runtimes that may make the schema first.
var installers = map[string]func(*testing.T) *database{
	"gworker":     gworkerDatabase,
	"node 0.18.0": func(t *testing.T) *database { return nodeDatabase(t, node.V18) },
	"rust 0.14.1": func(t *testing.T) *database { return rustDatabase(t, rust.V14) },
	"rust 0.13.5": func(t *testing.T) *database { return rustDatabase(t, rust.V13) },
}

// The public functions and the view are there with the same signatures whoever made
// the schema, and do the same.
func TestPublicFunctionsOfEveryInstaller(t *testing.T) {
	node.Require(t)
	rust.Require(t, rust.V14)
	rust.Require(t, rust.V13)
	t.Parallel()
	const signatures = `
		select p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ') ' || pg_get_function_result(p.oid)
		from pg_proc p where p.pronamespace = 'graphile_worker'::regnamespace and p.proname in ('add_job', 'add_jobs', 'remove_job',
			'complete_jobs', 'reschedule_jobs', 'permanently_fail_jobs', 'force_unlock_workers')
		union all select c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
		from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
		where c.relnamespace = 'graphile_worker'::regnamespace and c.relname in ('jobs', 'migrations') order by 1`
	script := []string{
		"select id from graphile_worker.add_job('a', '[1]', job_key => 'k', run_at => '2030-01-01', flags => '{x,y}', priority => 3, max_attempts => 4, queue_name => 'q')",
		"select id from graphile_worker.add_job('a', '[2]', job_key => 'k', run_at => '2031-01-01', job_key_mode => 'preserve_run_at')",
		"select id from graphile_worker.add_job('b', '{}', job_key => 'k', job_key_mode => 'unsafe_dedupe')",
		"select id from graphile_worker.add_jobs(array[row('b', null, null, '2030-01-01', 5, null, null, null)::graphile_worker.job_spec])",
		"select id from graphile_worker.add_job('gone', job_key => 'gone')",
		"select (graphile_worker.remove_job('gone')).id",
		"select id from graphile_worker.reschedule_jobs(array[2], run_at => '2029-01-01', priority => 7, attempts => 1, max_attempts => 9)",
		"select id from graphile_worker.permanently_fail_jobs(array[2], 'by hand')",
		"select id from graphile_worker.add_job('done', run_at => '2030-01-01')",
		"update graphile_worker._private_jobs set locked_by = 'worker-9', locked_at = now() where key = 'k' returning id",
		"select id from graphile_worker.complete_jobs((select array_agg(id) from graphile_worker.jobs where task_identifier <> 'b'))",
		"select count(*) from graphile_worker.force_unlock_workers(array['worker-9'])",
	}
	type shape struct{ Signatures, Jobs []string }
	shapes := map[string]shape{}
	for name, install := range installers {
		db := install(t)
		for _, statement := range script {
			db.exec(statement)
		}
		shapes[name] = shape{
			values[string](db, signatures),
			values[string](db, `select row(task_identifier, queue_name, priority, run_at at time zone 'utc', attempts, max_attempts,
				last_error, key, revision, flags, locked_by)::text from graphile_worker.jobs order by task_identifier, priority`),
		}
	}
	want := shapes["gworker"]
	if len(want.Signatures) < 7+10 || len(want.Jobs) != 2 {
		t.Errorf("compared: %v", want)
	}
	for name, got := range shapes {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the schema of %s (-gworker's +its):\n%s", name, diff)
		}
	}
}

// The page's own example, by SQL with every argument, runs in each runtime.
func TestJobOfThePageRunsInEachRuntime(t *testing.T) {
	forEachRuntime(t, func(t *testing.T, s side) {
		for _, install := range []string{"gworker", "rust 0.14.1"} {
			rust.Require(t, rust.V14)
			db := installers[install](t)
			db.exec(`select graphile_worker.add_job(identifier => 'send_email',
				payload => '{"to": "ada@example.com", "subject": "Welcome"}'::json, queue_name => 'mailers', run_at => now(), max_attempts => 25,
				job_key => 'welcome:ada@example.com', priority => 0, flags => null, job_key_mode => 'replace')`)
			s.runOnce(t, db.url, "send_email")
			seen := db.seen()
			if len(seen) != 1 || len(db.jobs()) != 0 {
				t.Fatalf("runs %+v, left %+v", seen, db.jobs())
			}
			var payload struct{ To, Subject string }
			if err := json.Unmarshal(seen[0].Payload, &payload); err != nil || payload.To != "ada@example.com" || payload.Subject != "Welcome" {
				t.Errorf("%s read the payload as %s", s, seen[0].Payload)
			}
			if got := seen[0]; got.Queue != "mailers" || got.Key != "welcome:ada@example.com" || got.Attempts != 1 || got.MaxAttempts != 25 {
				t.Errorf("%s saw %+v", s, got)
			}
		}
	})
}

// Payloads that one typed handler takes and another does not. Go reads what is
// missing or null as the zero value; serde refuses both unless the field is an
// Option, or has a default and is missing.
func TestPayloadShapes(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	type email struct {
		To      string   `json:"to"`
		Subject string   `json:"subject"`
		CC      *string  `json:"cc"`
		Tags    []string `json:"tags"`
	}
	cases := []struct {
		payload  string
		here     string // our error
		refused  string // Rust's
		language string
	}{
		{payload: `{"to":"a","subject":"s","cc":"c","tags":["t"]}`},
		{payload: `{"to":"a","subject":"s"}`},
		{payload: `{"to":"a","subject":"s","cc":null}`},
		{payload: `{"to":"a","subject":"s","unknown":{"deep":[1]}}`},
		{payload: `{"to":"a","subject":"s","tags":null}`, refused: "invalid type: null, expected a sequence"},
		{payload: `{"to":"a"}`, refused: "missing field `subject`"},
		{payload: `{"to":null,"subject":"s"}`, refused: "invalid type: null, expected a string"},
		{payload: `{}`, refused: "missing field `to`"},
		{payload: `null`, refused: "invalid type: null"},
		{payload: `{"to":1,"subject":"s"}`, here: "cannot unmarshal number", refused: "invalid type: integer `1`, expected a string"},
		{payload: `{"To":"a","SUBJECT":"s"}`, refused: "missing field `to`"}, // Go's names are told apart by spelling alone, not by case
		{payload: `["a","s",null,[]]`, here: "cannot unmarshal array"},       // serde reads a struct from an array, too
	}
	lastErrors := func(run func(db *database)) map[int]string {
		db := gworkerDatabase(t)
		for i, c := range cases {
			db.exec("select graphile_worker.add_job('send_email', $1::text::json, priority => $2)", c.payload, i)
		}
		run(db)
		errors := map[int]string{}
		for _, job := range db.jobs() {
			if job.LastError != nil {
				errors[job.Priority] = *job.LastError
			} else {
				t.Errorf("not run: %+v", job)
			}
		}
		return errors
	}
	theirs := lastErrors(func(db *database) { rustSide(rust.V14).runOnce(t, db.url, "send_email") })
	ours := lastErrors(func(db *database) {
		worker, err := gworker.NewWorker(gworker.Config{DatabaseURL: db.url, Tasks: []gworker.Task{
			gworker.NewTask("send_email", func(context.Context, *gworker.Job[email]) error { return nil }),
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := worker.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	for i, c := range cases {
		for name, result := range map[string]struct{ want, got string }{"here": {c.here, ours[i]}, "in Rust": {c.refused, theirs[i]}} {
			if (result.want == "") != (result.got == "") || !strings.Contains(result.got, result.want) {
				t.Errorf("%s %s: error %q, want %q", c.payload, name, result.got, result.want)
			}
		}
	}
}

// One database, two schemas: each worker runs the jobs of its own, and workers of
// both runtimes share a schema of any name.
func TestTwoSchemasInOneDatabase(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	const other = `Their "queue"`
	db := gworkerDatabase(t)
	j := newJournal()
	o := order{ConnectionString: db.url, Tasks: []string{"work"}, Concurrency: 2, PollMs: 200}
	here := gworkerSide.startWorker(t, o, j)
	o.Schema, o.Worker = other, "rust there"
	there := rustSide(rust.V14).startWorker(t, o, j)
	j.await(t, "ready", 1)
	const jobs = 20
	for range jobs {
		db.exec("select graphile_worker.add_job('work')")
		db.exec(`select "Their ""queue""".add_job('work', '{"there": true}'::json)`)
	}
	j.await(t, "finished", 2*jobs)
	there.stop(t)
	here.stop(t)
	type share struct {
		Worker string
		There  bool
		Runs   int
	}
	got := query[share](db, "select worker, job -> 'payload' ? 'there', count(*)::int from interop.runs group by 1, 2 order by 1")
	if diff := cmp.Diff([]share{{"gworker", false, jobs}, {"rust there", true, jobs}}, got); diff != "" {
		t.Errorf("who ran which schema's jobs (-want +got):\n%s", diff)
	}
	// Ours joins theirs.
	o.Once, o.Worker = true, "gworker there"
	db.exec(`select "Their ""queue""".add_job('work', '{"there": true}'::json)`)
	gworkerSide.startWorker(t, o, newJournal()).wait(t)
	if n := value[int](db, "select count(*)::int from interop.runs where worker = 'gworker there'"); n != 1 {
		t.Errorf("gworker ran %d jobs of the Rust worker's schema", n)
	}
}

// Whoever installs first, every runtime's migrations run after it and again, jobs
// stay, and each runtime works.
func TestEveryInstallerFirst(t *testing.T) {
	for name, install := range installers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node.Require(t)
			rust.Require(t, rust.V14)
			rust.Require(t, rust.V13)
			db := install(t)
			first := db.ledger()
			db.exec(`select graphile_worker.add_job('greet', '{"n": 1}'::json, 'q', job_key => 'k', flags => '{f}', run_at => '2040-01-01')`)
			before := db.jobs()
			for range 2 {
				db.migrate()
				for _, p := range []*process{db.migrateWithRust(rust.V13), db.migrateWithNode(node.V18), db.migrateWithRust(rust.V14)} {
					if err := p.end(t); err != nil {
						t.Errorf("%s on the schema of %s: %v\n%s", p.name, name, err, p.stderr)
					}
				}
			}
			if diff := cmp.Diff(before, db.jobs()); diff != "" {
				t.Errorf("the job (-before +after):\n%s", diff)
			}
			ledger := db.ledger()
			if diff := cmp.Diff(first, ledger[:len(first)]); diff != "" || ledger[len(ledger)-1].ID != 22 {
				t.Errorf("the ledger ends at %d (-first +after):\n%s", ledger[len(ledger)-1].ID, diff)
			}
			var want []side
			for _, s := range []side{gworkerSide, rustSide(rust.V14), nodeSide(node.V18), rustSide(rust.V13)} {
				db.exec("select graphile_worker.add_job('work')")
				s.runOnce(t, db.url, "work")
				want = append(want, s)
			}
			db.exec("select graphile_worker.remove_job('k')")
			db.ranBy(want...)
		})
	}
}

// In whichever order the three install, the schema is the same in the end, each leaves
// the ledger's rows of those before it, and a job that was added in between stays.
func TestInstallOrders(t *testing.T) {
	for _, v := range rust.Versions {
		sides := []side{nodeSide(node.V18), rustSide(v), gworkerSide}
		for _, i := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
			t.Run(fmt.Sprint(sides[i[0]], ", ", sides[i[1]], ", ", sides[i[2]]), func(t *testing.T) {
				t.Parallel()
				node.Require(t)
				rust.Require(t, v)
				db := emptyDatabase(t)
				var ledger []revision
				var jobs []storedJob
				for n, s := range []side{sides[i[0]], sides[i[1]], sides[i[2]]} {
					if err := db.migrateAs(s); err != nil {
						t.Fatalf("%s: %v", s, err)
					}
					now := db.ledger()
					if diff := cmp.Diff(ledger, now[:len(ledger)]); n > 0 && diff != "" {
						t.Errorf("%s changed the ledger (-before +after):\n%s", s, diff)
					}
					if diff := cmp.Diff(jobs, db.jobs()); n > 0 && diff != "" {
						t.Errorf("%s changed the jobs (-before +after):\n%s", s, diff)
					}
					db.exec(`select graphile_worker.add_job('greet', $1, $2, job_key => $2, flags => '{f}', run_at => '2040-01-01')`,
						fmt.Sprintf(`{"n": %d}`, n), s.String())
					ledger, jobs = now, db.jobs()
				}
				if last := ledger[len(ledger)-1].ID; last != v.Revision {
					t.Errorf("the ledger ends at %d, want %d", last, v.Revision)
				}
				listing := finishedListing
				if v.Revision > gworkerSide.newest() {
					listing = newestListing
				}
				db.wantCatalog("after all", listing)
			})
		}
	}
}

// A newer breaking revision stops each runtime before it does anything; of a newer
// one that breaks nothing each warns, and works.
func TestNewerRevisions(t *testing.T) {
	forEachRuntime(t, func(t *testing.T, s side) {
		db := gworkerDatabase(t)
		db.exec("select graphile_worker.add_job('work')")
		s.runOnce(t, db.url, "work")
		o := order{ConnectionString: db.url, Tasks: []string{"work"}, Concurrency: 1, Once: true}
		for _, breaking := range []bool{false, true} {
			db.exec("select graphile_worker.add_job('work')")
			db.exec("insert into graphile_worker.migrations (id, breaking) values (30, $1) on conflict (id) do update set breaking = excluded.breaking", breaking)
			ledger := len(db.ledger())
			p := s.startWorker(t, o, newJournal())
			err := p.end(t)
			text := p.stderr.String()
			if breaking && (err == nil || !strings.Contains(text, "includes breaking migration 30")) {
				t.Errorf("on a newer breaking revision: %v\n%s", err, text)
			}
			if !breaking && (err != nil || !strings.Contains(text, "revision 30")) {
				t.Errorf("on a newer revision: %v\n%s", err, text)
			}
			want := 2
			if runs := len(db.seen()); runs != want {
				t.Errorf("breaking %v: %d jobs were run, want %d", breaking, runs, want)
			}
			if now := len(db.ledger()); now != ledger {
				t.Errorf("breaking %v: the ledger had %d rows and has %d", breaking, ledger, now)
			}
		}
	})
}

// Revision 11 waits for everybody to have stopped: a job that is locked keeps each
// runtime from it, and nothing is changed.
func TestRevision11AndLockedJobs(t *testing.T) {
	forEachRuntime(t, func(t *testing.T, s side) {
		node.Require(t)
		db := nodeDatabase(t, node.V13) // which ends at revision 10
		db.exec(`select graphile_worker.add_job('greet', '{"n": 1}'::json)`)
		db.exec("update graphile_worker.jobs set locked_at = now(), locked_by = 'worker-1'")
		o := order{ConnectionString: db.url, Tasks: []string{"greet"}, Concurrency: 1, Once: true}
		if s.isRust() {
			// As seen: Rust's migrations want a column that old Node versions did not
			// make. Ours and those of newer Node versions add it.
			p := s.startWorker(t, o, newJournal())
			if err := p.end(t); err == nil || !strings.Contains(p.stderr.String(), `column \"breaking\" does not exist`) {
				t.Errorf("on a ledger without the column: %v\n%s", err, p.stderr)
			}
		}
		db.exec("alter table graphile_worker.migrations add breaking boolean not null default false")
		db.exec("update graphile_worker.migrations set breaking = true where id in (1, 3)")
		testRevision11(t, db, s)
	})
}

// The same on a schema, with its ledger, that each release of the crate has made up to
// revision 10.
func TestRevision11AndLockedJobsOfRust(t *testing.T) {
	forEachRuntime(t, func(t *testing.T, s side) {
		for _, v := range rust.Versions {
			db := databaseAt(t, rustSide(v), 10)
			db.exec(`select graphile_worker.add_job('greet', '{"n": 1}'::json, 'a queue')`)
			db.exec("update graphile_worker.jobs set locked_at = now(), locked_by = 'graphile_worker_1'")
			testRevision11(t, db, s)
		}
	})
}

// testRevision11 has a side refuse the one job that is locked, and then not.
func testRevision11(t *testing.T, db *database, s side) {
	t.Helper()
	o := order{ConnectionString: db.url, Tasks: []string{"greet"}, Concurrency: 1, Once: true}
	state := func() []string {
		found := values[string](db, readFile(t, catalogQuery), "graphile_worker")
		slices.Sort(found)
		found = append(found, values[string](db, "select m::text from graphile_worker.migrations m order by id")...)
		return append(found, values[string](db, "select j::text from graphile_worker.jobs j order by id")...)
	}
	before := state()
	p := s.startWorker(t, o, newJournal())
	if err := p.end(t); err == nil || !strings.Contains(p.stderr.String(), "There are locked jobs present; migration 11 cannot complete") {
		t.Errorf("with a locked job: %v\n%s", err, p.stderr)
	}
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Errorf("the catalog, the ledger and the job (-before +after):\n%s", diff)
	}
	db.exec("update graphile_worker.jobs set locked_at = null, locked_by = null")
	s.startWorker(t, o, newJournal()).wait(t)
	db.ranBy(s)
}

// Accepted flags, which Node has not, choose the same jobs here and in Rust.
func TestAcceptedFlags(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	left := map[side][]storedJob{}
	for _, s := range []side{gworkerSide, rustSide(rust.V14)} {
		db := gworkerDatabase(t)
		for i, flags := range [][]string{nil, {"a"}, {"b"}, {"a", "c"}, {"c"}, {"d"}, {"a", "d"}} {
			gworkerSide.add(t, db.url, call{AddJob: &spec{Task: "x", Priority: i, Flags: flags, RunAt: longAgo, Queue: fmt.Sprintf("q%d", i)}})
		}
		s.startWorker(t, order{
			ConnectionString: db.url, Tasks: []string{"x"}, Concurrency: 2, Once: true, AcceptedFlags: []string{"a", "b"}, ForbiddenFlags: []string{"d"},
		}, newJournal()).wait(t)
		left[s] = db.jobs()
	}
	if diff := cmp.Diff(left[rustSide(rust.V14)], left[gworkerSide]); diff != "" || len(left[gworkerSide]) != 4 {
		t.Errorf("%d jobs are left (-rust +gworker):\n%s", len(left[gworkerSide]), diff)
	}
}
