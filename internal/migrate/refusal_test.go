package migrate_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/testdb"
)

// everything is all there is to see of a schema.
func (f fixture) everything() []string {
	f.t.Helper()
	all := slices.Concat(f.catalog(), f.bodies(), f.contents())
	if f.has("migrations") {
		all = append(all, f.lines(`select row_to_json(m)::text from graphile_worker.migrations m order by id`)...)
	}
	return all
}

// tryUp is a run, and all warnings of it.
func (f fixture) tryUp() (result migrate.Result, warnings []string, err error) {
	f.t.Helper()
	result, err = migrate.Up(f.t.Context(), f.Pool, migrate.Options{
		Schema:    f.name,
		OnWarning: func(text string) { warnings = append(warnings, text) },
	})
	return result, warnings, err
}

func TestIncompatibleRevisions(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, test := range map[string]struct {
		make func(fixture)
		rows string
		want migrate.IncompatibleError
		text string
	}{
		"a breaking 23 on our 20": {
			make: func(f fixture) { f.install(20) }, rows: "(23, true)",
			want: migrate.IncompatibleError{Revision: 23, Breaking: 23, Supported: 22},
			text: "Database is using Graphile Worker schema revision 23 which includes breaking migration 23, " +
				"but the currently running worker only supports up to revision 22. It would be unsafe to continue; " +
				"please ensure all versions of Graphile Worker are compatible.",
		},
		"the newest breaking one is named": {
			make: fixture.at22, rows: "(23, true), (30, true), (31, false)",
			want: migrate.IncompatibleError{Revision: 31, Breaking: 30, Supported: 22},
			text: "Database is using Graphile Worker schema revision 31 which includes breaking migration 30, " +
				"but the currently running worker only supports up to revision 22. It would be unsafe to continue; " +
				"please ensure all versions of Graphile Worker are compatible.",
		},
		// Rust's 21 and 22 are not breaking: these are of a later Node.
		"a breaking 21 on Node's 20": {
			make: fixture.at20Node, rows: "(21, true)",
			want: migrate.IncompatibleError{Revision: 21, Breaking: 21, Supported: 20},
			text: "Database is using Graphile Worker schema revision 21 which includes breaking migration 21, " +
				"but the currently running worker only supports up to revision 20. It would be unsafe to continue; " +
				"please ensure all versions of Graphile Worker are compatible.",
		},
		"a breaking 22 on our 20": {
			make: func(f fixture) { f.install(20) }, rows: "(21, false), (22, true)",
			want: migrate.IncompatibleError{Revision: 22, Breaking: 22, Supported: 20},
			text: "Database is using Graphile Worker schema revision 22 which includes breaking migration 22, " +
				"but the currently running worker only supports up to revision 20. It would be unsafe to continue; " +
				"please ensure all versions of Graphile Worker are compatible.",
		},
		"a breaking 40 on Node's 18": {
			make: fixture.at18, rows: "(40, true), (41, false)",
			want: migrate.IncompatibleError{Revision: 41, Breaking: 40, Supported: 22},
			text: "Database is using Graphile Worker schema revision 41 which includes breaking migration 40, " +
				"but the currently running worker only supports up to revision 22. It would be unsafe to continue; " +
				"please ensure all versions of Graphile Worker are compatible.",
		},
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			test.make(f)
			f.seed(18)
			f.sql(`insert into graphile_worker.migrations (id, breaking) values ` + test.rows)
			before := f.everything()

			result, warnings, err := f.tryUp()
			f.wantIncompatible(err, test.want, test.text)
			wantEqual(t, "applied", nil, ids(result.Applied))
			wantEqual(t, "warnings", nil, warnings)

			status := f.inspect()
			f.wantIncompatible(status.Refusal, test.want, test.text)
			ledger, err := migrate.CheckLedger(t.Context(), f.Pool, f.name)
			f.wantIncompatible(err, test.want, test.text)
			wantEqual(t, "ledger", status.Ledger, ledger)
			wantEqual(t, "newest", test.want.Revision, ledger.Newest)
			wantEqual(t, "schema", before, f.everything())
		})
	}
}

func (f fixture) wantIncompatible(err error, want migrate.IncompatibleError, text string) {
	f.t.Helper()
	var got *migrate.IncompatibleError
	if !errors.As(err, &got) {
		f.t.Fatalf("got error %v", err)
	}
	wantEqual(f.t, "error", want, *got)
	wantEqual(f.t, "text", text, err.Error())
}

