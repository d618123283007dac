package migrate_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/testdb"
)

// wantLedgerError shows that looking and migrating both say what is wrong, and that
// nothing is changed.
func (f fixture) wantLedgerError(parts ...string) *migrate.LedgerError {
	f.t.Helper()
	before := f.catalog()
	_, err := migrate.Up(f.t.Context(), f.Pool, migrate.Options{Schema: f.name})
	var wrong *migrate.LedgerError
	for what, err := range map[string]error{"Up": err, "Inspect": f.inspect().Refusal} {
		if !errors.As(err, &wrong) || strings.Contains(err.Error(), "\n") {
			f.t.Fatalf("%s: got error %v", what, err)
		}
		for _, part := range parts {
			wantContains(f.t, err.Error(), part)
		}
	}
	wantEqual(f.t, "catalog", before, f.catalog())
	return wrong
}

func TestLedgerOfAnotherProgram(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, table := range map[string]string{
		"names":        `(id serial primary key, migration text, batch int); insert into graphile_worker.migrations values (1, 'a', 1)`,
		"empty":        `(id serial primary key, migration text, batch int)`,
		"texts":        `(id text primary key, ts timestamptz default now(), breaking bool default false); insert into graphile_worker.migrations values ('20200101_users')`,
		"times as ids": `(id bigint primary key, ts timestamptz default now(), breaking bool default false); insert into graphile_worker.migrations values (20200101000000)`,
		"one column":   `(version text)`,
		"other ts":     `(id int primary key, ts text); insert into graphile_worker.migrations values (3, 'monday')`,
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newMigrated(t)
			f.script(`drop table graphile_worker.migrations; create table graphile_worker.migrations ` + table)
			f.wantLedgerError(`"graphile_worker"."migrations"`, "another program's", "another schema")
			if _, err := migrate.CheckLedger(t.Context(), f.Pool, f.name); err == nil {
				t.Error("CheckLedger found nothing wrong")
			}
			f.script(`drop schema graphile_worker cascade; create schema graphile_worker; create table graphile_worker.migrations ` + table)
			f.wantLedgerError("another program's")
		})
	}
}

func TestLedgerThatLostRows(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, lose := range map[string]string{
		"all": "true", "above 5": "id > 5", "above 10": "id > 10", "above 12": "id > 12", "above 15": "id > 15",
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newMigrated(t)
			f.seed(18)
			contents := f.contents()
			f.sql(`delete from graphile_worker.migrations where ` + lose)
			wrong := f.wantLedgerError("rows were deleted", "Put them back")
			// What it says helps.
			_, repair, _ := strings.Cut(wrong.Error(), "migrate then: ")
			f.sql(repair)
			f.up()
			f.wantCatalog("revision-20-rust.txt")
			wantEqual(t, "contents", contents, f.contents())
		})
	}
	f := newFixture(t, "")
	f.at10()
	f.sql(`truncate graphile_worker.migrations`)
	_, _, err := f.tryUp()
	if err == nil {
		t.Fatal("migrated tables whose rows are lost")
	}
	wantContains(t, err.Error(), "or the ledger has lost rows (it records revisions up to 0)")
}
