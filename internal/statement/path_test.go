package statement_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

var (
	literals = regexp.MustCompile(`'(?:[^']|'')*'`)
	comments = regexp.MustCompile(`(?m)^\s*--[^\n]*$`)
	calls    = regexp.MustCompile(`[\w.@:"]*\b([a-z_][a-z_0-9]*)\(`)
)

// unqualified returns the calls of built-in functions in a text that do not say that
// they mean pg_catalog's.
func unqualified(t *testing.T, conn *pgx.Conn, text string) (names []string) {
	t.Helper()
	text = literals.ReplaceAllString(comments.ReplaceAllString(text, ""), "''")
	for _, call := range calls.FindAllStringSubmatch(text, -1) {
		if strings.Contains(call[0], ".") || strings.HasPrefix(call[0], ":") {
			continue
		}
		var is bool
		err := conn.QueryRow(t.Context(), `select exists (select from pg_proc p where p.proname = $1 and pronamespace = 'pg_catalog'::regnamespace)
			and not exists (select from pg_get_keywords() k where k.word = $1 and k.catcode in ('C', 'R', 'T'))`, call[1]).Scan(&is)
		if err != nil {
			t.Fatal(err)
		}
		if is {
			names = append(names, call[1])
		}
	}
	return names
}

// TestStatementsMeanPgCatalog: no statement and no function calls anything of a schema
// in the search path, which others may write to.
func TestStatementsMeanPgCatalog(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	pool := testdb.Pool(t, testdb.Migrated(t))
	held, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	conn := held.Conn()
	if version := conn.PgConn().ParameterStatus("server_version"); strings.HasPrefix(version, "12.") || strings.HasPrefix(version, "13.") {
		t.Skipf("PostgreSQL %s keeps no record of what a function's body depends on: begin atomic came with 14", version)
	}
	if _, err := conn.Exec(t.Context(), testdb.Traps); err != nil {
		t.Fatal(err)
	}
	set := statement.NewSet(statement.Options{})

	for _, text := range dbgen.Texts {
		name := statement.Name(text)
		if names := unqualified(t, conn, text); len(names) > 0 {
			t.Errorf("%s: calls %v without pg_catalog", name, names)
		}
		described, err := conn.Prepare(t.Context(), name, set.Text(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if found := trapped(t, conn, set.Text(text), described.ParamOIDs); found != "" {
			t.Errorf("%s: %s", name, found)
		}
	}

	rows, err := conn.Query(t.Context(), `select p.proname, p.prosrc, l.lanname, p.proargtypes::oid[]
		from pg_proc p join pg_language l on l.oid = p.prolang where p.pronamespace = 'graphile_worker'::regnamespace`)
	if err != nil {
		t.Fatal(err)
	}
	type function struct {
		Name, Source, Language string
		Types                  []uint32
	}
	functions, err := pgx.CollectRows(rows, pgx.RowToStructByPos[function])
	if err != nil || len(functions) == 0 {
		t.Fatal(err)
	}
	for _, f := range functions {
		if names := unqualified(t, conn, f.Source); len(names) > 0 {
			t.Errorf("function %s: calls %v without pg_catalog", f.Name, names)
		}
	}

	// The functions' operators are found as they run.
	for _, sql := range []string{
		"select graphile_worker.add_job('t', '[1]', 'q', now(), 3, 'k', 1, array['f'])",
		"select graphile_worker.add_job('t', '[2]', 'q', null, 3, 'k', 1, array['f'], 'preserve_run_at')",
		"select graphile_worker.add_job('t', '[3]', job_key := 'k', job_key_mode := 'unsafe_dedupe')",
		"select graphile_worker.add_job('t', '[3]', job_key := 'k2', job_key_mode := 'unsafe_dedupe')",
		`select graphile_worker.add_jobs(array[('t', '[1]', 'q', null, null, 'k', null, null), ('u', null, null, null, null, null, null, array['g'])]::graphile_worker.job_spec[], true)`,
		"update graphile_worker._private_jobs set locked_by = 'w', locked_at = now() - interval '5 hours' where key = 'k'",
		"select graphile_worker.add_job('t', job_key := 'k')",
		`select graphile_worker.gworker_add_unique('t', '1 day', '{"b":["\u0061\u0000",2],"a":{}}'), graphile_worker.gworker_add_unique('t', '1 day', '{"b":"\u0061","a":1}')`,
		"select graphile_worker.gworker_add_unique('t', '1 day', unique_key := 'k', unique_scope := 'all') from generate_series(1, 2)",
		"select graphile_worker._gworker_unique_sweep(9)",
		"select graphile_worker.remove_job('k'), graphile_worker.remove_job('k2')",
		"select graphile_worker.reschedule_jobs(array[1, 2, 3]::bigint[], now(), 1, 2, 3)",
		"select graphile_worker.permanently_fail_jobs(array[1, 2, 3]::bigint[], 'x')",
		"select graphile_worker.complete_jobs(array[1, 2]::bigint[])",
		"select graphile_worker.worker_heartbeat('w', '{}'), graphile_worker.list_stale_workers('1s'), graphile_worker.list_orphan_locked_workers('1s')",
		"select graphile_worker.recover_dead_worker_jobs(array['w'], '1s'), graphile_worker.force_unlock_workers(array['w'])",
		"select graphile_worker.delete_stale_workers(array['w']), graphile_worker.worker_deregister('w')",
	} {
		tx, err := conn.Begin(t.Context())
		if err == nil {
			_, err = tx.Exec(t.Context(), "set local search_path to trap, public")
		}
		if err == nil {
			_, err = tx.Exec(t.Context(), sql)
		}
		if err != nil {
			t.Errorf("%s: %v", sql, err)
		}
		if err := tx.Commit(context.Background()); err != nil && !strings.Contains(err.Error(), "rollback") {
			t.Fatal(err)
		}
	}
}

// trapped tells what of the trap schema a statement would call: a function of it as the
// body depends on what it calls.
func trapped(t *testing.T, conn *pgx.Conn, text string, params []uint32) string {
	t.Helper()
	body := strings.TrimSpace(comments.ReplaceAllString(text, ""))
	if first, _, _ := strings.Cut(body, " "); !strings.Contains("with select insert update delete", strings.TrimSpace(strings.Split(first, "\n")[0])) {
		return ""
	}
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	var types []string
	for _, oid := range params {
		var name string
		if err := tx.QueryRow(t.Context(), "select format_type($1, null)", oid).Scan(&name); err != nil {
			t.Fatal(err)
		}
		types = append(types, name)
	}
	_, err = tx.Exec(t.Context(), fmt.Sprintf("set local search_path to trap; create function trap.probe(%s) returns void begin atomic %s; end",
		strings.Join(types, ", "), strings.TrimSuffix(body, ";")), pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err.Error()
	}
	if _, err := tx.Exec(t.Context(), "set local search_path to pg_catalog"); err != nil {
		t.Fatal(err)
	}
	var found string
	err = tx.QueryRow(t.Context(), `select coalesce(string_agg(distinct o.oid::regoperator::text, ', '), '')
		from pg_depend d join pg_operator o on o.oid = d.refobjid and d.refclassid = 'pg_operator'::regclass
		where d.objid = (select p.oid from pg_proc p where p.proname = 'probe') and d.classid = 'pg_proc'::regclass
		and o.oprnamespace = 'trap'::regnamespace`).Scan(&found)
	if err != nil {
		t.Fatal(err)
	}
	return found
}