func TestNewerRevisionsAreWarnedOf(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, test := range map[string]struct {
		make func(fixture)
		rows string
		want []string
	}{
		"23 on our 20": {
			func(f fixture) { f.install(20) }, "(21), (22), (23)",
			[]string{`schema "graphile_worker" is at revision 23 and this worker knows revisions up to 22. ` +
				`Nothing newer is marked as breaking, so it goes on; update it when you can.`},
		},
		"100 on Rust's 22": {
			fixture.at22, "(23), (100)",
			[]string{`schema "graphile_worker" is at revision 100 and this worker knows revisions up to 22. ` +
				`Nothing newer is marked as breaking, so it goes on; update it when you can.`},
		},
		"22 is known": {fixture.at20Rust, "(21), (22)", nil},
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			test.make(f)
			f.seed(20)
			f.sql(`insert into graphile_worker.migrations (id) values ` + test.rows)
			before := f.everything()
			result, warnings, err := f.tryUp()
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "applied", nil, ids(result.Applied))
			wantEqual(t, "warnings", test.want, warnings)
			if _, err := migrate.Up(t.Context(), f.Pool, migrate.Options{}); err != nil {
				t.Errorf("without anybody to warn: %v", err)
			}
			if _, err := migrate.CheckLedger(t.Context(), f.Pool, f.name); err != nil {
				t.Errorf("the ledger: %v", err)
			}
			wantEqual(t, "schema", before, f.everything())
		})
	}
}

const lockedText = "There are locked jobs present; migration 11 cannot complete. Please ensure all workers are shut down " +
	"cleanly and all locked jobs and queues are unlocked before attempting this migration."

// Ids do not carry over at 11, so nothing may run then.
func TestLockedJobsStopRevision11(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	f := newFixture(t, "")
	f.at10()
	f.seedEarly(10)
	f.sql(`update graphile_worker.jobs set locked_at = now() - interval '1 hour' where priority = 12`)
	before := f.everything()

	// Once as found, and once more since a refusal must not leave a lock.
	for range 2 {
		result, warnings, err := f.tryUp()
		f.wantLockedJobs(err)
		wantEqual(t, "SQLSTATE", "22012", wantCause(t, err).Code)
		wantEqual(t, "applied", nil, ids(result.Applied))
		wantEqual(t, "newest", 10, result.Ledger.Newest)
		wantEqual(t, "warnings", nil, warnings)
		wantEqual(t, "schema", before, f.everything())
	}
	status := f.inspect()
	f.wantLockedJobs(status.Refusal)
	wantEqual(t, "pending", fromTo(11, 20), status.Pending())
	wantEqual(t, "schema", before, f.everything())

	f.sql(`update graphile_worker.jobs set locked_at = now() - interval '5 hours' where priority = 12`)
	if err := f.inspect().Refusal; err != nil {
		t.Errorf("a lock of five hours ago: %v", err)
	}
	wantEqual(t, "applied", fromTo(11, 20), ids(f.up().Applied))
	wantEqual(t, "locked jobs", 0, one[int](f, `select count(*)::int from graphile_worker.jobs where locked_at is not null`))
}

// What came before 11 stays applied.
func TestLockedJobsStopARunOnItsWay(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	f.at(7)
	f.seedEarly(7)
	f.sql(`update graphile_worker.jobs set locked_at = now() where priority = 12`)
	jobs := f.earlyJobs(7)
	result, _, err := f.tryUp()
	f.wantLockedJobs(err)
	wantEqual(t, "applied", []int{8, 9, 10}, ids(result.Applied))
	wantEqual(t, "newest", 10, result.Ledger.Newest)
	wantEqual(t, "jobs", jobs, f.earlyJobs(7))
}

// Locked jobs of later revisions stop nothing.
func TestLockedJobsLaterOn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	f.at(15)
	f.seed(15)
	if err := f.inspect().Refusal; err != nil {
		t.Errorf("refused: %v", err)
	}
	wantEqual(t, "locks", 3, one[int](f, `select count(*)::int from graphile_worker.jobs where locked_at is not null`))
	f.up()
	wantEqual(t, "locks", 3, one[int](f, `select count(*)::int from graphile_worker.jobs where locked_at is not null`))
}

func (f fixture) wantLockedJobs(err error) {
	f.t.Helper()
	var locked *migrate.LockedJobsError
	if !errors.As(err, &locked) {
		f.t.Fatalf("got error %v", err)
	}
	wantEqual(f.t, "text", lockedText, err.Error())
}

func TestServerVersionText(t *testing.T) {
	t.Parallel()
	wantEqual(t, "text", "This version of Graphile Worker requires PostgreSQL v12.0 or greater "+
		"(detected `server_version_num` = 110022)", (&migrate.ServerVersionError{Number: 110022}).Error())
}
