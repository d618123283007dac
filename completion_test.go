package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// TestCompletionIsTheTransactions: whatever the handler returns, its job is
// complete exactly if its transaction has committed.
func TestCompletionIsTheTransactions(t *testing.T) {
	var sample testdb.Sample
	late := errors.New("late")
	for name, in := range map[string]testworker.CompleteTx{"pgx": testworker.CompletePgx, "sql": testworker.CompleteSQL} {
		for what, c := range map[string]struct {
			commit bool
			result error
			panics bool
			row    string
			late   string // what ErrorAfterCompletion tells
		}{
			"commit":                {commit: true, row: "gone"},
			"commit, then an error": {commit: true, result: late, row: "gone", late: "late"},
			"commit, then a snooze": {commit: true, result: gworker.Snooze(time.Hour), row: "gone", late: "snoozed for 1h0m0s"},
			"commit, then a panic":  {commit: true, panics: true, row: "gone", late: "panic: oh"},
			"rollback":              {row: "1/2|the handler completed its job in a transaction that was rolled back|k|again"},
			"rollback and an error": {result: late, row: "1/2|late|k|again"},
			"rollback and a snooze": {result: gworker.Snooze(time.Hour), row: "0/2|-|k|again"},
			"rollback and a cancel": {result: gworker.Discard(late), row: "2/2|late|k|failed"},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				sample.Take(t)
				t.Parallel()
				pool := migrated(t)
				exec(t, pool, "create table effects (job_id bigint)")
				job := add(t, newClient(t, pool), gworker.JobSpec{Task: "x", Queue: "q", Key: "k", MaxAttempts: 2})
				e := runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
					gworker.NewRawTask("x", func(ctx context.Context, job *gworker.RawJob) error {
						if err := in(t, ctx, pool, job, c.commit); err != nil && !errors.Is(err, pgx.ErrTxClosed) {
							t.Errorf("completing: %v", err)
						}
						if c.panics {
							panic("oh")
						}
						return c.result
					}).With(gworker.TaskOptions{Backoff: func(gworker.BackoffInput) time.Duration { return time.Hour }}),
				}})
				if row := testworker.Row(t, pool, job.ID); row != c.row {
					t.Errorf("row %q, want %q", row, c.row)
				}
				var effects, locked int
				scan(t, pool, `select (select count(*) from effects),
					(select count(*) from graphile_worker._private_job_queues where locked_by is not null)`, nil, &effects, &locked)
				if (effects == 1) != c.commit || locked != 0 {
					t.Errorf("%d effects, %d locked queues", effects, locked)
				}
				if completed := count[event.JobCompleted](e) == 1; completed != c.commit {
					t.Errorf("reported as completed: %v", completed)
				}
				var told string
				seen, _ := e.Seen()
				for _, e := range seen {
					if e, ok := e.(event.ErrorAfterCompletion); ok {
						told, _, _ = strings.Cut(e.Err.Error(), "\n")
					}
				}
				if told != c.late {
					t.Errorf("ErrorAfterCompletion told %q, want %q", told, c.late)
				}
				if n := count[event.JobLost](e); n != 0 {
					t.Error("reported as lost")
				}
				// Without a commit, the backoff is the task's own for what failed.
				if strings.HasSuffix(c.row, "again") {
					if got := waits(t, pool, job.ID); got != time.Hour {
						t.Errorf("waits for %s", got)
					}
				}
			})
		}
	}
}

// TestCompletionOfALostJob: the completion is fenced like every outcome.
func TestCompletionOfALostJob(t *testing.T) {
	pool := migrated(t)
	job := add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
	e := runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
		gworker.NewRawTask("x", func(ctx context.Context, job *gworker.RawJob) error {
			exec(t, pool, "update graphile_worker._private_jobs set locked_by = 'other'")
			tx, err := pool.Begin(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback(ctx) }()
			err = job.CompleteTx(ctx, tx)
			if !errors.Is(err, gworker.ErrJobLost) {
				t.Errorf("error is %v", err)
			}
			return err
		}),
	}})
	if row := testworker.Row(t, pool, job.ID); row != "1/25|-|locked" {
		t.Errorf("row %q", row)
	}
	waitFor[event.JobLost](t, e, nil)
}

