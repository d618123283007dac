package gworker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// addedBySQL adds by the function, as Node and psql do.
func addedBySQL(t *testing.T, pool *pgxpool.Pool, args string, values ...any) (existed bool, id int64, state string) {
	t.Helper()
	scan(t, pool, "select existed, job_id, state from graphile_worker.gworker_add_unique("+args+")", values, &existed, &id, &state)
	return existed, id, state
}

// One JSON value written in several ways is the same payload, for the function and for the
// client alike, and other values are not.
func TestUniquePayloads(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	deep := func(inner string) string { return strings.Repeat("[", 5000) + inner + strings.Repeat("]", 5000) }
	for i, same := range [][]string{
		{`{}`, ` { } `, "{\n\t}"},
		{`{"a":1,"b":[true,null,"x"],"":{"d":1,"c":2}}`, `{"b":[ true ,null, "x" ],"a":1, "" : {"c":2,"d":1}}`},
		{`{"a":1,"b":[null,true,"x"],"":{"d":1,"c":2}}`},
		{`{"B":1,"a":2,"ä":3,"aa":4}`, `{"aa":4,"ä":3,"a":2,"B":1}`},
		{`12345678901234567890123456789`, ` 12345678901234567890123456789 `},
		{`12345678901234567890123456788`},
		{`1e400`}, {`1E400`}, {`1e0400`}, {`-0`}, {`0`}, {`1`}, {`1.0`}, {`1.00`}, {`10e-1`}, {`"1"`}, {`[1]`}, {`[]`}, {`null`}, {`""`}, {`false`},
		{`"é/\"\\\n\t"`, `"\u00e9\/\u0022\u005c\u000a\u0009"`, `"\u00E9/\"\\\n\t"`},
		{`"e\u0301"`}, // the same to see, and another text
		{`"😀"`, `"\ud83d\ude00"`, `"\uD83D\uDE00"`},
		{`{"\u0061":1}`, `{"a":1}`},
		{`{"a":1,"a":2}`, `{ "a":1, "\u0061" : 2}`}, {`{"a":2,"a":1}`}, {`{"a":2}`},
		{`"\u0000"`}, {`"\\u0000"`}, {`{"\u0000":1}`}, {`"\ud800"`}, {`"\udc00\ud800"`}, {`"\ud801"`}, {`"as written: \"\u0000\""`},
		{deep(""), " " + deep("") + "\n"}, {deep("1")}, {deep("2")}, {deep(" 2")}, // deep inside, as written
		{strings.Repeat("[", 49) + `{"b":1,"a":2}` + strings.Repeat("]", 49), strings.Repeat("[ ", 49) + `{"a":2,"b":1}` + strings.Repeat("]", 49)},
		{`"` + strings.Repeat("x", 100_000) + `"`}, {`"` + strings.Repeat("x", 100_001) + `"`},
	} {
		var first *gworker.JobRow
		for n, payload := range same {
			short := fmt.Sprintf("%d.%d: %.60s", i, n, payload)
			row, err := client.AddJob(t.Context(), hook(payload))
			switch {
			case err != nil:
				t.Fatalf("%s: %v", short, err)
			case n == 0 && !row.Added():
				t.Errorf("%s: the same as another one", short)
			case n > 0 && (row.Added() || row.ID != first.ID):
				t.Errorf("%s: not the same as %.60s", short, same[0])
			}
			if n == 0 {
				first = row
			}
			if existed, id, state := addedBySQL(t, pool, "'hook', '1 day', $1::text::json", payload); !existed || id != first.ID || state != "waiting" {
				t.Errorf("%s by SQL: %t %d %s", short, existed, id, state)
			}
			rows, err := client.AddJobs(t.Context(), []gworker.JobSpec{hook(payload)})
			if err != nil || rows[0].Added() || rows[0].ID != first.ID {
				t.Errorf("%s by AddJobs: %+v, %v", short, rows, err)
			}
		}
	}
}

