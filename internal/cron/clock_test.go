package cron_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/cron"
	"github.com/gworker/gworker/internal/testdb"
)

// A clock that is wrong for a while does not keep cron waiting for all of the way to
// the next minute by the wrong clock.
func TestWrongClockThatIsMended(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t, migrated(t))
	w := startLoop(t, pool, clockTime("10:00:30"), "* * * * * a")
	w.waiting(t, clockTime("10:01:00"))
	w.moveTo(clockTime("09:30:00"), true)
	early := await[event.CronTimerEarly](t, w)
	if !early.Minute.Equal(clockTime("10:01:00")) {
		t.Errorf("%+v", early)
	}
	w.waiting(t, clockTime("10:01:00")) // half an hour by this clock
	w.setTo(clockTime("10:01:01"))
	done := await[event.CronScheduled](t, w)
	if !done.Minute.Equal(clockTime("10:01:00")) {
		t.Errorf("%+v", done)
	}
	want(t, "jobs", jobs(t, pool), "a 10:01")
}

// A clock that stands still just before a minute brings no more wake-ups than any
// other, and is reported once.
func TestClockThatStandsStill(t *testing.T) {
	t.Parallel()
	for what, now := range map[string]time.Time{
		"just before a minute": clockTime("10:00:59").Add(999_999_999),
		"long before":          clockTime("10:00:01"),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			pool := testdb.Pool(t, migrated(t))
			var mu sync.Mutex
			var slept time.Duration
			var wakes int
			enough := make(chan struct{})
			w := startLoop(t, pool, now, "* * * * * a", func(l *cron.Loop) {
				// Time passes, for all but the clock: the shortest timer that is waited
				// for fires at once.
				var set []time.Duration
				l.Clock = cron.Clock{Now: func() time.Time { return now }, Timer: func(d time.Duration) (<-chan time.Time, func()) {
					mu.Lock()
					defer mu.Unlock()
					fired := make(chan time.Time, 1)
					if set = append(set, d); len(set) == 2 { // the time, and the next look at the clock
						if wakes++; wakes == 40 {
							close(enough)
						}
						slept += min(set[0], set[1])
						if wakes < 40 && set[1] <= set[0] {
							fired <- now
						}
						set = nil
					} else if wakes < 39 && d < 2*time.Second {
						fired <- now
					}
					return fired, func() {}
				}}
			})
			select {
			case <-enough:
			case <-time.After(patience):
				t.Fatal("it does not look at the clock")
			}
			w.stop()
			if slept < 40*time.Second {
				t.Errorf("40 wake-ups within %s", slept)
			}
			early := 0
			for len(w.events) > 0 {
				if _, ok := (<-w.events).(event.CronTimerEarly); ok {
					early++
				}
			}
			if early > 1 {
				t.Errorf("%d events of one early timer", early)
			}
		})
	}
}

// Another worker, of whatever runtime, locks the rows of the same items in another
// order. Nobody waits for it with rows of its own.
func TestOtherWorkersWithOtherOrders(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, insert := range map[string]bool{"the first time": true, "later": false} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			pool := testdb.Pool(t, migrated(t))
			const upsert = `insert into graphile_worker._private_known_crontabs as k (identifier, known_since) values ($1, now())
				on conflict (identifier) do update set last_execution = k.last_execution`
			if !insert {
				if _, err := pool.Exec(t.Context(), `insert into graphile_worker._private_known_crontabs
					select i, now() from unnest('{a,b,c}'::text[]) i`); err != nil {
					t.Fatal(err)
				}
			}
			tx, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(context.Background()) }()
			lock := func(name string) {
				if _, err := tx.Exec(t.Context(), upsert, name); err != nil {
					t.Fatalf("the other worker, at %s: %v", name, err)
				}
			}
			lock("b")
			w := startLoop(t, pool, clockTime("10:00:00"), "* * * * * a\n* * * * * b\n* * * * * c")
			for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
				var waits bool
				if err := pool.QueryRow(t.Context(), `select exists (select from pg_stat_activity
					where wait_event_type = 'Lock' and datname = current_database())`).Scan(&waits); err != nil {
					t.Fatal(err)
				}
				if waits {
					break
				}
				if time.Now().After(end) {
					t.Fatal("nobody waits for the row")
				}
			}
			lock("a")
			lock("c")
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			for {
				select {
				case e := <-w.events:
					switch e := e.(type) {
					case event.CronFailed:
						t.Fatal(e.Err)
					case event.CronScheduled:
						if len(e.Jobs) != 3 {
							t.Errorf("%+v", e)
						}
						return
					}
				case <-time.After(patience):
					t.Fatal("nothing was scheduled")
				}
			}
		})
	}
}

// Workers with the same items in other orders schedule each minute once.
func TestWorkersWithOrdersOfTheirOwn(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t, migrated(t))
	const forth, back = "* * * * * a\n* * * * * b\n* * * * * c\n* * * * * d", "* * * * * d\n* * * * * c\n* * * * * b\n* * * * * a"
	loops := []*watched{
		startLoop(t, pool, clockTime("10:00:30"), forth), startLoop(t, pool, clockTime("10:00:30"), back), startLoop(t, pool, clockTime("10:00:30"), forth),
	}
	for minute := clockTime("10:01:00"); minute.Before(clockTime("10:21:00")); minute = minute.Add(time.Minute) {
		for _, w := range loops {
			w.waiting(t, minute)
		}
		for _, w := range loops {
			w.moveTo(minute.Add(time.Millisecond), false)
		}
		n := 0
		for _, w := range loops {
			for {
				e := <-w.events
				if failed, ok := e.(event.CronFailed); ok {
					t.Fatal(failed.Err)
				}
				if done, ok := e.(event.CronScheduled); ok {
					n += len(done.Jobs)
					break
				}
			}
		}
		if n != 4 {
			t.Fatalf("%d jobs for %s", n, minute)
		}
	}
}
