package migrate_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/testdb"
)

// jobs prints what there is of each job. "now" is the time of the last change.
func (f fixture) jobs() []string {
	f.t.Helper()
	return f.lines(`select concat_ws(' ', t.identifier, 'in ' || q.queue_name, j.payload,
			'at ' || case when j.run_at = j.updated_at then 'now' else (j.run_at at time zone 'utc')::date::text end,
			'p' || j.priority, j.attempts || '/' || j.max_attempts, 'key=' || j.key, 'r' || j.revision, j.flags,
			'error=' || j.last_error, 'by ' || j.locked_by, case when j.updated_at > j.created_at then 'touched' end)
		from graphile_worker._private_jobs j join graphile_worker._private_tasks t on t.id = j.task_id
		left join graphile_worker._private_job_queues q on q.id = j.job_queue_id order by j.id`)
}

func TestAddJob(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for call, want := range map[string]string{
		`'t'`: "t {} at now p0 0/25 r0",
		`'t', null, null, null, null, null, null, null, null`:                                  "t {} at now p0 0/25 r0",
		`'a/b', '{"x" : 1}', 'q', '2023-05-06 12:00Z', 3, 'k', -5, '{b,a,b}'`:                  `a/b in q {"x" : 1} at 2023-05-06 p-5 0/3 key=k r0 {"a": true, "b": true}`,
		`'a/b', '{"x" : 1}', 'q', '2023-05-06 12:00Z', 3, 'k', -5, '{b}', 'preserve_run_at'`:   `a/b in q {"x" : 1} at 2023-05-06 p-5 0/3 key=k r0 {"b": true}`,
		`'a/b', '{"x" : 1}', 'q', '2023-05-06 12:00Z', 3, 'k', -5, '{b,a,b}', 'unsafe_dedupe'`: `a/b in q {"x" : 1} at 2023-05-06 p-5 0/3 key=k r0 {"a": true, "b": true}`,
		`'t', 'null', flags := '{}'`:                           "t null at now p0 0/25 r0",
		`'t', job_key_mode := 'unknown'`:                       "t {} at now p0 0/25 r0", // a mode without a key means nothing
		`'t', job_key := 'k', job_key_mode := 'unsafe_dedupe'`: "t {} at now p0 0/25 key=k r0",
		fmt.Sprintf(`'%s'`, strings.Repeat("ü", 128)):          strings.Repeat("ü", 128) + " {} at now p0 0/25 r0",
		`'t', job_key := repeat('k', 512)`:                     "t {} at now p0 0/25 key=" + strings.Repeat("k", 512) + " r0",
		`'t', queue_name := repeat('q', 128)`:                  "t in " + strings.Repeat("q", 128) + " {} at now p0 0/25 r0",
	} {
		t.Run(call[:min(len(call), 60)], func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newMigrated(t)
			f.sql(`select graphile_worker.add_job(` + call + `)`)
			wantEqual(t, "jobs", []string{want}, f.jobs())
		})
	}
}

func TestAddJobRefuses(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	for call, state := range map[string]string{
		`repeat('t', 129)`:                               "23514",
		`'t', queue_name := repeat('q', 129)`:            "23514",
		`'t', job_key := repeat('k', 513)`:               "23514",
		`'t', job_key := ''`:                             "23514",
		`'t', max_attempts := 0`:                         "23514",
		`'t', max_attempts := 32768`:                     "22003",
		`'t', priority := -32769`:                        "22003",
		`null`:                                           "23502",
		`'t', job_key := 'k', job_key_mode := ''`:        "GWBKM",
		`'t', job_key := 'k', job_key_mode := 'Replace'`: "GWBKM",
	} {
		wantState(t, f.try(`select graphile_worker.add_job(`+call+`)`), state)
	}
	answer := wantState(t, f.try(`select graphile_worker.add_job('t', job_key := 'k', job_key_mode := 'odd')`), "GWBKM")
	wantEqual(t, "text", `Unknown job_key_mode "odd": it is replace, preserve_run_at or unsafe_dedupe`, answer.Message)
	wantEqual(t, "jobs", nil, f.jobs())
}

