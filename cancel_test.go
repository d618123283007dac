package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/cancel"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

// deaf are recovery settings under which a worker finds no cancellation by looking,
// within the time of a test.
var deaf = gworker.RecoveryConfig{HeartbeatInterval: time.Hour, StaleAfter: 3 * time.Hour}

// runningJob is a worker with a job whose handler waits.
type runningJob struct {
	*running
	url    string
	pool   *pgxpool.Pool
	client *gworker.Client
	job    *gworker.JobRow
	ended  chan error // causes of the handlers' contexts
	end    chan error // what the handler returns, if it does not heed its context
}

// startRunning runs a job of the task "slow". A stubborn handler waits for end
// alone; another one returns when its context ends, too.
func startRunning(t *testing.T, stubborn bool, spec gworker.JobSpec, recovery gworker.RecoveryConfig) *runningJob {
	t.Helper()
	url := testdb.Migrated(t)
	r := &runningJob{url: url, pool: testdb.Pool(t, url), ended: make(chan error, 10), end: make(chan error, 10)}
	t.Cleanup(func() { close(r.end) })
	r.client = newClient(t, r.pool)
	started := make(chan struct{}, 10)
	r.running = start(t, gworker.Config{
		Pool: r.pool, Recovery: recovery, GracefulShutdownAbortTimeout: 10 * time.Millisecond,
		Tasks: []gworker.Task{gworker.NewTask("slow", func(ctx context.Context, _ *gworker.Job[any]) error {
			started <- struct{}{}
			done := ctx.Done()
			if stubborn {
				done = nil
			}
			select {
			case <-done:
				r.ended <- context.Cause(ctx)
				return ctx.Err()
			case err := <-r.end:
				return err
			}
		})},
	})
	waitFor[gworker.ListenerConnected](t, r.events, nil)
	spec.Task = "slow"
	r.job = add(t, r.client, spec)
	<-started
	return r
}

// cancelUnheard cancels the job, and no worker is notified: meanwhile the database has
// another pg_notify than the server's, which new sessions find.
func (r *runningJob) cancelUnheard(t *testing.T, reason string) {
	t.Helper()
	exec(t, r.pool, "alter function pg_catalog.pg_notify(text, text) rename to notify_truly")
	exec(t, r.pool, "create function pg_catalog.pg_notify(text, text) returns void language sql volatile as ''")
	quiet := newClient(t, testdb.Pool(t, r.url))
	cancelJob(t, quiet, r.job.ID, reason, gworker.CancelRequested)
	exec(t, r.pool, "drop function pg_catalog.pg_notify(text, text)")
	exec(t, r.pool, "alter function pg_catalog.notify_truly(text, text) rename to pg_notify")
}

func cancelJob(t *testing.T, client *gworker.Client, id int64, reason string, want gworker.CancelState) gworker.CancelResult {
	t.Helper()
	result, err := client.Cancel(t.Context(), id, reason)
	if err != nil {
		t.Fatal(err)
	}
	if result.State != want || result.JobID != id {
		t.Fatalf("cancelling job %d: %+v, want the state %q", id, result, want)
	}
	return result
}

// wantCancelled checks how a job that was cancelled has ended.
func (r *runningJob) wantCancelled(t *testing.T, reason string) {
	t.Helper()
	e := waitFor(t, r.events, func(e gworker.JobPermanentlyFailed) bool { return e.Job.ID == r.job.ID })
	if !errors.Is(e.Err, gworker.ErrJobCancelled) || !strings.HasSuffix(e.Err.Error(), reason) {
		t.Errorf("the event says %v", e.Err)
	}
	r.wantFailedRow(t, reason)
}

func (r *runningJob) wantFailedRow(t *testing.T, reason string) {
	t.Helper()
	var got string
	scan(t, r.pool, `select concat_ws('|', attempts - max_attempts, key, locked_by, locked_at, flags, last_error)
		from graphile_worker._private_jobs where id = $1`, []any{r.job.ID}, &got)
	want := "0|" + reason
	if len(r.job.Flags) > 0 {
		want = `0|{"` + r.job.Flags[0] + `": true}|` + reason
	}
	if got != want {
		t.Errorf("the job's row is %q, want %q", got, want)
	}
	var locked int
	scan(t, r.pool, "select count(*) from graphile_worker._private_job_queues where locked_by is not null", nil, &locked)
	if locked > 0 {
		t.Error("its queue is locked")
	}
}

func (r *runningJob) wantComplete(t *testing.T) {
	t.Helper()
	waitFor(t, r.events, func(e gworker.JobCompleted) bool { return e.Job.ID == r.job.ID })
	if n := jobCount(t, r.pool); n != 0 {
		t.Errorf("%d jobs are left", n)
	}
}

