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
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// rarelyLooking are recovery settings under which a worker does not look for cancellations
// within the time of a test, so that it learns of them only by notifications.
var rarelyLooking = gworker.RecoveryConfig{HeartbeatInterval: time.Hour, StaleAfter: 3 * time.Hour}

// runningJob is a worker with a job whose handler waits.
type runningJob struct {
	*testworker.Worker
	url    string
	pool   *pgxpool.Pool
	client *gworker.Client
	job    *gworker.JobRow
	ended  chan error // causes of the handlers' contexts
	end    chan error // what the handler returns, if it does not heed its context
}

// startRunning runs a job of the task "slow". Its handler waits for end, and unless it
// ignores its context, for that as well.
func startRunning(t *testing.T, ignoresContext bool, spec gworker.JobSpec, recovery gworker.RecoveryConfig) *runningJob {
	t.Helper()
	url := testdb.Migrated(t)
	r := &runningJob{url: url, pool: testdb.Pool(t, url), ended: make(chan error, 10), end: make(chan error, 10)}
	t.Cleanup(func() { close(r.end) })
	r.client = newClient(t, r.pool)
	started := make(chan struct{}, 10)
	r.Worker = start(t, gworker.Config{
		Pool: r.pool, Recovery: recovery, GracefulShutdownAbortTimeout: 10 * time.Millisecond,
		Tasks: []gworker.Task{gworker.NewTask("slow", func(ctx context.Context, _ *gworker.Job[any]) error {
			started <- struct{}{}
			done := ctx.Done()
			if ignoresContext {
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
	waitFor[event.ListenerConnected](t, r.Events, nil)
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
	e := waitFor(t, r.Events, func(e event.JobPermanentlyFailed) bool { return e.Job.ID == r.job.ID })
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
	waitFor(t, r.Events, func(e event.JobCompleted) bool { return e.Job.ID == r.job.ID })
	if n := jobCount(t, r.pool); n != 0 {
		t.Errorf("%d jobs are left", n)
	}
}

// The worker looks once an hour: it is the notification that tells it.
func TestCancel(t *testing.T) {
	t.Parallel()
	r := startRunning(t, false, gworker.JobSpec{Queue: "q", Key: "k", Flags: []string{"f"}}, rarelyLooking)
	next := add(t, r.client, gworker.JobSpec{Task: "slow", Queue: "q"})

	result := cancelJob(t, r.client, r.job.ID, "no longer needed", gworker.CancelRequested)
	if result.WorkerID != r.ID() || result.Task != "slow" || result.Reason != "no longer needed" {
		t.Errorf("the result is %+v", result)
	}
	cause := <-r.ended
	if !errors.Is(cause, gworker.ErrJobCancelled) || cause.Error() != "the job was cancelled: no longer needed" {
		t.Errorf("the cause is %v", cause)
	}
	interrupted := waitFor[event.JobInterrupted](t, r.Events, nil)
	if interrupted.Job.ID != r.job.ID || !errors.Is(interrupted.Cause, gworker.ErrJobCancelled) {
		t.Errorf("the event is %+v", interrupted)
	}
	// Its queue is free for the next one.
	waitFor(t, r.Events, func(e event.JobStarted) bool { return e.Job.ID == next.ID })
	r.end <- nil
	waitFor(t, r.Events, func(e event.JobCompleted) bool { return e.Job.ID == next.ID })
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

// The worker has heard: what the handler returns changes nothing.
func TestHandlerThatIgnoresItsCancel(t *testing.T) {
	t.Parallel()
	for _, returned := range []error{nil, errors.New("its own error")} {
		t.Run(fmt.Sprint(returned), func(t *testing.T) {
			t.Parallel()
			r := startRunning(t, true, gworker.JobSpec{}, rarelyLooking)
			cancelJob(t, r.client, r.job.ID, "stop it", gworker.CancelRequested)
			waitFor[event.JobInterrupted](t, r.Events, nil)
			cancelJob(t, r.client, r.job.ID, "stop it now", gworker.CancelRequested)
			r.end <- returned
			r.wantCancelled(t, "stop it")
			if n := count[event.JobInterrupted](r.Events); n != 1 {
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
		r := startRunning(t, false, gworker.JobSpec{Key: "k"}, rarelyLooking)
		r.cancelUnheard(t, "obsolete")
		next := add(t, r.client, later)
		r.end <- errors.New("fails")
		r.wantCancelled(t, "obsolete")
		wantNext(t, r, next)
	})
	t.Run("replaced before the cancel", func(t *testing.T) {
		t.Parallel()
		r := startRunning(t, false, gworker.JobSpec{Key: "k"}, rarelyLooking)
		next := add(t, r.client, later)
		cancelJob(t, r.client, r.job.ID, "obsolete", gworker.CancelRequested)
		<-r.ended
		r.wantCancelled(t, "obsolete")
		wantNext(t, r, next)
	})
}

// A SQL task commits together with its completion: either that is done and nothing is left
// to cancel, or everything is rolled back.
func TestCancelOfASQLTask(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	exec(t, pool, "create table effects (n int)")
	files, err := gworker.LoadTasksFS(fstest.MapFS{"slow.sql": {Data: []byte("insert into effects values (1); select pg_sleep(3600);")}})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, gworker.Config{Pool: pool, Recovery: rarelyLooking, Tasks: files.Tasks})
	waitFor[event.ListenerConnected](t, r.Events, nil)
	job := add(t, client, gworker.JobSpec{Task: "slow"})
	waitFor[event.JobStarted](t, r.Events, nil)
	cancelJob(t, client, job.ID, "stop", gworker.CancelRequested)
	e := waitFor[event.JobPermanentlyFailed](t, r.Events, nil)
	if !errors.Is(e.Err, gworker.ErrJobCancelled) {
		t.Errorf("it failed with %v", e.Err)
	}
	var effects int
	scan(t, pool, "select count(*) from effects", nil, &effects)
	if effects != 0 {
		t.Errorf("%d effects are there", effects)
	}
}

// TestCancelJobOfTheLocalQueue: a job that was claimed ahead of its slot never
// starts, and nothing behind it waits for it.
func TestCancelJobOfTheLocalQueue(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	var jobs []*gworker.JobRow
	for range 3 {
		jobs = append(jobs, add(t, client, gworker.JobSpec{Task: "slow"}))
	}
	pass := make(chan struct{}, len(jobs))
	w := start(t, gworker.Config{
		Pool: pool, Concurrency: 1, LocalQueue: gworker.LocalQueueConfig{Size: 10}, Recovery: rarelyLooking,
		Tasks: []gworker.Task{gworker.NewTask("slow", func(context.Context, *gworker.Job[any]) error {
			<-pass
			return nil
		})},
	})
	waitFor(t, w.Events, func(e event.JobStarted) bool { return e.Job.ID == jobs[0].ID })
	waitFor[event.ListenerConnected](t, w.Events, nil)

	cancelJob(t, client, jobs[1].ID, "not wanted", gworker.CancelRequested)
	failed := waitFor[event.JobPermanentlyFailed](t, w.Events, nil)
	if failed.Job.ID != jobs[1].ID {
		t.Errorf("job %d failed, want %d", failed.Job.ID, jobs[1].ID)
	}
	for range jobs {
		pass <- struct{}{}
	}
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == jobs[2].ID })
	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	if n := count[event.JobStarted](w.Events); n != 2 {
		t.Errorf("%d jobs started, want 2", n)
	}
	var lastError string
	scan(t, pool, `select last_error from graphile_worker._private_jobs
		where attempts >= max_attempts and locked_at is null and flags is null`, nil, &lastError)
	if lastError != "not wanted" {
		t.Errorf("the last error is %q", lastError)
	}
}
