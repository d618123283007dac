package e2e_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testworker"
)

// deleteRules are rules of deletes that concern the statements of every job, but are
// against none of these jobs.
var deleteRules = map[string]string{
	"also": "create rule audit as on delete to graphile_worker._private_jobs do also insert into audit values (old.id)",
	"instead of some": `create rule audit as on delete to graphile_worker._private_jobs where old.priority = 99
		do instead insert into audit values (old.id)`,
}

// TestRulesAndTransactions: where a rule makes the server refuse statements of several
// parts, jobs are nevertheless completed in transactions of their handlers or files.
func TestRulesAndTransactions(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	in := func(run testworker.CompleteTx) func(*testing.T, *pgxpool.Pool) gworker.Task {
		return func(t *testing.T, pool *pgxpool.Pool) gworker.Task {
			return gworker.NewRawTask("own", func(ctx context.Context, job *gworker.RawJob) error { return run(t, ctx, pool, job, true) })
		}
	}
	for name, rule := range deleteRules {
		for how, task := range map[string]func(*testing.T, *pgxpool.Pool) gworker.Task{
			"pgx": in(testworker.CompletePgx), "sql": in(testworker.CompleteSQL),
			"file": func(t *testing.T, _ *pgxpool.Pool) gworker.Task {
				return testworker.SQLTasks(t, map[string]string{"own": "insert into effects values (current_setting('gworker.job_id')::bigint)"})[0]
			},
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				pool := migrated(t)
				exec(t, pool, "create table effects (job_id bigint); create table audit (job_id bigint)")
				exec(t, pool, rule)
				client := newClient(t, pool)
				w := start(t, gworker.Config{Pool: pool, HoldTime: new(time.Duration), Tasks: []gworker.Task{
					task(t, pool), gworker.NewRawTask("x", nothing)}})
				jobs, err := client.AddJobs(t.Context(), []gworker.JobSpec{{Task: "own", Queue: "q"}, {Task: "x", Queue: "q"}, {Task: "own"}})
				if err != nil {
					t.Fatal(err)
				}
				for _, job := range jobs {
					waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
				}
				if err := w.Stop(); err != nil {
					t.Error(err)
				}
				var effects, left, locked int
				scan(t, pool, `select (select count(*) from effects), (select count(*) from graphile_worker._private_jobs),
					(select count(*) from graphile_worker._private_job_queues where locked_by is not null)`, nil, &effects, &left, &locked)
				if effects != 2 || left != 0 || locked != 0 || count[event.JobFailed](w.Events) != 0 {
					t.Errorf("%d effects, %d jobs left, %d queues locked, %d failures", effects, left, locked, count[event.JobFailed](w.Events))
				}
			})
		}
	}
}

// TestRuleThatComesLater: one completion in a transaction tells of a new rule.
func TestRuleThatComesLater(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	exec(t, pool, "create table effects (job_id bigint); create table audit (job_id bigint)")
	client := newClient(t, pool)
	w := start(t, gworker.Config{Pool: pool, Recovery: gworker.RecoveryConfig{HeartbeatInterval: time.Hour, StaleAfter: 3 * time.Hour},
		Tasks: []gworker.Task{gworker.NewRawTask("own", func(ctx context.Context, job *gworker.RawJob) error {
			return testworker.CompletePgx(t, ctx, pool, job, true)
		})}})
	before := add(t, client, gworker.JobSpec{Task: "own"})
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == before.ID })
	exec(t, pool, deleteRules["also"])
	first := add(t, client, gworker.JobSpec{Task: "own"})
	failed := waitFor(t, w.Events, func(e event.JobFailed) bool { return e.Job.ID == first.ID })
	if !strings.Contains(failed.Err.Error(), "there is a rule on the table") {
		t.Error(failed.Err)
	}
	second := add(t, client, gworker.JobSpec{Task: "own"})
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == second.ID })
}

// TestRefusedDeletingOfAHeldJob: a trigger that keeps the row is not taken for a
// transaction that is too old to see the job's lock.
func TestRefusedDeletingOfAHeldJob(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	exec(t, pool, "create table effects (job_id bigint); "+poisonTrigger("delete", "true", "return null"))
	client := newClient(t, pool)
	held, completing := make(chan struct{}, 100), make(chan error, 100)
	w := start(t, gworker.Config{Pool: pool, HoldTime: new(5 * time.Second), Tasks: []gworker.Task{
		gworker.NewRawTask("own", func(ctx context.Context, job *gworker.RawJob) error {
			if !testworker.IsLocked(t, pool, job.ID) {
				held <- struct{}{}
			}
			if string(job.Payload) != `{"bad":true}` {
				return nil
			}
			err := testworker.CompletePgx(t, ctx, pool, job, true)
			completing <- err
			return err
		}),
	}})
	for len(held) == 0 {
		before := add(t, client, gworker.JobSpec{Task: "own"})
		waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == before.ID })
	}
	<-held
	add(t, client, gworker.JobSpec{Task: "own", Payload: map[string]bool{"bad": true}})
	if err := <-completing; err == nil || !strings.Contains(err.Error(), "trigger on the jobs table that returns null") {
		t.Error(err)
	}
	if len(held) == 0 {
		t.Error("the job was not held")
	}
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}