// The worker looks once an hour: it is the notification that tells it.
func TestCancel(t *testing.T) {
	t.Parallel()
	r := startRunning(t, false, gworker.JobSpec{Queue: "q", Key: "k", Flags: []string{"f"}}, deaf)
	next := add(t, r.client, gworker.JobSpec{Task: "slow", Queue: "q"})

	result := cancelJob(t, r.client, r.job.ID, "no longer needed", gworker.CancelRequested)
	if result.WorkerID != r.ID() || result.Task != "slow" || result.Reason != "no longer needed" {
		t.Errorf("the result is %+v", result)
	}
	cause := <-r.ended
	if !errors.Is(cause, gworker.ErrJobCancelled) || cause.Error() != "the job was cancelled: no longer needed" {
		t.Errorf("the cause is %v", cause)
	}
	interrupted := waitFor[gworker.JobInterrupted](t, r.events, nil)
	if interrupted.Job.ID != r.job.ID || !errors.Is(interrupted.Cause, gworker.ErrJobCancelled) {
		t.Errorf("the event is %+v", interrupted)
	}
	// Its queue is free for the next one.
	waitFor(t, r.events, func(e gworker.JobStarted) bool { return e.Job.ID == next.ID })
	r.end <- nil
	waitFor(t, r.events, func(e gworker.JobCompleted) bool { return e.Job.ID == next.ID })
	r.wantCancelled(t, "no longer needed")
	cancelJob(t, r.client, r.job.ID, "again", gworker.CancelAlreadyFailed)
	r.wantFailedRow(t, "no longer needed")
}

func TestCancelJobThatDoesNotRun(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	job := add(t, client, gworker.JobSpec{Task: "x", Key: "k"})
	cancelJob(t, client, job.ID+1, "", gworker.CancelNotFound)
	if result := cancelJob(t, client, job.ID, "", gworker.CancelFailed); result.WorkerID != "" || result.Reason != "the job was cancelled" {
		t.Errorf("the result is %+v", result)
	}
	if result := cancelJob(t, client, job.ID, "too late", gworker.CancelAlreadyFailed); result.Reason != "the job was cancelled" {
		t.Errorf("the second result is %+v", result)
	}
	var got string
	scan(t, pool, "select concat_ws('|', attempts, key, flags, last_error) from graphile_worker._private_jobs", nil, &got)
	if want := "25|k|the job was cancelled"; got != want {
		t.Errorf("the row is %q, want %q", got, want)
	}
	if _, err := client.Cancel(t.Context(), job.ID, "a\x00b"); !isFieldError(err) {
		t.Errorf("a reason with a NUL: %v", err)
	}
	if _, err := client.AddJob(t.Context(), gworker.JobSpec{Task: "x", Flags: []string{"gworker:cancel"}}); !isFieldError(err) {
		t.Errorf("a job with the mark as a flag: %v", err)
	}
}

func isFieldError(err error) bool {
	var field *gworker.FieldError
	return errors.As(err, &field)
}

func TestCancelOfOtherRuntimes(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	for _, holder := range []string{"pool-0a", "worker-0a", "graphile_worker_0a", "?"} {
		job := add(t, client, gworker.JobSpec{Task: "x"})
		exec(t, pool, `update graphile_worker._private_jobs set attempts = 1, locked_by = $2, locked_at = now() where id = $1`,
			job.ID, holder)
		if result := cancelJob(t, client, job.ID, "r", gworker.CancelKeptFromRetrying); result.WorkerID != holder {
			t.Errorf("the result is %+v", result)
		}
		var locked bool
		scan(t, pool, `select locked_by = $2 and locked_at is not null and attempts = max_attempts
			from graphile_worker._private_jobs where id = $1`, []any{job.ID, holder}, &locked)
		if !locked {
			t.Errorf("%s no longer holds its job, or may try it again", holder)
		}
	}
}

func TestCancelWhoseNotificationIsLost(t *testing.T) {
	t.Parallel()
	t.Run("is found by the next look", func(t *testing.T) {
		t.Parallel()
		r := startRunning(t, false, gworker.JobSpec{}, gworker.RecoveryConfig{HeartbeatInterval: 50 * time.Millisecond})
		r.cancelUnheard(t, "unheard")
		<-r.ended
		r.wantCancelled(t, "unheard")
	})
	t.Run("is found after a reconnect", func(t *testing.T) {
		t.Parallel()
		r := startRunning(t, false, gworker.JobSpec{}, deaf)
		r.cancelUnheard(t, "unheard")
		exec(t, r.pool, `select pg_terminate_backend(pid) from pg_stat_activity where query like 'LISTEN%' and datname = current_database()`)
		<-r.ended
		r.wantCancelled(t, "unheard")
	})
	t.Run("is told again by cancelling again", func(t *testing.T) {
		t.Parallel()
		r := startRunning(t, false, gworker.JobSpec{}, deaf)
		r.cancelUnheard(t, "first")
		if result := cancelJob(t, r.client, r.job.ID, "second", gworker.CancelRequested); result.Reason != "first" {
			t.Errorf("the second result is %+v", result)
		}
		<-r.ended
		r.wantCancelled(t, "first")
	})
}