// A database that cannot hold a character takes it as it is written.
func TestUniquePayloadsInAnotherEncoding(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t, testdb.EmptyIn(t, "LATIN1")+"&client_encoding=UTF8")
	client := newClient(t, pool)
	if err := client.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantAdded(t, add(t, client, hook(`"\u65e5"`)))
	wantAdded(t, add(t, client, hook(`"\u65e6"`)))
	first := add(t, client, hook(`"é"`))
	var version int
	scan(t, pool, "select current_setting('server_version_num')::int", nil, &version)
	if version < 130000 { // it decodes escapes beyond ASCII in UTF-8 only
		return
	}
	wantDuplicate(t, add(t, client, hook(`"\u00e9"`)), first, gworker.DuplicateWaiting)
}

// The function takes what add_job takes, by name, and does what the client does.
func TestUniqueBySQL(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	for name, test := range map[string]struct {
		args string
		spec gworker.JobSpec
	}{
		"payload":      {"identifier => 'a', unique_for => '1 hour', payload => '{\"b\":1, \"a\":2}'", gworker.JobSpec{Task: "a", Payload: json.RawMessage(`{"a":2,"b":1}`)}},
		"no payload":   {"'b', '1 hour'", gworker.JobSpec{Task: "b"}},
		"key":          {"'c', '1 hour', '[1]', 'k'", gworker.JobSpec{Task: "c", UniqueKey: "k"}},
		"empty key":    {"'d', '1 hour', unique_key => ''", gworker.JobSpec{Task: "d"}},
		"scope":        {"'e', '1 hour', '[7]', unique_scope => 'all'", gworker.JobSpec{Task: "x", Payload: []int{7}, UniqueScope: gworker.UniqueInAll}},
		"key in scope": {"'f', '1 hour', unique_key => 'k', unique_scope => 'all'", gworker.JobSpec{Task: "x", UniqueKey: "k", UniqueScope: gworker.UniqueInAll}},
		"all": {
			`'g', '1 hour', '[1]', 'all of it', 'task', queue_name => 'q', run_at => '2040-01-01Z', max_attempts => 3, job_key => 'key', priority => -4, flags => '{f}', job_key_mode => 'preserve_run_at'`,
			gworker.JobSpec{Task: "g", UniqueKey: "all of it"},
		},
		"unsafe dedupe": {"'h', '1 hour', job_key => 'dedupe', job_key_mode => 'unsafe_dedupe'", gworker.JobSpec{Task: "h", Key: "dedupe", KeyMode: gworker.KeyUnsafeDedupe}},
	} {
		existed, id, state := addedBySQL(t, pool, test.args)
		if existed || id == 0 || state != "waiting" {
			t.Errorf("%s: %t %d %s", name, existed, id, state)
		}
		test.spec.UniqueFor = time.Minute
		if row := add(t, client, test.spec); row.Duplicate == nil || row.ID != id {
			t.Errorf("%s: %+v", name, row)
		} else if left := row.Duplicate.ExpiresAt.Sub(row.Duplicate.AddedAt); left != time.Hour {
			t.Errorf("%s: for %s", name, left)
		}
		if existed, again, _ := addedBySQL(t, pool, test.args); !existed || again != id {
			t.Errorf("%s again: %t %d", name, existed, again)
		}
	}
	var got string
	scan(t, pool, `select concat_ws(' ', queue_name, run_at at time zone 'UTC', max_attempts, key, priority, flags) from graphile_worker.jobs where task_identifier = 'g'`, nil, &got)
	if want := `q 2040-01-01 00:00:00 3 key -4 {"f": true}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}

	// What is there by a job key is replaced, and then has the unique key.
	first := add(t, client, gworker.JobSpec{Task: "i", Key: "replaced"})
	if existed, id, _ := addedBySQL(t, pool, "'i', '1 hour', '[2]', job_key => 'replaced'"); existed || id != first.ID {
		t.Errorf("replaced: %t %d", existed, id)
	}
	if row := add(t, client, gworker.JobSpec{Task: "i", UniqueFor: time.Hour, Payload: []int{2}}); row.Duplicate == nil || row.Revision != 1 || row.Key != "replaced" {
		t.Errorf("%+v", row)
	}

	for args, says := range map[string]string{
		"'', '1 hour'":                           "identifier",
		"null, '1 hour'":                         "identifier",
		"'a', null":                              "unique_for is null",
		"'a', '0'":                               "unique_for",
		"'a', '-1 day'":                          "unique_for",
		"'a', '999 microseconds'":                "unique_for",
		"'a', '367 days'":                        "366 days",
		"'a', '1 hour', unique_scope => 'queue'": "unique_scope",
		"'a', '1 hour', unique_key => repeat('ü', 513)":             "513 characters",
		"'a', '1 hour', job_key => 'k', job_key_mode => 'whatever'": "job_key_mode",
	} {
		_, err := pool.Exec(t.Context(), "select graphile_worker.gworker_add_unique("+args+")")
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestUniqueRefuses(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	for field, specs := range map[string][]gworker.JobSpec{
		"UniqueFor": {{UniqueFor: -time.Hour}, {UniqueFor: 1}, {UniqueFor: time.Millisecond - 1}, {UniqueFor: gworker.MaxUniqueFor + 1}},
		"UniqueKey": {
			{UniqueKey: "k"}, {UniqueKey: strings.Repeat("ü", 513), UniqueFor: time.Hour}, {UniqueKey: "a\x00b", UniqueFor: time.Hour},
			{UniqueKey: "\xff", UniqueFor: time.Hour},
		},
		"UniqueScope": {{UniqueScope: gworker.UniqueInAll}, {UniqueScope: gworker.UniqueInTask}, {UniqueScope: "queue", UniqueFor: time.Hour}},
	} {
		for _, spec := range specs {
			spec.Task = "x"
			var wrong *gworker.FieldError
			if _, err := client.AddJob(t.Context(), spec); !errors.As(err, &wrong) || wrong.Field != "JobSpec."+field {
				t.Errorf("%+v: %v", spec, err)
			}
			if _, err := client.AddJobs(t.Context(), []gworker.JobSpec{{Task: "y"}, spec}); !errors.As(err, &wrong) || wrong.Field != "specs[1]."+field {
				t.Errorf("%+v: %v", spec, err)
			}
			if err := spec.Validate(); !errors.As(err, &wrong) {
				t.Errorf("%+v: %v", spec, err)
			}
		}
	}
	for _, spec := range []gworker.JobSpec{
		{UniqueFor: time.Millisecond}, {UniqueFor: gworker.MaxUniqueFor}, {UniqueFor: time.Hour, UniqueKey: strings.Repeat("日", 512)},
	} {
		spec.Task = strings.Repeat("日", 128)
		wantAdded(t, add(t, client, spec))
	}
}

// Texts of strangers are keys like others, and mean nothing else.
func TestUniqueHostileKeys(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	keys := []string{
		"'", `"`, `\`, `'; drop table graphile_worker._gworker_unique; --`, "{a,b}", "null", "NULL", " ", "\n", "key:", "payload:", "key:x", "x",
		"$1", "$gw$", "%", "_", "a\u202eb", "\U0001F600", "e\u0301", "\u00e9", strings.Repeat("\\", 512), strings.Repeat(`"`, 512),
	}
	var specs []gworker.JobSpec
	for i, key := range keys {
		spec := gworker.JobSpec{Task: fmt.Sprintf(`t"'\{} %d`, i), UniqueFor: time.Hour, UniqueKey: key, UniqueScope: gworker.UniqueInAll}
		specs = append(specs, spec)
		wantAdded(t, add(t, client, spec))
	}
	rows, err := client.AddJobs(t.Context(), specs)
	if err != nil || len(rows) != len(keys) {
		t.Fatal(err)
	}
	for i, row := range rows {
		if row.Duplicate == nil || row.Task != specs[i].Task {
			t.Errorf("%q: %+v", keys[i], row)
		}
		if existed, id, _ := addedBySQL(t, pool, "'x', '1 hour', unique_scope => 'all', unique_key => $1", keys[i]); !existed || id != row.ID {
			t.Errorf("%q by SQL: %t %d", keys[i], existed, id)
		}
	}
}