// TestCompletionsThatComeToNothing: savepoints, second calls, later tries.
func TestCompletionsThatComeToNothing(t *testing.T) {
	pool := migrated(t)
	begin := func(ctx context.Context, in interface {
		Begin(context.Context) (pgx.Tx, error)
	}) pgx.Tx {
		tx, err := in.Begin(ctx)
		if err != nil {
			t.Error(err)
		}
		return tx
	}
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
	}
	tasks := []gworker.Task{
		gworker.NewRawTask("savepoint", func(ctx context.Context, job *gworker.RawJob) error {
			tx := begin(ctx, pool)
			inner := begin(ctx, tx)
			must(job.CompleteTx(ctx, inner), inner.Rollback(ctx), tx.Commit(ctx))
			return nil
		}),
		gworker.NewRawTask("savepoint released", func(ctx context.Context, job *gworker.RawJob) error {
			tx := begin(ctx, pool)
			inner := begin(ctx, tx)
			must(job.CompleteTx(ctx, inner), inner.Commit(ctx), tx.Commit(ctx))
			return nil
		}),
		gworker.NewRawTask("twice", func(ctx context.Context, job *gworker.RawJob) error {
			tx := begin(ctx, pool)
			must(job.CompleteTx(ctx, tx), job.CompleteTx(ctx, tx), tx.Commit(ctx))
			return nil
		}),
		gworker.NewRawTask("second try", func(ctx context.Context, job *gworker.RawJob) error {
			tx := begin(ctx, pool)
			must(job.CompleteTx(ctx, tx), tx.Rollback(ctx))
			tx = begin(ctx, pool)
			must(job.CompleteTx(ctx, tx), tx.Commit(ctx))
			return nil
		}),
		gworker.NewRawTask("again after the commit", func(ctx context.Context, job *gworker.RawJob) error {
			tx := begin(ctx, pool)
			must(job.CompleteTx(ctx, tx), tx.Commit(ctx))
			tx = begin(ctx, pool)
			// It is complete, not lost.
			if err := job.CompleteTx(ctx, tx); !errors.Is(err, gworker.ErrAlreadyCompleted) || errors.Is(err, gworker.ErrJobLost) {
				t.Errorf("the second completion: %v", err)
			}
			must(tx.Rollback(ctx))
			return nil
		}),
		gworker.NewRawTask("broken", func(ctx context.Context, job *gworker.RawJob) error {
			tx := begin(ctx, pool)
			_, _ = tx.Exec(ctx, "select 1/0")
			err := job.CompleteTx(ctx, tx)
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("completing job %d", job.ID)) {
				t.Errorf("error is %v", err)
			}
			must(tx.Rollback(ctx))
			return errors.New("broken")
		}),
	}
	var specs []gworker.JobSpec
	for _, task := range tasks {
		specs = append(specs, gworker.JobSpec{Task: task.Identifier()})
	}
	ids := testworker.AddEach(t, newClient(t, pool), specs...)
	e := runOnce(t, gworker.Config{Pool: pool, Tasks: tasks})
	for name, want := range map[string]string{
		"savepoint": "1/25|the handler completed its job in a transaction that was rolled back|again", "savepoint released": "gone",
		"twice": "gone", "second try": "gone", "again after the commit": "gone", "broken": "1/25|broken|again",
	} {
		if row := testworker.Row(t, pool, ids[name]); row != want {
			t.Errorf("%s left %q, want %q", name, row, want)
		}
	}
	if n := count[event.JobCompleted](e); n != 4 {
		t.Errorf("%d jobs completed", n)
	}
	if err := new(gworker.RawJob).CompleteTx(t.Context(), nil); err == nil {
		t.Error("a job without a worker was completed")
	}
	if err := new(gworker.RawJob).CompleteSQLTx(t.Context(), nil); err == nil {
		t.Error("a job without a worker was completed")
	}
}

// TestHandlerThatGoesOnAfterItsCommit: its row is gone, and the look at the
// locks of running jobs must not take it for lost.
func TestHandlerThatGoesOnAfterItsCommit(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	committed, taken, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
	lost := make(chan error, 1)
	add(t, client, gworker.JobSpec{Task: "commits"})
	add(t, client, gworker.JobSpec{Task: "loses"})
	w := start(t, gworker.Config{Pool: pool, Recovery: testworker.FastRecovery, Tasks: []gworker.Task{
		gworker.NewRawTask("commits", func(ctx context.Context, job *gworker.RawJob) error {
			if err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return job.CompleteTx(ctx, tx) }); err != nil {
				t.Error(err)
			}
			close(committed)
			<-release
			return ctx.Err()
		}),
		gworker.NewRawTask("loses", func(ctx context.Context, _ *gworker.RawJob) error {
			close(taken)
			<-ctx.Done()
			lost <- context.Cause(ctx)
			return nil
		}),
	}})
	<-committed
	<-taken
	// By the time that the second job's loss is seen, the first has been looked
	// at as often.
	exec(t, pool, "delete from graphile_worker._private_jobs")
	if err := <-lost; !errors.Is(err, gworker.ErrJobLost) {
		t.Errorf("cause is %v", err)
	}
	close(release)
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.Task == "commits" })
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
	seen, _ := w.Events.Seen()
	for _, e := range seen {
		switch e := e.(type) {
		case event.LocksLost:
			if len(e.JobIDs) != 1 {
				t.Errorf("%+v", e)
			}
		case event.ErrorAfterCompletion:
			t.Errorf("the handler's context ended: %v", e.Err)
		}
	}
}