// What becomes of a job whose key is used again.
func TestAddJobWithAKnownKey(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	const old = `add_job('old', '{"o" : 1}', 'q', '2023-01-01', 5, 'k', 3, '{f}')`
	const oldArray = `add_job('old', '[ 1, "two" ]', 'q', '2023-01-01', 5, 'k', 3, '{f}')`
	for what, test := range map[string]struct {
		old, change, call string
		want              []string
	}{
		"replaced": {
			old, `attempts = 2, last_error = 'e', revision = 7`, `'new', job_key := 'k'`,
			[]string{"new {} at now p0 0/25 key=k r8 touched"},
		},
		"replaced in all": {
			old, ``, `'new', '[1]', 'r', '2023-02-02', 7, 'k', 9, '{g}', 'replace'`,
			[]string{`new in r [1] at 2023-02-02 p9 0/7 key=k r1 {"g": true} touched`},
		},
		"replaced without a mode": {
			old, ``, `'new', job_key := 'k', run_at := '2023-02-02', job_key_mode := null`,
			[]string{"new {} at 2023-02-02 p0 0/25 key=k r1 touched"},
		},
		"run_at kept": {
			old, ``, `'new', job_key := 'k', run_at := '2023-02-02', job_key_mode := 'preserve_run_at'`,
			[]string{"new {} at 2023-01-01 p0 0/25 key=k r1 touched"},
		},
		"run_at not kept after an attempt": {
			old, `attempts = 1`, `'new', job_key := 'k', run_at := '2023-02-02', job_key_mode := 'preserve_run_at'`,
			[]string{"new {} at 2023-02-02 p0 0/25 key=k r1 touched"},
		},
		"arrays joined": {
			oldArray, ``, `'new', '[ {"x" : null} , []]', job_key := 'k'`,
			[]string{`new [1, "two", {"x" : null}, []] at now p0 0/25 key=k r1 touched`},
		},
		"arrays joined after an attempt": {
			oldArray, `attempts = 1`, `'new', '[3]', job_key := 'k'`,
			[]string{`new [1, "two", 3] at now p0 0/25 key=k r1 touched`},
		},
		"empty arrays joined": {
			`add_job('old', '[]', job_key := 'k')`, ``, `'new', '[]', job_key := 'k'`,
			[]string{`new [] at now p0 0/25 key=k r1 touched`},
		},
		"an array and an object": {
			oldArray, ``, `'new', '{"n":1}', job_key := 'k'`,
			[]string{`new {"n":1} at now p0 0/25 key=k r1 touched`},
		},
		"an object and an array": {
			old, ``, `'new', '[1]', job_key := 'k'`,
			[]string{`new [1] at now p0 0/25 key=k r1 touched`},
		},
		"one that runs": {
			oldArray, `attempts = 1, locked_by = 'w', locked_at = now()`, `'new', '[3]', job_key := 'k', job_key_mode := 'preserve_run_at'`,
			[]string{
				`old in q [ 1, "two" ] at 2023-01-01 p3 5/5 r0 {"f": true} by w touched`,
				`new [3] at now p0 0/25 key=k r0`,
			},
		},
		"one that has failed": {
			old, `attempts = 5, last_error = 'e'`, `'new', job_key := 'k'`,
			[]string{
				`old in q {"o" : 1} at 2023-01-01 p3 5/5 r0 {"f": true} error=e touched`,
				`new {} at now p0 0/25 key=k r0`,
			},
		},
		"deduplicated": {
			old, `attempts = 2, last_error = 'e'`, `'new', '[3]', 'r', '2023-02-02', 7, 'k', 9, '{g}', 'unsafe_dedupe'`,
			[]string{`old in q {"o" : 1} at 2023-01-01 p3 2/5 key=k r1 {"f": true} error=e touched`},
		},
		"deduplicated while it runs": {
			old, `attempts = 1, locked_by = 'w', locked_at = now()`, `'new', job_key := 'k', job_key_mode := 'unsafe_dedupe'`,
			[]string{`old in q {"o" : 1} at 2023-01-01 p3 1/5 key=k r1 {"f": true} by w touched`},
		},
		"deduplicated after it failed": {
			old, `attempts = 5`, `'new', job_key := 'k', job_key_mode := 'unsafe_dedupe'`,
			[]string{`old in q {"o" : 1} at 2023-01-01 p3 5/5 key=k r1 {"f": true} touched`},
		},
		"another key": {
			old, ``, `'new', job_key := 'K'`,
			[]string{`old in q {"o" : 1} at 2023-01-01 p3 0/5 key=k r0 {"f": true}`, "new {} at now p0 0/25 key=K r0"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newMigrated(t)
			f.sql(`select graphile_worker.` + test.old)
			if test.change != "" {
				f.sql(`update graphile_worker._private_jobs set ` + test.change)
			}
			// What comes back is the row as it is then.
			returned := one[string](f, `select row_to_json(j)::text from graphile_worker.add_job(`+test.call+`) j`)
			wantMember(t, returned, f.lines(`select row_to_json(j)::text from graphile_worker._private_jobs j`))
			wantEqual(t, "jobs", test.want, f.jobs())
		})
	}
}

