package recovery_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/cancel"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/recovery"
)

func (f *fixture) cancel(id int64, reason string) cancel.State {
	f.t.Helper()
	result, err := cancel.Cancel(f.t.Context(), f.Pool, f.statements, id, reason)
	if err != nil {
		f.t.Fatal(err)
	}
	return result.State
}

func TestCancelledJobOfADeadWorker(t *testing.T) {
	t.Parallel()
	onEachSchema(t, func(t *testing.T, f *fixture, _ string) {
		f.options.Decide = func(_ context.Context, j recovery.Job) recovery.Decision {
			t.Errorf("asked about job %d", j.ID)
			return recovery.Decision{}
		}
		f.register("gworker_dead", 2*time.Minute, "{}")
		var ids []int64
		for _, spec := range []string{"", "job_key => 'k'", "flags => array['f'], queue_name => 'q'", "max_attempts => 1"} {
			id := f.locked("gworker_dead", 5*time.Minute, spec)
			if s := f.cancel(id, "not wanted"); s != cancel.Requested {
				t.Fatalf("the state is %q", s)
			}
			ids = append(ids, id)
		}
		result := f.sweep()
		if dead(result) != "[gworker_dead]" || len(result.Workers[0].Jobs) != len(ids) || !result.Workers[0].Jobs[0].Cancelled {
			t.Fatalf("swept %+v", result)
		}
		for _, id := range ids {
			got := f.one(`select concat_ws('|', max_attempts - attempts, coalesce(locked_by, '-'), last_error, flags)
				from graphile_worker._private_jobs where id = $1`, id)
			if want := "0|-|not wanted"; got != want && got != want+`|{"f": true}` {
				t.Errorf("job %d is %q, want %q", id, got, want)
			}
		}
		if free := f.one("select count(*)::text from graphile_worker._private_job_queues where is_available"); free != "1" {
			t.Error("the queue is not free")
		}
		e := waitFor[event.WorkerRecovered](f, nil)
		if len(e.GivenUp) != len(ids) || len(e.JobIDs) != 0 {
			t.Errorf("the event is %+v", e)
		}
	})
}

// Rust's sweepers call the schema's function and nothing else, which takes the
// reason away.
func TestCancelledJobThatAnotherRuntimeRecovers(t *testing.T) {
	t.Parallel()
	onEachSchema(t, func(t *testing.T, f *fixture, schema string) {
		if schema == "Rust's revisions 20 and 21" {
			t.Skip("its function gives the attempt of a cancelled job back")
		}
		for holder, want := range map[string]cancel.State{"gworker_dead": cancel.Requested, "graphile_worker_dead": cancel.KeptFromRetrying} {
			for _, spec := range []string{"", "job_key => 'k'"} {
				id := f.locked(holder, 5*time.Minute, spec)
				if s := f.cancel(id, "not wanted"); s != want {
					t.Errorf("the state is %q, want %q", s, want)
				}
				f.exec("select graphile_worker.recover_dead_worker_jobs(array[$1])", holder)
				f.wantRow(id, "25|-|Job recovered after worker interruption|now")
			}
		}
	})
}

func TestCancelledJobWhoseLockIsTooOld(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.locked("gworker_a", 5*time.Hour, "")
	if s := f.cancel(id, "not wanted"); s != cancel.Requested {
		t.Errorf("the state is %q", s)
	}
	if _, err := f.statements.On(f.Pool).ResetOldJobLocks(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	f.wantRow(id, "25|-|not wanted|now")
}

// An announcement may be heard before the worker has the answer of the claim that
// took the job.
func TestCancelIsHeardBeforeTheClaimIsAnswered(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	f := newFixture(t)
	id := f.locked("gworker_a", time.Minute, "")
	f.cancel(id, "early")
	j := &job.Claimed{Row: job.Row{ID: id}}
	if err := f.QueryRow(t.Context(), "select locked_at from graphile_worker._private_jobs where id = $1", id).Scan(&j.Lock.At); err != nil {
		t.Fatal(err)
	}
	asked := 0
	cancelled := make(chan error, 10)
	locks := recovery.NewLockWatch(&recovery.LockWatch{
		WorkerID: "gworker_a", Interval: time.Hour, Queries: f.statements.On(f.Pool), Events: f.stream,
		Running: func() []*job.Claimed { // called by one goroutine
			if asked++; asked == 1 {
				return nil
			}
			return []*job.Claimed{j}
		},
		Lose: func([]*job.Claimed, error) { t.Error("lost") },
		Cancel: func(told *job.Claimed, cause error) {
			if told != j {
				t.Errorf("told about %+v", told)
			}
			cancelled <- cause
		},
	})
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { locks.Run(ctx) })
	defer done.Wait()
	defer stop()
	locks.LookForCancelled(true)
	select {
	case cause := <-cancelled:
		if !errors.Is(cause, job.ErrCancelled) || cause.Error() != "the job was cancelled: early" {
			t.Errorf("the cause is %v", cause)
		}
	case <-time.After(time.Minute):
		t.Fatal("it was not looked again")
	}
}