// TestTransactionThatOutlivesItsHandler: the job is kept until the transaction
// has ended, and other outcomes are not held up by its locks.
func TestTransactionThatOutlivesItsHandler(t *testing.T) {
	var sample testdb.Sample
	for name, commit := range map[string]bool{"committed": true, "rolled back": false} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			pool := migrated(t)
			client := newClient(t, pool)
			open := make(chan pgx.Tx, 1)
			left := add(t, client, gworker.JobSpec{Task: "leaves it open"})
			w := start(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
				gworker.NewRawTask("leaves it open", func(ctx context.Context, job *gworker.RawJob) error {
					tx, err := pool.Begin(context.Background())
					if err == nil {
						err = job.CompleteTx(ctx, tx)
					}
					open <- tx
					return err
				}),
				gworker.NewRawTask("fails", testworker.Fail(errors.New("no"))),
			}})
			tx := <-open
			delayed := waitFor[event.OutcomesDelayed](t, w.Events, nil)
			if delayed.Count != 1 || !strings.Contains(delayed.Err.Error(), "still open") {
				t.Errorf("event %+v", delayed)
			}
			other := add(t, client, gworker.JobSpec{Task: "fails"})
			waitFor(t, w.Events, func(e event.JobFailed) bool { return e.Job.ID == other.ID })
			if row := testworker.Row(t, pool, left.ID); row != "1/25|-|locked" {
				t.Errorf("meanwhile the row is %q", row)
			}
			if commit {
				if err := tx.Commit(t.Context()); err != nil {
					t.Error(err)
				}
				waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == left.ID })
				if row := testworker.Row(t, pool, left.ID); row != "gone" {
					t.Errorf("row %q", row)
				}
				return
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Error(err)
			}
			failed := waitFor(t, w.Events, func(e event.JobFailed) bool { return e.Job.ID == left.ID })
			if !errors.Is(failed.Err, gworker.ErrNotCommitted) {
				t.Errorf("event %+v", failed)
			}
		})
	}
}

// Where nobody can tell what became of the transaction, a job whose row is gone is not
// said to have been rolled back.
func TestCompleteTxOfUnknownFate(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	role, mine := testdb.Role(t, pool)
	if _, err := client.Grant(t.Context(), gworker.RightsWorker, role, gworker.GrantOptions{}); err != nil {
		t.Fatal(err)
	}
	exec(t, pool, "revoke execute on function pg_catalog.txid_status(bigint) from public")
	w := start(t, gworker.Config{Pool: mine, NoMigrations: true, Tasks: []gworker.Task{
		gworker.NewTask("tx", func(ctx context.Context, job *gworker.Job[bool]) error {
			tx, err := mine.Begin(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
			if err := job.CompleteTx(ctx, tx); err != nil {
				return err
			}
			if !job.Payload {
				return nil // and so it is rolled back
			}
			return tx.Commit(ctx)
		}),
	}})
	committed := add(t, client, gworker.JobSpec{Task: "tx", Payload: true})
	lost := waitFor(t, w.Events, func(e event.JobLost) bool { return e.Job.ID == committed.ID })
	if lost.Err != nil || !lost.Unsure {
		t.Errorf("of a job that has committed: %v, unsure %v", lost.Err, lost.Unsure)
	}
	rolledBack := add(t, client, gworker.JobSpec{Task: "tx", Payload: false})
	failed := waitFor(t, w.Events, func(e event.JobFailed) bool { return e.Job.ID == rolledBack.ID })
	if !errors.Is(failed.Err, gworker.ErrNotCommitted) {
		t.Errorf("of a job that was rolled back: %v", failed.Err)
	}
}