func TestAddJobsKeepsTheOrder(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	// The keyed one is there already and keeps its id, but not its place.
	f.sql(`select graphile_worker.add_job('before', job_key := 'k50')`)
	returned := f.lines(`select j.key from graphile_worker.add_jobs(array(
		select row('t' || n % 7, n::text, case when n % 3 = 0 then 'q' || n % 5 end, null, null, 'k' || n, null, null)::graphile_worker.job_spec
		from generate_series(100, 1, -1) n)) j`)
	var keys, kept []string
	for n := 100; n >= 1; n-- {
		keys = append(keys, fmt.Sprintf("k%d", n))
		if n != 50 {
			kept = append(kept, fmt.Sprintf("k%d", n))
		}
	}
	wantEqual(t, "returned", keys, returned)
	wantEqual(t, "by id", append([]string{"k50"}, kept...), f.lines(`select key from graphile_worker.jobs order by id`))
	wantEqual(t, "jobs with another's spec", nil, f.lines(`select v.key from graphile_worker.jobs v
		join graphile_worker._private_jobs j using (id), substr(v.key, 2) n
		where j.payload::text <> n or v.task_identifier <> 't' || n::int % 7
			or v.queue_name is distinct from case when n::int % 3 = 0 then 'q' || n::int % 5 end`))
}

func TestAddJobs(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	count := func(specs string) int {
		return one[int](f, `select count(*)::int from graphile_worker.add_jobs(`+specs+`)`)
	}
	wantEqual(t, "jobs of none", 0, count(`'{}'`))
	wantEqual(t, "jobs of null", 0, count(`null`))
	const spec = `('%s', '%s', null, '%s', 4, '%s', 2, '{f}')::graphile_worker.job_spec`
	one := fmt.Sprintf(spec, "a", "[1]", "2023-01-01", "k")
	two := fmt.Sprintf(spec, "b", "[2]", "2023-02-02", "l")
	wantEqual(t, "jobs of two", 2, count(`array[`+one+`, `+two+`]`))
	again := strings.ReplaceAll(one, "2023-01-01", "2023-03-03")
	wantEqual(t, "jobs of one", 1, count(`array[`+again+`], true`))
	wantEqual(t, "jobs", []string{
		`a [1, 1] at 2023-01-01 p2 0/4 key=k r1 {"f": true} touched`,
		`b [2] at 2023-02-02 p2 0/4 key=l r0 {"f": true}`,
	}, f.jobs())
	wantEqual(t, "jobs of the other", 1, count(`array[`+strings.ReplaceAll(again, "[1]", "{}")+`], false`))
	wantMember(t, `a {} at 2023-03-03 p2 0/4 key=k r2 {"f": true} touched`, f.jobs())

	// Nothing of a call is left if the database refuses one of it.
	before := f.jobs()
	wantState(t, f.try(`select graphile_worker.add_jobs(array[`+two+`, `+one+`, `+again+`])`), "21000")
	wantEqual(t, "jobs", before, f.jobs())
}

