package gworker_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// wholeSpec uses every field.
func wholeSpec(key string) gworker.JobSpec {
	return gworker.JobSpec{
		Task: "whole", Payload: map[string]any{"n": 1}, Queue: "a queue", RunAt: time.Date(2031, 2, 3, 4, 5, 6, 789000000, time.UTC),
		MaxAttempts: 7, Key: key, Priority: -3, Flags: []string{"red", "a,b \"c\" {d}"},
	}
}

// wantWhole is the row that wholeSpec makes, but for what the database chooses.
func wantWhole(key string) *gworker.JobRow {
	return &gworker.JobRow{
		Task: "whole", Payload: json.RawMessage(`{"n":1}`), Queue: "a queue",
		RunAt: time.Date(2031, 2, 3, 4, 5, 6, 789000000, time.UTC), MaxAttempts: 7, Key: key, Priority: -3,
		Flags: []string{"a,b \"c\" {d}", "red"},
	}
}

var chosenByDatabase = cmpopts.IgnoreFields(gworker.JobRow{}, "ID", "CreatedAt", "UpdatedAt")

func sameRow(t *testing.T, got, want *gworker.JobRow) {
	t.Helper()
	if diff := cmp.Diff(want, got, chosenByDatabase, cmpopts.EquateApproxTime(0)); diff != "" {
		t.Errorf("row differs (-want +got):\n%s", diff)
	}
	if got.ID == 0 || got.CreatedAt.IsZero() || got.UpdatedAt.IsZero() {
		t.Errorf("row has no id or times: %+v", got)
	}
}

func TestAddJobStoresTheWholeSpec(t *testing.T) {
	url := testdb.Migrated(t)
	pool := testdb.Pool(t, url)
	for _, unprepared := range []bool{false, true} {
		client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, NoPreparedStatements: unprepared})
		if err != nil {
			t.Fatal(err)
		}
		one, err := client.AddJob(t.Context(), wholeSpec("one"))
		if err != nil {
			t.Fatal(err)
		}
		want := wantWhole("one")
		if unprepared {
			want.Revision = 1 // replaces the job of the first round
		}
		sameRow(t, one, want)
		many, err := client.AddJobs(t.Context(), []gworker.JobSpec{wholeSpec("many"), {Task: "new task"}})
		if err != nil {
			t.Fatal(err)
		}
		want.Key = "many"
		sameRow(t, many[0], want)
		sameRow(t, many[1], &gworker.JobRow{Task: "new task", Payload: json.RawMessage("{}"), MaxAttempts: 25, RunAt: many[1].RunAt})
		// What was returned is what is stored.
		var flags []string
		var queue, task string
		scan(t, pool, `select queue_name, task_identifier, array(select jsonb_object_keys(flags) order by 1)
			from graphile_worker.jobs where id = $1`, []any{one.ID}, &queue, &task, &flags)
		if queue != one.Queue || task != one.Task || !cmp.Equal(flags, one.Flags) {
			t.Errorf("stored: queue %q, task %q, flags %q", queue, task, flags)
		}
	}
}

func TestPayloads(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	text := func(v any) string {
		job := add(t, client, gworker.JobSpec{Task: "x", Payload: v})
		var stored string
		scan(t, pool, "select payload::text from graphile_worker._private_jobs where id = $1", []any{job.ID}, &stored)
		if stored != string(job.Payload) {
			t.Errorf("returned %s, stored %s", job.Payload, stored)
		}
		return stored
	}
	big := `"` + strings.Repeat("0123456789", 1<<20) + `"`
	for _, c := range []struct {
		payload any
		want    string
	}{
		{nil, "{}"},
		{json.RawMessage(nil), "{}"},
		{json.RawMessage(" { \"a\" : 1.0,\n\"a\":\"<\\u0000\\ud800\" } "), " { \"a\" : 1.0,\n\"a\":\"<\\u0000\\ud800\" } "},
		{json.RawMessage("null"), "null"},
		{struct{ A, B int }{1, 2}, `{"A":1,"B":2}`},
		{[]string{"x"}, `["x"]`},
		{"text", `"text"`},
		{12.5, "12.5"},
		{json.RawMessage(big), big},
	} {
		if got := text(c.payload); got != c.want {
			t.Errorf("payload %.40v stored as %.60s, want %.60s", c.payload, got, c.want)
		}
	}
	// The same through AddJobs, whose arguments go another way.
	raw := json.RawMessage(" { \"a\" : 1.0,\n\"a\":\"<\\u0000\\ud800\" } ")
	jobs, err := client.AddJobs(t.Context(), []gworker.JobSpec{{Task: "x", Payload: raw}})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(jobs[0].Payload); got != string(raw) {
		t.Errorf("AddJobs stored %s, want %s", got, raw)
	}
}

