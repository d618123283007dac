package recovery_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/recovery"
)

// TestOldLocksAreResetByTheWorkersClock, which is days away from the database's.
func TestOldLocksAreResetByTheWorkersClock(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	const days = 24 * time.Hour
	for _, offset := range []time.Duration{-100 * days, 100 * days} {
		t.Run(offset.String(), func(t *testing.T) {
			f := newFixture(t)
			clock := time.Now().Add(offset)
			old := f.locked("pool-1", 5*time.Hour-offset, "queue_name => 'q'")
			young := f.locked("pool-1", 3*time.Hour-offset, "queue_name => 'other'")
			loop := &recovery.Sweeper{
				WorkerID: "gworker_a", Pool: f.Pool, Statements: f.statements, Events: f.stream,
				Now: func() time.Time { return clock },
			}
			if err := recovery.ResetOldLocks(t.Context(), loop); err != nil {
				t.Fatal(err)
			}
			e := waitFor[event.OldLocksReset](f, nil)
			if fmt.Sprint(e.JobIDs, e.Queues) != fmt.Sprintf("[%d] [q]", old) {
				t.Errorf("event %+v", e)
			}
			var runAt time.Time
			if err := f.QueryRow(t.Context(), "select run_at from graphile_worker._private_jobs where id = $1", old).Scan(&runAt); err != nil {
				t.Fatal(err)
			}
			// The job was due in 2020, and is due now, by the worker's clock.
			if runAt.Sub(clock).Abs() > time.Millisecond {
				t.Errorf("due at %s, want %s", runAt, clock)
			}
			if got := f.one("select locked_by from graphile_worker._private_jobs where id = $1", young); got != "pool-1" {
				t.Errorf("the young lock is %q's", got)
			}
		})
	}
}

// TestDeadWorkerThatWentByAnotherClock: its locks are from the future or the
// past, and say nothing about its life.
func TestDeadWorkerThatWentByAnotherClock(t *testing.T) {
	const days = 24 * time.Hour
	f := newFixture(t)
	f.register("gworker_dead", time.Hour, "{}")
	f.register("gworker_alive", time.Second, "{}")
	var lost, kept []int64
	for _, ago := range []time.Duration{-100 * days, -time.Second, 0, 100 * days} {
		lost = append(lost, f.locked("gworker_dead", ago, ""))
		kept = append(kept, f.locked("gworker_alive", ago, ""))
	}
	if result := f.sweep(); dead(result) != "[gworker_dead]" || len(result.Workers[0].Jobs) != len(lost) {
		t.Errorf("took %+v", result)
	}
	for _, id := range lost {
		if got := f.one("select attempts || coalesce(locked_by, '') from graphile_worker._private_jobs where id = $1", id); got != "0" {
			t.Errorf("job %d of the dead worker is %s", id, got)
		}
	}
	for _, id := range kept {
		if got := f.one("select attempts || coalesce(locked_by, '') from graphile_worker._private_jobs where id = $1", id); got != "1gworker_alive" {
			t.Errorf("job %d of the living worker is %s", id, got)
		}
	}
}
