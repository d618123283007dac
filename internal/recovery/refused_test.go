package recovery_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker/event"
)

// refuseUpdates has the database raise against updates of a column of registrations.
func (f *fixture) refuseUpdates(column string) {
	f.t.Helper()
	f.refuseChange("update of "+column, "raise 'hands off'")
}

// refuseChange has the database do something else at a change of registrations.
func (f *fixture) refuseChange(change, body string) {
	f.t.Helper()
	f.exec(`create function public.refuse() returns trigger language plpgsql as $$ begin ` + body + `; end $$`)
	f.exec(`create trigger refuse before ` + change + ` on graphile_worker._private_workers for each row execute function public.refuse()`)
}

// TestSweepGoesOnDespiteRefusedNotes: that the silence of a worker cannot be noted keeps no
// jobs of dead ones, and is told once a sweep.
func TestSweepGoesOnDespiteRefusedNotes(t *testing.T) {
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

// TestRefusedHeartbeats: a worker whose heartbeat is refused tells of it, and goes on. It
// does not believe that another has declared it dead.
func TestRefusedHeartbeats(t *testing.T) {
	t.Parallel()
	for body, told := range map[string]string{
		"raise 'hands off'": "hands off", "return null": "returns null or the old row", "return old": "returns null or the old row",
	} {
		t.Run(body, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			p := newPolled(f)
			p.kept.Interval = time.Second
			p.start()
			f.exec("select graphile_worker.add_job('x')")
			f.refuseChange("update of last_heartbeat_at", body)
			for range 2 { // the second after the heartbeat has met the refusal
				if !p.poll() {
					t.Error("the poll finds no job")
				}
				e := waitFor[event.HeartbeatFailed](f, nil)
				if !strings.Contains(e.Err.Error(), told) || e.RetryIn <= 0 {
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
					t.Fatal("heartbeats have stopped")
				}
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, e := range f.events {
				if dead, is := e.(event.WorkerDeclaredDead); is {
					t.Errorf("%+v", dead)
				}
			}
		})
	}
}

// TestRefusedRegistrations: a worker that cannot be registered does not go on as if it was.
func TestRefusedRegistrations(t *testing.T) {
	t.Parallel()
	for body, told := range map[string]string{"raise 'hands off'": "hands off", "return null": "returns null"} {
		t.Run(body, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.refuseChange("insert", body)
			if err := newKept(f, "gworker_a").Register(t.Context()); err == nil || !strings.Contains(err.Error(), told) {
				t.Errorf("error is %v", err)
			}
			f.exec("drop function public.refuse cascade")
			k := newKept(f, "gworker_b")
			k.start()
			f.refuseChange("insert", body)
			f.exec("delete from graphile_worker._private_workers")
			waitFor[event.WorkerDeclaredDead](f, nil)
			e := waitFor[event.HeartbeatFailed](f, nil)
			if text := e.Err.Error(); !strings.Contains(text, told) || !strings.Contains(text, "registering again") {
				t.Error(text)
			}
			f.exec("drop function public.refuse cascade")
			for end := time.Now().Add(time.Minute); f.one("select count(*)::text from graphile_worker._private_workers") != "1"; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("it does not register again")
				}
			}
		})
	}
}
