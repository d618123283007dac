package gworkertest_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/gworkertest"
)

func TestJobsAreSeenInsideTheTransactionAndNotOutside(t *testing.T) {
	pool := gworkertest.Pool(t)
	c := client(t, gworker.ClientConfig{Pool: pool})
	check := func(t *testing.T, to gworker.JobAdder, inside, outside gworkertest.Jobs, commit func() error) {
		t.Helper()
		want := gworker.JobSpec{Task: t.Name(), Payload: map[string]int{"n": 1}, Queue: "q"}
		inside.RequireNone(t, want)
		job := add(t, to, want)
		if got := inside.Require(t, want); got.ID != job.ID || got.Queue != "q" || got.MaxAttempts != 25 {
			t.Errorf("inside: %+v", got)
		}
		outside.RequireNone(t, gworker.JobSpec{Task: want.Task})
		wantFailure(t, func(t testing.TB) { outside.Require(t, want) }, "no job is like this")
		wantFailure(t, func(t testing.TB) { inside.RequireNone(t, gworker.JobSpec{Task: want.Task}) }, "1 jobs are like this, and none is wanted")
		if err := commit(); err != nil {
			t.Fatal(err)
		}
		outside.Require(t, want)
	}
	t.Run("pgx", func(t *testing.T) {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		check(t, c.WithTx(tx), gworkertest.JobsIn(tx), gworkertest.JobsIn(pool), func() error { return tx.Commit(t.Context()) })
	})
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run("database/sql "+driver, func(t *testing.T) {
			db, err := sql.Open(driver, pool.Config().ConnString())
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback() }()
			check(t, c.WithSQLTx(tx), gworkertest.JobsInSQL(tx), gworkertest.JobsInSQL(db), tx.Commit)
		})
	}
}

func TestEveryFieldOfTheSpecIsCompared(t *testing.T) {
	pool := gworkertest.Pool(t)
	runAt := time.Date(2031, 2, 3, 4, 5, 6, 789, time.UTC)
	whole := func() gworker.JobSpec {
		return gworker.JobSpec{
			Task: "whole", Payload: map[string]any{"n": json.Number("1152921504606846977"), "list": []any{1.0, nil}}, Queue: "q",
			RunAt: runAt, MaxAttempts: 7, Key: "k", Priority: -3, Flags: []string{"b", "a"},
		}
	}
	c := client(t, gworker.ClientConfig{Pool: pool})
	job := add(t, c, whole())
	add(t, c, gworker.JobSpec{Task: "other"})
	jobs := gworkertest.JobsIn(pool)
	same := whole()
	same.Payload = json.RawMessage(`{"list":[1.0,null], "n":1152921504606846977}`)
	same.RunAt = runAt.In(time.FixedZone("there", 3600))
	same.KeyMode = gworker.KeyPreserveRunAt
	for _, want := range []gworker.JobSpec{whole(), same, {Task: "whole"}} {
		if got := jobs.Require(t, want); got.ID != job.ID {
			t.Errorf("found %+v", got)
		}
	}
	for says, change := range map[string]func(*gworker.JobSpec){
		`There is no job of task "x"`:               func(s *gworker.JobSpec) { s.Task = "x" },
		`job 1: Queue is "q", want "x"`:             func(s *gworker.JobSpec) { s.Queue = "x" },
		`job 1: Key is "k", want "x"`:               func(s *gworker.JobSpec) { s.Key = "x" },
		`job 1: Priority is -3, want 3`:             func(s *gworker.JobSpec) { s.Priority = 3 },
		`job 1: MaxAttempts is 7, want 8`:           func(s *gworker.JobSpec) { s.MaxAttempts = 8 },
		`job 1: RunAt is 2031-02-03T`:               func(s *gworker.JobSpec) { s.RunAt = runAt.Add(time.Millisecond) },
		`job 1: Flags is [a b], want [a c]`:         func(s *gworker.JobSpec) { s.Flags = []string{"c", "a"} },
		"job 1: Payload differs (-want +got):":      func(s *gworker.JobSpec) { s.Payload = map[string]any{"n": 1} },
		`"1152921504606846976"`:                     func(s *gworker.JobSpec) { s.Payload = map[string]any{"n": 1 << 60, "list": []any{1, nil}} },
		`JobSpec.KeyMode is "once"`:                 func(s *gworker.JobSpec) { s.KeyMode = "once" },
		`JobSpec.Payload cannot be encoded as JSON`: func(s *gworker.JobSpec) { s.Payload = func() {} },
		`JobSpec.Task is empty`:                     func(s *gworker.JobSpec) { s.Task = "" },
	} {
		want := whole()
		change(&want)
		wantFailure(t, func(t testing.TB) { jobs.Require(t, want) }, says)
	}
	wantFailure(t, func(t testing.TB) { jobs.Require(t, gworker.JobSpec{Task: "x"}) }, `1 of task "other"`, `1 of task "whole"`)
	add(t, c, gworker.JobSpec{Task: "other"})
	wantFailure(t, func(t testing.TB) { jobs.Require(t, gworker.JobSpec{Task: "other"}) }, "2 jobs are like this, and one is wanted", "job 2", "job 3")
	if all, some := jobs.List(t, ""), jobs.List(t, "other"); len(all) != 3 || len(some) != 2 || some[0].ID != 2 {
		t.Errorf("%d jobs, %d of one task", len(all), len(some))
	}
}

func TestJobsOfAnotherSchema(t *testing.T) {
	template := gworkertest.Template{Schema: `a "queue"`}
	pool := template.Pool(t)
	add(t, client(t, gworker.ClientConfig{Pool: pool, Schema: template.Schema}), gworker.JobSpec{Task: "x"})
	gworkertest.JobsIn(pool).InSchema(template.Schema).Require(t, gworker.JobSpec{Task: "x"})
	wantFailure(t, func(t testing.TB) { gworkertest.JobsIn(pool).List(t, "x") }, "reading the jobs", "graphile_worker._private_jobs")
	wantFailure(t, func(t testing.TB) { gworkertest.JobsIn(pool).InSchema("\x00").List(t, "x") }, "reading the jobs")
}
