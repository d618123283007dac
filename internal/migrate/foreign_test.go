package migrate_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What other runtimes leave, built again from the listings. The functions are
// empty but for what a run may look at.

const (
	nodeBody = "begin raise exception 'the function of another runtime'; end"
	rustBody = "begin raise exception 'the function of another runtime' using errcode = 'GWNOR'; end"
)

var (
	functionLine = regexp.MustCompile(`^function (.*\)) returns (.*?) language (sql|plpgsql)( strict)?$`)
	triggerLine  = regexp.MustCompile(`^trigger (.*)$`)
)

// functions makes the functions and triggers of a listing.
func (f fixture) functions(file, body string) {
	f.t.Helper()
	f.functionsOf(strings.Split(testfile(f.t, file), "\n"), body)
}

func (f fixture) functionsOf(listing []string, body string) {
	f.t.Helper()
	var text strings.Builder
	for _, line := range listing {
		if m := functionLine.FindStringSubmatch(line); m != nil {
			fmt.Fprintf(&text, "create or replace function graphile_worker.%s returns %s language %s%s as $gw$ %s $gw$;\n",
				m[1], m[2], m[3], m[4], foreignBody(m[3], m[2], body))
		}
		if m := triggerLine.FindStringSubmatch(line); m != nil {
			fmt.Fprintf(&text, "%s;\n", m[1])
		}
	}
	f.script(text.String())
}

func foreignBody(language, returns, body string) string {
	switch {
	case language == "plpgsql" && returns == "trigger":
		return "begin return coalesce(new, old); end"
	case language == "plpgsql":
		return body
	case returns == "void":
		return "select"
	case strings.HasPrefix(returns, "TABLE"):
		return "select 'nobody'::text limit 0"
	}
	return "select * from " + strings.TrimPrefix(returns, "SETOF ") + " limit 0"
}

func (f fixture) dropFunctions() {
	f.t.Helper()
	f.sql(`do $gw$ declare f regprocedure; begin
		for f in select p.oid from pg_proc p join pg_class c on c.relnamespace = p.pronamespace
			where c.oid = (select tableoid from graphile_worker.migrations limit 1)
		loop execute 'drop function ' || f || ' cascade'; end loop; end $gw$`)
}

// listingAt is what there is at a revision up to 18, added up from the changes.
func listingAt(t testing.TB, revision int) []string {
	t.Helper()
	var lines []string
	for _, section := range changeSection.FindAllStringSubmatch(testfile(t, "changes.md"), -1)[:revision] {
		for line := range strings.Lines(section[2]) {
			line = strings.TrimSuffix(line, "\n")
			if gone, ok := strings.CutPrefix(line, "< "); ok {
				lines = slices.DeleteFunc(lines, func(l string) bool { return l == gone })
			}
			if made, ok := strings.CutPrefix(line, "> "); ok {
				lines = append(lines, made)
			}
		}
	}
	return lines
}

// at is a schema as Node left it at a revision up to 18, with its functions and
// triggers of the time.
func (f fixture) at(revision int) {
	f.t.Helper()
	f.install(revision)
	f.dropFunctions()
	f.functionsOf(listingAt(f.t, revision), nodeBody)
}

// at10 is a schema as Node left it at revision 10.
func (f fixture) at10() {
	f.t.Helper()
	f.install(10)
	f.functions("revision-10.txt", nodeBody)
}

// at18 is a schema as Node and Rust left it at revision 18.
func (f fixture) at18() {
	f.t.Helper()
	f.install(18)
	f.dropFunctions()
	f.functions("revision-18.txt", nodeBody)
}

// at20Node is a schema as Node 0.18 leaves it.
func (f fixture) at20Node() {
	f.t.Helper()
	f.at18()
	f.sql(`insert into graphile_worker.migrations (id, ts, breaking)
		values (19, '2024-01-19', true), (20, '2024-01-20', false)`)
}

// at19Rust is a schema as Rust has it at revision 19.
func (f fixture) at19Rust() {
	f.t.Helper()
	f.install(18)
	f.dropFunctions()
	f.functions("revision-18.txt", rustBody)
	f.sql(`insert into graphile_worker.migrations (id, ts) values (19, '2025-01-19')`)
}

// at20Rust is a schema as Rust has it at revision 20.
func (f fixture) at20Rust() {
	f.t.Helper()
	f.install(18)
	f.dropFunctions()
	f.script(`
		create table graphile_worker._private_workers (
			id text constraint _private_workers_pkey primary key,
			last_heartbeat_at timestamptz not null,
			started_at timestamptz not null default now(),
			metadata jsonb
		);
		create index _private_workers_last_heartbeat_at_idx on graphile_worker._private_workers (last_heartbeat_at);
		insert into graphile_worker.migrations (id, ts) values (19, '2025-01-19'), (20, '2025-01-20');`)
	f.functions("revision-20-rust.txt", rustBody)
}

// at22 is a schema as Rust has it at revision 22.
func (f fixture) at22() {
	f.t.Helper()
	f.at20Rust()
	f.script(`
		create table graphile_worker._private_job_retirements (
			id bigint constraint _private_job_retirements_pkey primary key,
			constraint _private_job_retirements_id_fkey foreign key (id)
				references graphile_worker._private_jobs (id) on delete cascade
		);
		insert into graphile_worker.migrations (id, ts) values (21, '2025-01-21'), (22, '2025-01-22');
		drop function graphile_worker.reschedule_jobs(bigint[], timestamptz, int, int, int);`)
	f.functions("revision-22.txt", rustBody)
}
