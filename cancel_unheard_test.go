package gworker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/cancel"
	"github.com/gworker/gworker/internal/statement"
)

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
		r := startRunning(t, false, gworker.JobSpec{}, rarelyLooking)
		r.cancelUnheard(t, "unheard")
		exec(t, r.pool, `select pg_terminate_backend(pid) from pg_stat_activity where query like 'LISTEN%' and datname = current_database()`)
		<-r.ended
		r.wantCancelled(t, "unheard")
	})
	t.Run("is told again by cancelling again", func(t *testing.T) {
		t.Parallel()
		r := startRunning(t, false, gworker.JobSpec{}, rarelyLooking)
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
			r := startRunning(t, stubborn, spec, rarelyLooking)
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
			if err := r.Stop(); err != nil {
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
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
			r.wantCancelled(t, "unheard")
		})
	}
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
			if e := waitFor[event.JobFailed](t, seen, nil); e.Job.ID != job.ID {
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
			r := startRunning(t, false, gworker.JobSpec{}, rarelyLooking)
			tx, err := r.pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(context.Background()) }()
			exec(t, r.pool, "select 1") // a connection for what follows
			result, err := cancel.InTx(t.Context(), statement.NewSet(statement.Options{}).On(tx), r.job.ID, "at the last moment")
			if err != nil || result.State != cancel.Requested {
				t.Fatal(result, err)
			}
			stopped := make(chan error, 1)
			if cutOff {
				go func() { stopped <- r.Stop() }()
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
		r := startRunning(t, false, gworker.JobSpec{}, rarelyLooking)
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
		if err := r.Stop(); err != nil {
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