// Without the tables of gworker's own, the error says how to get them, and other jobs are added.
func TestUniqueWithoutTables(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t, testdb.Empty(t))
	bare, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, NoHistory: true})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(when string, want error) {
		t.Helper()
		_, one := bare.AddJob(t.Context(), hook(`{}`))
		_, many := bare.AddJobs(t.Context(), []gworker.JobSpec{{Task: "x"}, hook(`{}`)})
		inTx := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := bare.WithTx(tx).AddJob(t.Context(), hook(`{}`))
			return err
		})
		for _, err := range []error{one, many, inTx} {
			if !errors.Is(err, want) || want == gworker.ErrNoUnique && !strings.Contains(err.Error(), "migrate makes it") {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	refused("nothing is there", gworker.ErrNotInstalled)
	if err := bare.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused("no history", gworker.ErrNoUnique)
	client := newClient(t, pool)
	if err := client.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantAdded(t, add(t, bare, hook(`{}`)))
	wantAdded(t, add(t, bare, gworker.JobSpec{Task: "x"}))
	exec(t, pool, "alter table graphile_worker._gworker_unique rename to gone")
	refused("the table is gone", gworker.ErrNoUnique)
	exec(t, pool, "alter table graphile_worker.gone rename to _gworker_unique")

	if err := client.UninstallHistory(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left string
	scan(t, pool, `select coalesce(string_agg(name, ', '), '') from (
		select relname from pg_class where relnamespace = 'graphile_worker'::regnamespace
		union all select proname from pg_proc where pronamespace = 'graphile_worker'::regnamespace
	) o (name) where name like '%gworker%'`, nil, &left)
	if left != "" {
		t.Errorf("left: %s", left)
	}
	refused("uninstalled", gworker.ErrNoUnique)
	if err := client.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantAdded(t, add(t, client, hook(`{}`)))
}

// A database of before gets what is missing, and keeps what it has.
func TestUniqueOnASchemaOfBefore(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	exec(t, pool, `drop table graphile_worker._gworker_unique;
		drop function graphile_worker.gworker_add_unique, graphile_worker._gworker_unique_job, graphile_worker._gworker_unique_key, graphile_worker._gworker_unique_settle,
			graphile_worker._gworker_unique_sweep, graphile_worker._gworker_unique_take, graphile_worker._gworker_unique_text;
		delete from graphile_worker._gworker_migrations where id = 2; comment on table graphile_worker._gworker_journal is 'gworker history 1'`)
	if _, err := client.AddJob(t.Context(), hook(`{}`)); !errors.Is(err, gworker.ErrNoUnique) {
		t.Fatal(err)
	}
	// A worker that starts brings it there, too.
	runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask("hook", nothing)}})
	wantAdded(t, add(t, client, hook(`{}`)))
}

