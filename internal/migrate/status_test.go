package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/testdb"
)

func TestInspect(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	shared := func(rest ...string) []string {
		var all []string
		for id := 1; id <= 18; id++ {
			all = append(all, fmt.Sprintf("%d shared", id))
		}
		return append(all, rest...)
	}
	for what, test := range map[string]struct {
		make     func(fixture)
		lineages []string
		pending  []int
		newest   int
	}{
		"nothing": {func(fixture) {}, shared("19 gworker", "20 gworker"), fromTo(1, 20), 0},
		"Node's 10": {
			fixture.at10, shared("19 gworker", "20 gworker"), fromTo(11, 20), 10,
		},
		"Node's 18": {fixture.at18, shared("19 gworker", "20 gworker"), fromTo(19, 20), 18},
		"Node's 19": {func(f fixture) {
			f.at20Node()
			f.sql(`delete from graphile_worker.migrations where id = 20`)
		}, shared("19 node", "20 gworker"), fromTo(19, 20), 19},
		"Node's 20": {fixture.at20Node, shared("19 node", "20 node"), fromTo(19, 20), 20},
		"Rust's 19": {fixture.at19Rust, shared("19 rust", "20 gworker"), fromTo(19, 20), 19},
		"Rust's 20": {fixture.at20Rust, shared("19 rust", "20 rust"), nil, 20},
		"Rust's 22": {fixture.at22, shared("19 rust", "20 rust", "21 rust", "22 rust"), nil, 22},
		"our 20":    {func(f fixture) { f.up() }, shared("19 gworker", "20 gworker"), nil, 20},
		"our 20 over Node's": {func(f fixture) { f.at20Node(); f.up() },
			shared("19 node", "20 gworker"), nil, 20},
		"our 20 under Rust's": {func(f fixture) {
			f.up()
			f.sql(`insert into graphile_worker.migrations (id) values (21), (22)`)
		}, shared("19 gworker", "20 gworker", "21 rust", "22 rust"), nil, 22},
		"newer": {func(f fixture) {
			f.up()
			f.sql(`insert into graphile_worker.migrations (id) values (25)`)
		}, shared("19 gworker", "20 gworker", "25 unknown"), nil, 25},
		"another program's 21": {func(f fixture) {
			f.up()
			f.sql(`insert into graphile_worker.migrations (id, breaking) values (21, true)`)
		}, shared("19 gworker", "20 gworker", "21 unknown"), nil, 21},
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			test.make(f)
			before := f.everything()
			status := f.inspect()
			var lineages []string
			for _, r := range status.Revisions {
				lineages = append(lineages, fmt.Sprintf("%d %s", r.ID, r.Lineage))
				wantEqual(t, fmt.Sprintf("%d is recorded", r.ID), r.ID <= test.newest, r.Recorded)
				if r.Recorded == r.At.IsZero() {
					t.Errorf("revision %d: recorded %t at %s", r.ID, r.Recorded, r.At)
				}
				if !r.Recorded {
					wantEqual(t, fmt.Sprintf("%d would be breaking", r.ID), slices.Contains(breaking, r.ID), r.Breaking)
				}
			}
			wantEqual(t, "lineages", test.lineages, lineages)
			wantEqual(t, "pending", test.pending, status.Pending())
			wantEqual(t, "newest", test.newest, status.Ledger.Newest)
			wantEqual(t, "installed", test.newest > 0, status.Ledger.Installed)
			wantEqual(t, "schema", before, f.everything())
		})
	}
}

func TestInspectCreatesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "elsewhere")
	status := f.inspect()
	if status.Refusal != nil {
		t.Errorf("refused: %v", status.Refusal)
	}
	wantEqual(t, "installed", false, status.Ledger.Installed)
	wantEqual(t, "pending", fromTo(1, 20), status.Pending())
	wantEqual(t, "schemas", 0, one[int](f, `select count(*)::int from pg_namespace where nspname = 'elsewhere'`))
	f.sql(`create schema graphile_worker`)
	wantEqual(t, "pending in an empty schema", fromTo(1, 20), f.inspect().Pending())
	wantEqual(t, "objects", nil, f.catalog())
	// And a run does what was said.
	wantEqual(t, "applied", fromTo(1, 20), ids(f.up().Applied))
}

// A run that has nothing to apply could not help.
func TestInspectNamesWhatIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	f := newFixture(t, "")
	f.at22()
	f.sql(`drop function graphile_worker.worker_heartbeat`)
	status := f.inspect()
	var incomplete *migrate.MissingObjectsError
	if !errors.As(status.Refusal, &incomplete) {
		t.Fatalf("got %v", status.Refusal)
	}
	lost := []string{"function worker_heartbeat(text, json)"}
	wantEqual(t, "missing", lost, status.Missing)
	wantEqual(t, "missing", lost, incomplete.Missing)
	wantEqual(t, "schema", "graphile_worker", incomplete.Schema)

	// Of our own 20 a run would make it again.
	own := newMigrated(t)
	own.sql(`drop function graphile_worker.worker_heartbeat`)
	status = own.inspect()
	wantEqual(t, "pending", []int{20}, status.Pending())
	wantEqual(t, "missing", lost, status.Missing)
	if status.Refusal != nil {
		t.Errorf("refused: %v", status.Refusal)
	}
}

func TestCheckLedger(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	check := func() migrate.Ledger {
		t.Helper()
		ledger, err := migrate.CheckLedger(t.Context(), f.Pool, f.name)
		if err != nil {
			t.Fatal(err)
		}
		return ledger
	}
	wantEqual(t, "ledger of nothing", migrate.Ledger{}, check())
	f.sql(`create schema graphile_worker`)
	wantEqual(t, "ledger of an empty schema", migrate.Ledger{}, check())

	result := f.up()
	ledger := check()
	wantEqual(t, "ledger", result.Ledger, ledger)
	wantEqual(t, "installed", true, ledger.Installed)
	wantEqual(t, "revisions", fromTo(1, 20), ids(ledger.Revisions))
	wantEqual(t, "since nothing", ledger.Revisions, ledger.Since(migrate.Ledger{}))
	wantEqual(t, "since the same", nil, ids(ledger.Since(ledger)))
	before := ledger

	f.sql(`insert into graphile_worker.migrations (id, ts, breaking) values (24, '2030-01-02 03:04:05.678901+00', true)`)
	ledger, err := migrate.CheckLedger(t.Context(), f.Pool, f.name)
	f.wantIncompatible(err, migrate.IncompatibleError{Revision: 24, Breaking: 24, Supported: 22}, err.Error())
	wantEqual(t, "newest", 24, ledger.Newest)
	wantEqual(t, "since before", []int{24}, ids(ledger.Since(before)))
	last := ledger.Revisions[len(ledger.Revisions)-1]
	if want := time.Date(2030, 1, 2, 3, 4, 5, 678901000, time.UTC); !last.At.Equal(want) {
		t.Errorf("applied at %s, want %s", last.At, want)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := migrate.CheckLedger(ctx, f.Pool, f.name); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
}

func TestCheckLedgerWithoutBreaking(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	f.at10()
	f.sql(`alter table graphile_worker.migrations drop column breaking`)
	ledger, err := migrate.CheckLedger(t.Context(), f.Pool, f.name)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "newest", 10, ledger.Newest)
	var found []int
	for _, r := range ledger.Revisions {
		if r.Breaking {
			found = append(found, r.ID)
		}
	}
	wantEqual(t, "breaking revisions", []int{1, 3}, found)
	wantEqual(t, "columns", 2, one[int](f, `select count(*)::int from information_schema.columns
		where table_schema = 'graphile_worker' and table_name = 'migrations'`))
}