// Whatever the end of a run that has not heard: a job that is not complete stays
// failed.
func TestRunThatEndsWithoutHearingOfItsCancel(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]gworker.JobSpec{
		"plain": {}, "keyed": {Key: "k"}, "last attempt": {MaxAttempts: 1}, "flagged, in a queue": {Flags: []string{"f"}, Queue: "q"},
	} {
		if testing.Short() && name != "keyed" {
			continue
		}
		begin := func(t *testing.T, stubborn bool) *runningJob {
			t.Parallel()
			r := startRunning(t, stubborn, spec, deaf)
			r.cancelUnheard(t, "unheard")
			return r
		}
		t.Run(name+", completes", func(t *testing.T) {
			r := begin(t, false)
			r.end <- nil
			r.wantComplete(t)
		})
		t.Run(name+", fails", func(t *testing.T) {
			r := begin(t, false)
			r.end <- errors.New("its own error")
			r.wantCancelled(t, "unheard")
		})
		t.Run(name+", is cut off by a shutdown", func(t *testing.T) {
			r := begin(t, false)
			if err := r.stop(); err != nil {
				t.Error(err)
			}
			if cause := <-r.ended; !errors.Is(cause, gworker.ErrShutdown) {
				t.Errorf("the cause is %v", cause)
			}
			r.wantCancelled(t, "unheard")
		})
		t.Run(name+", is abandoned", func(t *testing.T) {
			r := begin(t, true)
			r.Abandon()
			if err := r.stop(); err != nil {
				t.Error(err)
			}
			r.wantCancelled(t, "unheard")
		})
	}
}

// The worker has heard: what the handler returns changes nothing.
func TestHandlerThatIgnoresItsCancel(t *testing.T) {
	t.Parallel()
	for _, returned := range []error{nil, errors.New("its own error")} {
		t.Run(fmt.Sprint(returned), func(t *testing.T) {
			t.Parallel()
			r := startRunning(t, true, gworker.JobSpec{}, deaf)
			cancelJob(t, r.client, r.job.ID, "stop it", gworker.CancelRequested)
			waitFor[gworker.JobInterrupted](t, r.events, nil)
			cancelJob(t, r.client, r.job.ID, "stop it now", gworker.CancelRequested)
			r.end <- returned
			r.wantCancelled(t, "stop it")
			if n := count[gworker.JobInterrupted](r.events); n != 1 {
				t.Errorf("it was interrupted %d times", n)
			}
		})
	}
}

func TestCancelledJobAndItsKey(t *testing.T) {
	t.Parallel()
	later := gworker.JobSpec{Task: "slow", Key: "k", RunAt: time.Now().Add(time.Hour)}
	wantNext := func(t *testing.T, r *runningJob, next *gworker.JobRow) {
		t.Helper()
		var keys []string
		scan(t, r.pool, `select array_agg(key) from graphile_worker._private_jobs where id = $1 and id <> $2 and attempts = 0`,
			[]any{next.ID, r.job.ID}, &keys)
		if len(keys) != 1 || keys[0] != "k" {
			t.Errorf("the job that replaced it has the key %q", keys)
		}
	}
	t.Run("replaced after the cancel", func(t *testing.T) {
		t.Parallel()
		r := startRunning(t, false, gworker.JobSpec{Key: "k"}, deaf)
		r.cancelUnheard(t, "obsolete")
		next := add(t, r.client, later)
		r.end <- errors.New("fails")
		r.wantCancelled(t, "obsolete")
		wantNext(t, r, next)
	})
	t.Run("replaced before the cancel", func(t *testing.T) {
		t.Parallel()
		r := startRunning(t, false, gworker.JobSpec{Key: "k"}, deaf)
		next := add(t, r.client, later)
		cancelJob(t, r.client, r.job.ID, "obsolete", gworker.CancelRequested)
		<-r.ended
		r.wantCancelled(t, "obsolete")
		wantNext(t, r, next)
	})
}