// A key counts only with the job that was added under it.
func TestUniqueKeysNeedJobs(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	exec(t, pool, "select graphile_worker._gworker_unique_take('{key:k}', '{hook}', '{hook}', '{1 day}')")
	spec := gworker.JobSpec{Task: "hook", UniqueKey: "k", UniqueFor: time.Hour}
	first := add(t, client, spec)
	wantAdded(t, first)
	// A job that is not there, one of another transaction, and a key that was not taken.
	const taken = "select graphile_worker._gworker_unique_take('{key:l}', '{hook}', '{hook}', '{1 day}')"
	for _, statements := range [][]string{
		{taken, "select graphile_worker._gworker_unique_settle('{key:l}', '{hook}', '{99}')"},
		{taken, fmt.Sprintf("select graphile_worker._gworker_unique_settle('{key:l}', '{hook}', '{%d}')", first.ID)},
		{"select graphile_worker._gworker_unique_settle('{key:m}', '{hook}', array[(graphile_worker.add_job('hook')).id])"},
	} {
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			for _, sql := range statements {
				if _, err := tx.Exec(t.Context(), sql); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "not added by this transaction") {
			t.Errorf("%s: %v", statements, err)
		}
	}
	// An add that fails after its key was taken leaves the key free.
	exec(t, pool, `create function refuse() returns trigger language plpgsql as 'begin raise ''no''; end';
		create trigger refuse before insert on graphile_worker._private_jobs for each row execute function refuse()`)
	spec.UniqueKey = "refused"
	if _, err := client.AddJob(t.Context(), spec); err == nil {
		t.Error("it was added")
	}
	exec(t, pool, "drop trigger refuse on graphile_worker._private_jobs")
	wantAdded(t, add(t, client, spec))
}
