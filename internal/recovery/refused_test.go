package recovery_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/event"
)

// refuseUpdates has the database raise against updates of a column of registrations.
func (f *fixture) refuseUpdates(column string) {
	f.t.Helper()
	f.exec(`create function public.refuse() returns trigger language plpgsql as $$ begin raise 'hands off'; end $$`)
	f.exec(`create trigger refuse before update of ` + column + ` on graphile_worker._private_workers for each row execute function public.refuse()`)
}

// TestSweepGoesOnBesideRefusedNotes: that the silence of a worker cannot be noted keeps no
// jobs of dead ones, and is told once a sweep.
func TestSweepGoesOnBesideRefusedNotes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.options.StaleAfter = time.Millisecond
	f.options.Watched = justStarted
	f.register("gworker_dead", time.Hour, "{}")
	id := f.locked("gworker_dead", time.Hour, "")
	f.sweep() // notes its silence
	f.refuseUpdates("metadata")
	f.register("gworker_silent", time.Hour, "{}")
	f.register("gworker_other", time.Hour, "{}")
	sweeps := 1
	for f.sweep(); f.row(id) != "0|-|"+counted1+"|now"; sweeps++ {
		f.sweep()
		if t.Context().Err() != nil || sweeps > 1000 {
			t.Fatal("the job is not given back")
		}
	}
	told := 0
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		if failed, is := e.(event.SweepFailed); is {
			told++
			if text := failed.Err.Error(); !strings.Contains(text, "hands off") || !strings.Contains(text, "is silent") {
				t.Error(text)
			}
		}
	}
	if told != sweeps {
		t.Errorf("%d sweeps told of %d refusals", sweeps, told)
	}
}

// TestRefusedHeartbeats: a worker whose heartbeat is refused tells of it, and goes on.
func TestRefusedHeartbeats(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := newPolled(f)
	p.kept.Interval = time.Second
	p.start()
	f.exec("select graphile_worker.add_job('x')")
	f.refuseUpdates("last_heartbeat_at")
	for range 2 { // the second after the keeper has met the refusal
		if !p.poll() {
			t.Error("the poll finds no job")
		}
		e := waitFor[event.HeartbeatFailed](f, nil)
		if !strings.Contains(e.Err.Error(), "hands off") || e.RetryIn <= 0 {
			t.Errorf("%+v", e)
		}
	}
	heartbeat := func() string {
		return f.one("select max(last_heartbeat_at)::text from graphile_worker._private_workers")
	}
	before := heartbeat()
	f.exec("drop function public.refuse cascade")
	for end := time.Now().Add(time.Minute); heartbeat() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no heartbeat comes any more")
		}
	}
}
