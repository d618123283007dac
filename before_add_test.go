package gworker_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
)

type interceptor = func(context.Context, *gworker.JobSpec) error

func interceptedClient(t *testing.T, pool *pgxpool.Pool, before ...interceptor) *gworker.Client {
	t.Helper()
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, BeforeAdd: before})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// byTask does to a job what its task is called.
func byTask(_ context.Context, spec *gworker.JobSpec) error {
	switch spec.Task {
	case "change":
		spec.Task, spec.Payload, spec.Queue, spec.Priority = "changed", map[string]int{"n": 2}, "q", 7
		spec.Flags[0] = "g"
	case "spoil":
		spec.Priority = 100_000
	case "skip":
		return gworker.ErrAddSkipped
	case "fail":
		return errors.New("the quota is used up")
	case "panic":
		panic(errOwn)
	}
	return nil
}

var errOwn = errors.New("own")

func TestBeforeAdd(t *testing.T) {
	t.Parallel()
	url := testdb.Migrated(t)
	pool := testdb.Pool(t, url)
	var order []string
	client := interceptedClient(t, pool, byTask, func(_ context.Context, spec *gworker.JobSpec) error {
		order = append(order, spec.Task)
		return nil
	})
	for name, adder := range map[string]func(t *testing.T) gworker.JobAdder{
		"client": func(*testing.T) gworker.JobAdder { return client },
		"pgx transaction": func(t *testing.T) gworker.JobAdder {
			tx, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
			return client.WithTx(tx)
		},
		"database/sql transaction": func(t *testing.T) gworker.JobAdder {
			db, err := sql.Open("pgx", url)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = tx.Rollback() })
			return client.WithSQLTx(tx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			jobs := adder(t)
			order = nil
			mine := []string{"f"}
			job := add(t, jobs, gworker.JobSpec{Task: "change", Flags: mine})
			if job.Task != "changed" || string(job.Payload) != `{"n":2}` || job.Queue != "q" || job.Priority != 7 || job.Flags[0] != "g" {
				t.Errorf("the stored job is %+v", job)
			}
			if mine[0] != "f" {
				t.Error("the caller's flags were changed")
			}
			if want := []string{"changed"}; !slices.Equal(order, want) {
				t.Errorf("the second interceptor saw %q, want %q", order, want)
			}
			if job, err := jobs.AddJob(t.Context(), gworker.JobSpec{Task: "skip"}); job != nil || !errors.Is(err, gworker.ErrAddSkipped) {
				t.Errorf("skipping: %+v, %v", job, err)
			}
			if _, err := jobs.AddJob(t.Context(), gworker.JobSpec{Task: "fail"}); err == nil || !strings.Contains(err.Error(), "BeforeAdd[0]: the quota is used up") {
				t.Errorf("failing: %v", err)
			}
			var panicked *gworker.PanicError
			if _, err := jobs.AddJob(t.Context(), gworker.JobSpec{Task: "panic"}); !errors.As(err, &panicked) || !errors.Is(err, errOwn) {
				t.Errorf("panicking: %v", err)
			}
			if _, err := jobs.AddJob(t.Context(), gworker.JobSpec{Task: "spoil"}); !isFieldError(err) {
				t.Errorf("a spec that an interceptor has spoilt: %v", err)
			}
		})
	}
}

func TestBeforeAddOfManyJobs(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := interceptedClient(t, pool, byTask)
	specs := func(tasks ...string) (all []gworker.JobSpec) {
		for _, task := range tasks {
			all = append(all, gworker.JobSpec{Task: task})
		}
		return all
	}
	rows, err := client.AddJobs(t.Context(), specs("skip", "a", "skip", "b"))
	if !errors.Is(err, gworker.ErrAddSkipped) || len(rows) != 2 || rows[0].Task != "a" || rows[1].Task != "b" {
		t.Errorf("two of four skipped: %d rows, %v", len(rows), err)
	}
	if rows, err := client.AddJobs(t.Context(), specs("skip", "skip")); len(rows) != 0 || !errors.Is(err, gworker.ErrAddSkipped) {
		t.Errorf("all skipped: %d rows, %v", len(rows), err)
	}
	if rows, err := client.AddJobs(t.Context(), specs("a", "b")); len(rows) != 2 || err != nil {
		t.Errorf("none skipped: %d rows, %v", len(rows), err)
	}
	before := jobCount(t, pool)
	for _, last := range []string{"fail", "panic", "spoil"} {
		if _, err := client.AddJobs(t.Context(), specs("skip", "a", last)); err == nil || !strings.Contains(err.Error(), "specs[2]") {
			t.Errorf("%s: %v", last, err)
		}
	}
	twice := []gworker.JobSpec{{Task: "skip"}, {Task: "a", Key: "k"}, {Task: "a", Key: "k"}}
	if _, err := client.AddJobs(t.Context(), twice); err == nil || !strings.Contains(err.Error(), "specs[2].Key") || !strings.Contains(err.Error(), "specs[1].Key") {
		t.Errorf("a key twice: %v", err)
	}
	if now := jobCount(t, pool); now != before {
		t.Errorf("%d jobs were added by calls that failed", now-before)
	}
}

func TestBeforeAddOfTheWorkersOwnClient(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	add(t, newClient(t, pool), gworker.JobSpec{Task: "parent"})
	config := gworker.Config{
		Pool: pool, BeforeAdd: []interceptor{byTask},
		Tasks: []gworker.Task{gworker.NewTask("parent", func(ctx context.Context, job *gworker.Job[any]) error {
			if _, err := job.Client().AddJob(ctx, gworker.JobSpec{Task: "skip"}); !errors.Is(err, gworker.ErrAddSkipped) {
				t.Errorf("in a handler: %v", err)
			}
			return nil
		})},
	}
	waitFor[event.JobCompleted](t, runOnce(t, config), nil)
	config.BeforeAdd = append(config.BeforeAdd, nil)
	if _, err := gworker.NewWorker(config); !isFieldError(err) || !strings.Contains(err.Error(), "Config.BeforeAdd[1] is nil") {
		t.Errorf("nil among the interceptors: %v", err)
	}
	if _, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, BeforeAdd: []interceptor{nil}}); !isFieldError(err) {
		t.Errorf("nil among the client's interceptors: %v", err)
	}
}