// Identities are int4, and a queue of work would use them up.
func TestAddingUsesUpNoIdentities(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	add := func() {
		f.sql(`select graphile_worker.add_job('t', queue_name := 'q')`)
		f.sql(`select graphile_worker.add_job('t', queue_name := 'q', job_key := 'k', job_key_mode := 'unsafe_dedupe')`)
		f.sql(`select graphile_worker.add_jobs(array[('t', null, 'q', null, null, null, null, null)::graphile_worker.job_spec])`)
	}
	add()
	const last = `select pg_sequence_last_value(pg_get_serial_sequence('graphile_worker.%s', 'id')::regclass)`
	for range 3 {
		add()
	}
	wantEqual(t, "last id of tasks", 1, one[int64](f, fmt.Sprintf(last, "_private_tasks")))
	wantEqual(t, "last id of queues", 1, one[int64](f, fmt.Sprintf(last, "_private_job_queues")))
}

// counts returns the counts that were announced by calls.
func (f fixture) counts(conn *pgx.Conn, calls ...string) []int {
	f.t.Helper()
	for _, call := range calls {
		f.sql(`select ` + call)
	}
	f.sql(`select pg_notify('jobs:insert', 'end')`)
	var counts []int
	for {
		n, err := conn.WaitForNotification(f.t.Context())
		if err != nil {
			f.t.Fatal(err)
		}
		if n.Payload == "end" {
			return counts
		}
		var payload struct {
			R     *float64
			Count *int
		}
		if err := json.Unmarshal([]byte(n.Payload), &payload); err != nil || payload.R == nil || payload.Count == nil {
			f.t.Fatalf("%s: %v", n.Payload, err)
		}
		counts = append(counts, *payload.Count)
	}
}

func TestNotifications(t *testing.T) {
	t.Parallel()
	f := newMigrated(t)
	conn := f.connect()
	if _, err := conn.Exec(t.Context(), `listen "jobs:insert"`); err != nil {
		t.Fatal(err)
	}
	const specs = `graphile_worker.add_jobs(array(select row('t', null, null, null, null, null, null, null)::graphile_worker.job_spec
		from generate_series(1, %d)))`
	const keyed = `graphile_worker.add_job('t', job_key := '%s', job_key_mode := '%s')`
	for _, test := range []struct {
		call string
		want []int
	}{
		{`graphile_worker.add_job('t')`, []int{1}},
		{fmt.Sprintf(specs, 3), []int{3}},
		{fmt.Sprintf(specs, 0), nil},
		{`graphile_worker.add_jobs(null)`, nil},
		{fmt.Sprintf(keyed, "k", "replace"), []int{1}},
		{fmt.Sprintf(keyed, "k", "preserve_run_at"), []int{1}},
		{fmt.Sprintf(keyed, "k", "unsafe_dedupe"), nil},
		{fmt.Sprintf(keyed, "l", "unsafe_dedupe"), []int{1}},
		{`graphile_worker.remove_job('k')`, []int{-1}},
		{`graphile_worker.remove_job('k')`, nil},
		{`graphile_worker.force_unlock_workers('{w}')`, nil},
		{`graphile_worker.complete_jobs(array(select id from graphile_worker.jobs))`, nil},
	} {
		wantEqual(t, "counts of "+test.call, test.want, f.counts(conn, test.call))
	}
	f.sql(fmt.Sprintf(`select `+keyed, "m", "replace"))
	f.counts(conn)
	f.sql(`update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w'`)
	wantEqual(t, "counts of retiring", nil, f.counts(conn, `graphile_worker.remove_job('m')`))
}
