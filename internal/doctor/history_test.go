package doctor_test

import (
	"testing"

	"github.com/gworker/gworker/internal/doctor"
	"github.com/gworker/gworker/internal/migrate"
)

func TestHistoryThatCannotBeRecorded(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	p := healthyIn(t, oddName)
	want(t, p.examine(), "history", doctor.OK, "no tables")
	if err := migrate.UpHistory(t.Context(), p.pool, p.name); err != nil {
		t.Fatal(err)
	}
	want(t, p.examine(), "history", doctor.OK, "can be recorded")

	p.do("do $do$ declare part text; begin select c.oid::regclass into part from pg_class c where c.relname = '_gworker_events_' || to_char(now() at time zone 'UTC' + interval '6 days', 'YYYYMMDD'); execute 'drop table ' || part; end $do$")
	r := p.examine()
	want(t, r, "history", doctor.Warning, "for a day")
	p.helps(r, "history")
	want(t, p.examine(), "history", doctor.OK, "can be recorded")

	p.do("comment on table graphile_worker._gworker_journal is 'gworker history 999999999'")
	want(t, p.examine(), "history", doctor.OK, "can be recorded") // by a later gworker
}