// A mark names one run. What is left of it, or what looks like one, means nothing
// to the next run.
func TestLeftOverCancelMark(t *testing.T) {
	t.Parallel()
	for name, mark := range map[string]string{
		"of another lock": `"gworker_x 2026-01-01T00:00:00.000000Z"`, "a flag": `true`, "an object": `{"a": 1}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			client := newClient(t, pool)
			job := add(t, client, gworker.JobSpec{Task: "x", Flags: []string{"f"}})
			exec(t, pool, `update graphile_worker._private_jobs set flags = flags || jsonb_build_object('gworker:cancel', $1::jsonb)`, mark)
			seen := runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
				gworker.NewTask("x", func(_ context.Context, j *gworker.Job[any]) error {
					if len(j.Flags) != 1 || j.Flags[0] != "f" {
						t.Errorf("the handler sees the flags %q", j.Flags)
					}
					return errors.New("fails")
				}),
			}})
			if e := waitFor[gworker.JobFailed](t, seen, nil); e.Job.ID != job.ID {
				t.Errorf("%+v failed", e.Job)
			}
			var attempts int
			scan(t, pool, "select attempts from graphile_worker._private_jobs where last_error = 'fails'", nil, &attempts)
			if attempts != 1 {
				t.Errorf("it has %d attempts", attempts)
			}
		})
	}
}

// The cancel commits while the statement that writes the run's end waits for it.
func TestCancelAsTheOutcomeIsWritten(t *testing.T) {
	t.Parallel()
	for name, cutOff := range map[string]bool{"fails": false, "is returned": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startRunning(t, false, gworker.JobSpec{}, deaf)
			tx, err := r.pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(context.Background()) }()
			exec(t, r.pool, "select 1") // a connection for what follows
			result, err := cancel.InTx(t.Context(), statement.NewSet(statement.Options{}).On(tx), r.job.ID, "at the last moment")
			if err != nil || result.State != gworker.CancelRequested {
				t.Fatal(result, err)
			}
			stopped := make(chan error, 1)
			if cutOff {
				go func() { stopped <- r.stop() }()
			} else {
				stopped <- nil
				r.end <- errors.New("its own error")
			}
			waitForWaiting(t, r.pool, 1)
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-stopped; err != nil {
				t.Error(err)
			}
			r.wantCancelled(t, "at the last moment")
		})
	}
	t.Run("the outcome is first", func(t *testing.T) {
		t.Parallel()
		r := startRunning(t, false, gworker.JobSpec{}, deaf)
		tx, err := r.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		if _, err := tx.Exec(t.Context(), "select from graphile_worker._private_jobs where id = $1 for update", r.job.ID); err != nil {
			t.Fatal(err)
		}
		r.end <- errors.New("its own error")
		waitForWaiting(t, r.pool, 1)
		results := make(chan gworker.CancelResult, 1)
		go func() {
			result, err := r.client.Cancel(context.Background(), r.job.ID, "too late to interrupt")
			if err != nil {
				t.Error(err)
			}
			results <- result
		}()
		waitForWaiting(t, r.pool, 2)
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Who of the two comes first is the server's choice, and makes no
		// difference to the job.
		if s := (<-results).State; s != gworker.CancelFailed && s != gworker.CancelRequested {
			t.Errorf("the state is %q", s)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		r.wantFailedRow(t, "too late to interrupt")
	})
}

// waitForWaiting waits until so many sessions wait for locks.
func waitForWaiting(t *testing.T, pool *pgxpool.Pool, want int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		var n int
		scan(t, pool, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()", nil, &n)
		if n >= want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions wait for a lock, want %d", n, want)
		}
	}
}

// A SQL task commits with its completion: there is nothing to cancel any more, or
// everything is rolled back.
func TestCancelOfASQLTask(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	exec(t, pool, "create table effects (n int)")
	files, err := gworker.LoadTasksFS(fstest.MapFS{"slow.sql": {Data: []byte("insert into effects values (1); select pg_sleep(3600);")}})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, gworker.Config{Pool: pool, Recovery: deaf, Tasks: files.Tasks})
	waitFor[gworker.ListenerConnected](t, r.events, nil)
	job := add(t, client, gworker.JobSpec{Task: "slow"})
	waitFor[gworker.JobStarted](t, r.events, nil)
	cancelJob(t, client, job.ID, "stop", gworker.CancelRequested)
	e := waitFor[gworker.JobPermanentlyFailed](t, r.events, nil)
	if !errors.Is(e.Err, gworker.ErrJobCancelled) {
		t.Errorf("it failed with %v", e.Err)
	}
	var effects int
	scan(t, pool, "select count(*) from effects", nil, &effects)
	if effects != 0 {
		t.Errorf("%d effects are there", effects)
	}
}