// queryCounter counts what is sent to the server.
type queryCounter struct{ n atomic.Int32 }

func (c *queryCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.n.Add(1)
	return ctx
}
func (c *queryCounter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestAddJobsIsOneStatement(t *testing.T) {
	config, err := pgxpool.ParseConfig(testdb.Migrated(t))
	if err != nil {
		t.Fatal(err)
	}
	var counter queryCounter
	config.ConnConfig.Tracer = &counter
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	client := newClient(t, pool)
	add(t, client, gworker.JobSpec{Task: "x", Queue: "q"})
	specs := make([]gworker.JobSpec, 10_000)
	for i := range specs {
		specs[i] = gworker.JobSpec{Task: "x", Queue: "q", Payload: i}
	}
	before := counter.n.Load()
	jobs, err := client.AddJobs(t.Context(), specs)
	if err != nil {
		t.Fatal(err)
	}
	if sent := counter.n.Load() - before; sent != 1 {
		t.Errorf("%d statements for %d jobs, want 1", sent, len(specs))
	}
	for i, job := range jobs {
		var n int
		if err := json.Unmarshal(job.Payload, &n); err != nil || n != i {
			t.Fatalf("job %d is that of spec %s: not in the specs' order", i, job.Payload)
		}
	}
	if jobs, err := client.AddJobs(t.Context(), nil); jobs != nil || err != nil {
		t.Errorf("no specs: %v, %v", jobs, err)
	}
}

func TestJobExistsExactlyIfTransactionCommits(t *testing.T) {
	url := testdb.Migrated(t)
	pool := testdb.Pool(t, url)
	client := newClient(t, pool)

	// do runs the methods inside a transaction that then commits or not.
	check := func(t *testing.T, name string, in func(commit bool, do func(gworker.JobAdder))) {
		for _, commit := range []bool{false, true} {
			exec(t, pool, "truncate graphile_worker._private_jobs")
			add(t, client, gworker.JobSpec{Task: "x", Key: "to remove"})
			in(commit, func(tx gworker.JobAdder) {
				one, err := tx.AddJob(t.Context(), wholeSpec("one"))
				if err != nil {
					t.Fatalf("%s: AddJob: %v", name, err)
				}
				sameRow(t, one, wantWhole("one"))
				many, err := tx.AddJobs(t.Context(), []gworker.JobSpec{wholeSpec("two"), {Task: "three " + name}})
				if err != nil {
					t.Fatalf("%s: AddJobs: %v", name, err)
				}
				sameRow(t, many[0], wantWhole("two"))
				if many[1].Task != "three "+name {
					t.Errorf("%s: task is %q", name, many[1].Task)
				}
				if _, err := tx.RemoveJob(t.Context(), "to remove"); err != nil {
					t.Fatalf("%s: RemoveJob: %v", name, err)
				}
				if n := jobCount(t, pool); n != 1 {
					t.Errorf("%s: %d jobs visible outside before the commit, want 1", name, n)
				}
			})
			want := map[bool]int{false: 1, true: 3}[commit]
			if n := jobCount(t, pool); n != want {
				t.Errorf("%s, commit %v: %d jobs, want %d", name, commit, n, want)
			}
		}
	}

	check(t, "pgx", func(commit bool, do func(gworker.JobAdder)) {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		do(client.WithTx(tx))
		if commit {
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
	for _, driver := range []string{"pgx", "postgres"} {
		db, err := sql.Open(driver, url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		check(t, "database/sql "+driver, func(commit bool, do func(gworker.JobAdder)) {
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback() }()
			do(client.WithSQLTx(tx))
			if commit {
				if err := tx.Commit(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestSpecsAreValidatedBeforeTheDatabaseIsAsked(t *testing.T) {
	// Nothing listens here: whoever asks gets another error.
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: "postgres://127.0.0.1:1/none"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, c := range []struct {
		spec  gworker.JobSpec
		field string
		says  string
	}{
		{gworker.JobSpec{}, "JobSpec.Task", "is empty"},
		{gworker.JobSpec{Task: strings.Repeat("ä", 129)}, "JobSpec.Task", "129 characters: the limit is 128"},
		{gworker.JobSpec{Task: "a\x00b"}, "JobSpec.Task", "NUL"},
		{gworker.JobSpec{Task: "a\xff"}, "JobSpec.Task", "UTF-8"},
		{gworker.JobSpec{Task: "x", Queue: strings.Repeat("q", 129)}, "JobSpec.Queue", "128"},
		{gworker.JobSpec{Task: "x", Key: strings.Repeat("k", 513)}, "JobSpec.Key", "512"},
		{gworker.JobSpec{Task: "x", Key: "k", KeyMode: "repalce"}, "JobSpec.KeyMode", `"repalce": it can be replace, preserve_run_at or unsafe_dedupe`},
		{gworker.JobSpec{Task: "x", MaxAttempts: -1}, "JobSpec.MaxAttempts", "1 to 32767"},
		{gworker.JobSpec{Task: "x", MaxAttempts: math.MaxInt16 + 1}, "JobSpec.MaxAttempts", "1 to 32767"},
		{gworker.JobSpec{Task: "x", Priority: math.MinInt16 - 1}, "JobSpec.Priority", "-32768 to 32767"},
		{gworker.JobSpec{Task: "x", Flags: []string{"ok", "a\x00"}}, "JobSpec.Flags[1]", "NUL"},
		{gworker.JobSpec{Task: "x", RunAt: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)}, "JobSpec.RunAt", "12000"},
		{gworker.JobSpec{Task: "x", Payload: json.RawMessage(`{"a":`)}, "JobSpec.Payload", "not valid JSON"},
		{gworker.JobSpec{Task: "x", Payload: json.RawMessage(strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001))}, "JobSpec.Payload", "nested too deeply: JSON can have 10,000 levels"},
		{gworker.JobSpec{Task: "x", Payload: json.RawMessage("\"\xff\"")}, "JobSpec.Payload", "UTF-8"},
		{gworker.JobSpec{Task: "x", Payload: func() {}}, "JobSpec.Payload", "cannot be encoded"},
	} {
		_, err := client.AddJob(t.Context(), c.spec)
		testworker.WantFieldError(t, err, c.field, c.says)
	}
	ok := gworker.JobSpec{Task: "x", Key: "k"}
	for _, c := range []struct {
		specs []gworker.JobSpec
		field string
		says  string
	}{
		{[]gworker.JobSpec{ok, {Task: "x", Priority: 1 << 20}}, "specs[1].Priority", "32767"},
		{[]gworker.JobSpec{ok, {Task: "y"}, ok}, "specs[2].Key", "specs[0].Key"},
		{[]gworker.JobSpec{ok, {Task: "y", Key: "l", KeyMode: gworker.KeyPreserveRunAt}}, "specs[1].KeyMode", "one key mode"},
		{[]gworker.JobSpec{{Task: "y", Key: "l", KeyMode: gworker.KeyUnsafeDedupe}}, "specs[0].KeyMode", "only AddJob"},
	} {
		_, err := client.AddJobs(t.Context(), c.specs)
		testworker.WantFieldError(t, err, c.field, c.says)
	}
	_, err = client.RemoveJob(t.Context(), strings.Repeat("k", 513))
	testworker.WantFieldError(t, err, "key", "512")
}

// TestQueueThatIsNotInstalled: whoever adds a job before any worker has started
// is told what to do, through every driver.
func TestQueueThatIsNotInstalled(t *testing.T) {
	url := testdb.Empty(t)
	pool := testdb.Pool(t, url)
	client := newClient(t, pool)
	adders := map[string]gworker.JobAdder{"pool": client}
	for _, driver := range []string{"pgx", "postgres"} {
		db, err := sql.Open(driver, url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		adders[driver] = client.WithSQLTx(tx)
	}
	for name, adder := range adders {
		_, err := adder.AddJob(t.Context(), gworker.JobSpec{Task: "x"})
		if !errors.Is(err, gworker.ErrNotInstalled) || !strings.Contains(err.Error(), "Client.Migrate") || !strings.Contains(err.Error(), "graphile_worker") {
			t.Errorf("%s: AddJob: %v", name, err)
		}
	}
	if _, err := client.AddJobs(t.Context(), []gworker.JobSpec{{Task: "x"}}); !errors.Is(err, gworker.ErrNotInstalled) {
		t.Errorf("AddJobs: %v", err)
	}
	if _, err := client.RemoveJob(t.Context(), "k"); !errors.Is(err, gworker.ErrNotInstalled) {
		t.Errorf("RemoveJob: %v", err)
	}
	if err := client.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(t, client, gworker.JobSpec{Task: "x"})
}

func TestKeyModes(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	early, late := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond), time.Now().Add(2*time.Hour).UTC().Truncate(time.Microsecond)
	first := add(t, client, gworker.JobSpec{Task: "a", Key: "k", RunAt: early, Payload: 1})
	if first.Revision != 0 {
		t.Errorf("revision of a new job is %d", first.Revision)
	}
	replaced := add(t, client, gworker.JobSpec{Task: "b", Key: "k", RunAt: late, Payload: 2})
	if replaced.ID != first.ID || replaced.Task != "b" || !replaced.RunAt.Equal(late) || string(replaced.Payload) != "2" || replaced.Revision != 1 {
		t.Errorf("replaced: %+v", replaced)
	}
	kept := add(t, client, gworker.JobSpec{Task: "b", Key: "k", KeyMode: gworker.KeyPreserveRunAt, RunAt: early, Payload: 3})
	if kept.ID != first.ID || !kept.RunAt.Equal(late) || string(kept.Payload) != "3" {
		t.Errorf("preserve_run_at: %+v", kept)
	}
	many, err := client.AddJobs(t.Context(), []gworker.JobSpec{{Task: "b", Key: "k", KeyMode: gworker.KeyPreserveRunAt, RunAt: early, Payload: 4}})
	if err != nil || !many[0].RunAt.Equal(late) || string(many[0].Payload) != "4" {
		t.Errorf("preserve_run_at in AddJobs: %+v, %v", many, err)
	}
	deduped := add(t, client, gworker.JobSpec{Task: "c", Key: "k", KeyMode: gworker.KeyUnsafeDedupe, Payload: 5})
	if deduped.ID != first.ID || deduped.Task != "b" || string(deduped.Payload) != "4" {
		t.Errorf("unsafe_dedupe: %+v", deduped)
	}
	removed, err := client.RemoveJob(t.Context(), "k")
	if err != nil || removed.ID != first.ID || removed.Task != "b" {
		t.Errorf("removed %+v, %v", removed, err)
	}
	if _, err := client.RemoveJob(t.Context(), "k"); !errors.Is(err, gworker.ErrJobNotFound) {
		t.Errorf("removing it again: %v", err)
	}
}
