package cron_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/cron"
	"github.com/gworker/gworker/internal/store"
	"github.com/gworker/gworker/internal/testdb"
)

func migrated(t *testing.T) string { return testdb.Migrated(t) }

func TestEachMinuteOnTime(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	pool := testdb.Pool(t, migrated(t))
	w := startLoop(t, pool, clockTime("10:00:30"), "* * * * * a\n*/2 * * * * b\n0 12 * * * noon")
	await[event.CronStarted](t, w)
	want(t, "known at first", known(t, pool), "a 10:00:30 -, b 10:00:30 -, noon 10:00:30 -")
	for _, minute := range []string{"10:01", "10:02", "10:03"} {
		w.waiting(t, clockTime(minute+":00"))
		w.moveTo(clockTime(minute+":00").Add(time.Millisecond), false)
		tick := await[event.CronTick](t, w)
		done := await[event.CronScheduled](t, w)
		if !tick.Minute.Equal(clockTime(minute+":00")) || !done.Minute.Equal(tick.Minute) || len(done.Jobs) != len(tick.Due) {
			t.Errorf("%s: %+v %+v", minute, tick, done)
		}
	}
	want(t, "jobs", jobs(t, pool), "a 10:01, a 10:02, b 10:02, a 10:03")
	want(t, "known", known(t, pool), "a 10:00:30 10:03:00, b 10:00:30 10:02:00, noon 10:00:30 -")
}

// A start on the very minute belongs to that minute.
func TestStartOnTheMinute(t *testing.T) {
	pool := testdb.Pool(t, migrated(t))
	w := startLoop(t, pool, clockTime("10:00:00"), "* * * * * a")
	await[event.CronScheduled](t, w)
	want(t, "jobs", jobs(t, pool), "a 10:00")
}

func TestEarlyTimerWaitsOn(t *testing.T) {
	pool := testdb.Pool(t, migrated(t))
	w := startLoop(t, pool, clockTime("10:00:30"), "* * * * * a")
	w.waiting(t, clockTime("10:01:00"))
	w.moveTo(clockTime("10:00:59"), true)
	early := await[event.CronTimerEarly](t, w)
	if !early.Minute.Equal(clockTime("10:01:00")) || !early.Now.Equal(clockTime("10:00:59")) {
		t.Errorf("%+v", early)
	}
	w.waiting(t, clockTime("10:01:00"))
	want(t, "jobs before the minute", jobs(t, pool), "")
	w.moveTo(clockTime("10:01:01"), false)
	await[event.CronScheduled](t, w)
	want(t, "jobs", jobs(t, pool), "a 10:01")
}

func TestLateTimerCatchesUp(t *testing.T) {
	pool := testdb.Pool(t, migrated(t))
	w := startLoop(t, pool, clockTime("10:00:30"), "* * * * * a\n*/2 * * * * b")
	w.waiting(t, clockTime("10:01:00"))
	w.moveTo(clockTime("10:04:10"), false)
	late := await[event.CronTimerLate](t, w)
	if !late.Minute.Equal(clockTime("10:01:00")) || !late.Now.Equal(clockTime("10:04:10")) {
		t.Errorf("%+v", late)
	}
	w.waiting(t, clockTime("10:05:00"))
	want(t, "jobs", jobs(t, pool), "a 10:01, a 10:02, b 10:02, a 10:03, a 10:04, b 10:04")
}

// A clock that was set by days is no late timer.
func TestClockThatWasSetStartsAnew(t *testing.T) {
	for what, days := range map[string]int{"forward": 400, "back": -400} {
		t.Run(what, func(t *testing.T) {
			pool := testdb.Pool(t, migrated(t))
			w := startLoop(t, pool, clockTime("10:00:30"), "* * * * * a")
			w.waiting(t, clockTime("10:01:00"))
			now := clockTime("10:00:30").AddDate(0, 0, days)
			w.moveTo(now, true)
			if started := await[event.CronStarted](t, w); !started.Start.Equal(clockTime("10:00:30")) {
				t.Errorf("%+v", started)
			}
			if again := await[event.CronStarted](t, w); !again.Start.Equal(now) {
				t.Errorf("%+v", again)
			}
			want(t, "jobs", jobs(t, pool), "")
			w.moveTo(now.Add(time.Minute), false)
			if done := await[event.CronScheduled](t, w); !done.Minute.Equal(now.Add(30 * time.Second)) {
				t.Errorf("%+v", done)
			}
		})
	}
}

func TestOptionsReachTheJob(t *testing.T) {
	pool := testdb.Pool(t, migrated(t))
	w := startLoop(t, pool, clockTime("10:00:00"),
		"* * * * * a ?id=x&max=3&queue=q&jobKey=k&priority=-7 {to: 'a<b', n: 12345678901234567890, _cron: 1}")
	await[event.CronScheduled](t, w)
	var got string
	err := pool.QueryRow(t.Context(), `
		select concat_ws(' ', t.identifier, q.queue_name, j.key, j.max_attempts, j.priority, j.payload::jsonb)
		from graphile_worker._private_jobs j join graphile_worker._private_tasks t on t.id = j.task_id
		join graphile_worker._private_job_queues q on q.id = j.job_queue_id`).Scan(&got)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "job", got, `a q k 3 -7 {"n": 12345678901234567890, "to": "a<b", "_cron": {"ts": "2026-05-04T10:00:00.000Z", "backfilled": false}}`)
}

func TestJobKeyModes(t *testing.T) {
	pool := testdb.Pool(t, migrated(t))
	w := startLoop(t, pool, clockTime("10:00:00"),
		"* * * * * a ?jobKey=a\n* * * * * b ?jobKey=b&jobKeyMode=preserve_run_at")
	for _, minute := range []string{"10:01:00", "10:02:00"} {
		await[event.CronScheduled](t, w)
		w.waiting(t, clockTime(minute))
		w.moveTo(clockTime(minute).Add(time.Millisecond), false)
	}
	await[event.CronScheduled](t, w)
	var got string
	err := pool.QueryRow(t.Context(), `select string_agg(key || ' ' || to_char(run_at at time zone 'UTC', 'HH24:MI'), ', ' order by key)
		from graphile_worker._private_jobs`).Scan(&got)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "jobs", got, "a 10:02, b 10:00")
}

func TestManyLoopsScheduleEachMinuteOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	url := migrated(t)
	pool := testdb.Pool(t, url)
	exec(t, pool, `insert into graphile_worker._private_known_crontabs (identifier, known_since) values ('a', $1), ('b', $1)`,
		clockTime("07:00:00"))
	// The same items in another order may cost a deadlock, but no job.
	var loops []*watched
	for n := range 6 {
		crontab := "* * * * * a ?fill=1h\n*/3 * * * * b ?fill=2h"
		if n%2 == 1 {
			crontab = "*/3 * * * * b ?fill=2h\n* * * * * a ?fill=1h"
		}
		loops = append(loops, startLoop(t, testdb.Pool(t, url), clockTime("10:00:30"), crontab))
	}
	var all sync.WaitGroup
	for _, w := range loops {
		all.Go(func() {
			// An error makes a loop wait for its clock.
			for e := range w.events {
				switch e.(type) {
				case event.CronFailed:
					w.waiting(t, clockTime("10:00:30"))
					w.moveTo(clockTime("10:00:40"), true)
				case event.CronStarted:
					return
				}
			}
		})
	}
	all.Wait()
	var total, distinct int
	err := pool.QueryRow(t.Context(), `select count(*), count(distinct (task_id, run_at)) from graphile_worker._private_jobs`).
		Scan(&total, &distinct)
	if err != nil {
		t.Fatal(err)
	}
	if total != 60+40 || distinct != total {
		t.Errorf("%d jobs for %d minutes, want 100", total, distinct)
	}
}

// The minute that could not be written is scheduled when the database is back.
func TestErrorCostsNoMinute(t *testing.T) {
	pool := testdb.Pool(t, migrated(t))
	w := startLoop(t, pool, clockTime("02:59:30"), "0 3 * * * nightly")
	w.waiting(t, clockTime("03:00:00"))
	exec(t, pool, "alter table graphile_worker._private_known_crontabs rename to away")
	w.moveTo(clockTime("03:00:01"), false)
	first := await[event.CronFailed](t, w)
	if first.Err == nil || first.RetryIn < 100*time.Millisecond || first.RetryIn > 400*time.Millisecond {
		t.Errorf("%+v", first)
	}
	// It grows to a minute.
	now, last := clockTime("03:00:01"), first
	for range 20 {
		w.waiting(t, now)
		now = now.Add(last.RetryIn)
		w.moveTo(now, false)
		last = await[event.CronFailed](t, w)
		if now.After(clockTime("03:06:00")) { // with two more waits it is not ten minutes late
			break
		}
	}
	if last.RetryIn < 30*time.Second || last.RetryIn > 80*time.Second {
		t.Errorf("after a while the wait is %s", last.RetryIn)
	}
	exec(t, pool, "alter table graphile_worker.away rename to _private_known_crontabs")
	w.waiting(t, now)
	w.moveTo(now.Add(last.RetryIn), false)
	await[event.CronScheduled](t, w)
	want(t, "jobs", jobs(t, pool), "nightly 03:00")
}

// After a long outage it is as at any start: what was missed is a matter of fill.
func TestLongErrorLeavesTheRestToFill(t *testing.T) {
	pool := testdb.Pool(t, migrated(t))
	w := startLoop(t, pool, clockTime("10:00:30"), "*/30 * * * * a\n*/30 * * * * b ?fill=45m")
	w.waiting(t, clockTime("10:01:00"))
	exec(t, pool, "alter table graphile_worker._private_known_crontabs rename to away")
	w.moveTo(clockTime("10:30:01"), false)
	await[event.CronFailed](t, w)
	exec(t, pool, "alter table graphile_worker.away rename to _private_known_crontabs")
	w.waiting(t, clockTime("10:30:01"))
	w.moveTo(clockTime("11:10:00"), true)
	await[event.CronStarted](t, w)
	w.waiting(t, clockTime("11:11:00"))
	want(t, "jobs", jobs(t, pool), "b 10:30+, b 11:00+")
}

// A job that the database refuses does not keep other jobs from being added.
func TestRefusedJobStopsNoOther(t *testing.T) {
	pool := testdb.Pool(t, migrated(t))
	exec(t, pool, `create function refuse() returns trigger language plpgsql as $$
		begin raise exception 'not this one'; end $$;
		create trigger refuse before insert on graphile_worker._private_jobs for each row
		when (new.priority = 13) execute function refuse()`)
	w := startLoop(t, pool, clockTime("10:00:00"), "* * * * * a\n* * * * * bad ?priority=13\n* * * * * c")
	for range 2 { // it is tried three times
		w.waiting(t, clockTime("10:00:00"))
		w.moveTo(clockTime("10:00:01"), true)
	}
	failed := await[event.CronItemFailed](t, w)
	if failed.Identifier != "bad" || !strings.Contains(failed.Err.Error(), "not this one") {
		t.Errorf("%+v", failed)
	}
	await[event.CronScheduled](t, w)
	want(t, "jobs", jobs(t, pool), "a 10:00, c 10:00")
}

func TestItemsComeAndGo(t *testing.T) {
	pool := testdb.Pool(t, migrated(t))
	exec(t, pool, `insert into graphile_worker._private_known_crontabs (identifier, known_since) values ('old', $1)`,
		clockTime("09:58:30"))
	w := startLoop(t, pool, clockTime("10:00:30"), "")
	add := func(line string, now time.Time) error { return w.loop.Items.Add(*parseOne(t, line), now) }
	if err := add("* * * * * a ?fill=1h", clockTime("10:00:30")); err != nil {
		t.Fatal(err)
	}
	await[event.CronStarted](t, w)
	w.waiting(t, clockTime("10:01:00"))
	w.moveTo(clockTime("10:01:10"), false)
	await[event.CronScheduled](t, w)
	want(t, "an item that nobody knew", jobs(t, pool), "a 10:01")

	if err := add("* * * * * a", clockTime("10:01:10")); !errors.Is(err, cron.ErrDuplicate) {
		t.Errorf("a second a: %v", err)
	}
	// Registered at once, and made up for as far as it was known before.
	w.moveTo(clockTime("10:01:20"), false)
	if err := add("* * * * * old ?fill=1h", clockTime("10:01:20")); err != nil {
		t.Fatal(err)
	}
	if err := add("0 12 * * * new ?fill=1d", clockTime("10:01:20")); err != nil {
		t.Fatal(err)
	}
	for started := 0; started < 2; {
		started += len(await[event.CronStarted](t, w).Items)
	}
	want(t, "jobs", sorted(jobs(t, pool)), "a 10:01, old 09:59+, old 10:00+, old 10:01+")
	want(t, "known", known(t, pool), "a 10:00:30 10:01:00, new 10:01:20 -, old 09:58:30 10:01:00")

	if !w.loop.Items.Remove("a") || w.loop.Items.Remove("a") {
		t.Error("an item is not removed once")
	}
	w.waiting(t, clockTime("10:02:00"))
	w.moveTo(clockTime("10:02:01"), false)
	if done := await[event.CronScheduled](t, w); len(done.Jobs) != 1 || done.Jobs[0].Identifier != "old" {
		t.Errorf("%+v", done)
	}
}

func TestBeforeAdd(t *testing.T) {
	pool := testdb.Pool(t, migrated(t))
	refused := errors.New("refused")
	w := startLoop(t, pool, clockTime("10:00:00"), "* * * * * a\n* * * * * b\n* * * * * c", func(l *cron.Loop) {
		l.BeforeAdd = func(_ context.Context, s store.Spec) (store.Spec, bool, error) {
			if s.Task == "c" {
				return store.Spec{}, true, refused
			}
			s.Flags = []string{"changed", `"odd"`}
			return s, s.Task == "a", nil
		}
	})
	if failed := await[event.CronItemFailed](t, w); failed.Identifier != "c" || !errors.Is(failed.Err, refused) {
		t.Errorf("%+v", failed)
	}
	await[event.CronScheduled](t, w)
	want(t, "jobs", jobs(t, pool), "a 10:00")
	want(t, "known", known(t, pool), "a 10:00:00 10:00:00, b 10:00:00 10:00:00, c 10:00:00 10:00:00")
	var flags string
	if err := pool.QueryRow(t.Context(), "select flags::text from graphile_worker._private_jobs").Scan(&flags); err != nil {
		t.Fatal(err)
	}
	want(t, "flags", flags, `{"\"odd\"": true, "changed": true}`)
}

// Minutes from before an item came are not its own, even if cron is late.
func TestNewItemHasNoEarlierMinutes(t *testing.T) {
	pool := testdb.Pool(t, migrated(t))
	w := startLoop(t, pool, clockTime("10:00:30"), "* * * * * a")
	await[event.CronStarted](t, w)
	if err := w.loop.Items.Add(*parseOne(t, "* * * * * b"), clockTime("10:02:30")); err != nil {
		t.Fatal(err)
	}
	await[event.CronStarted](t, w)
	w.waiting(t, clockTime("10:01:00"))
	w.moveTo(clockTime("10:03:10"), false)
	w.waiting(t, clockTime("10:04:00"))
	want(t, "jobs", jobs(t, pool), "a 10:01, a 10:02, a 10:03, b 10:03")
}

// A minute that is being scheduled when the worker stops is scheduled: there may be no other
// worker.
func TestStopLetsTheMinuteEnd(t *testing.T) {
	pool := testdb.Pool(t, migrated(t))
	w := startLoop(t, pool, clockTime("10:00:30"), "* * * * * a")
	w.waiting(t, clockTime("10:01:00"))
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select from graphile_worker._private_known_crontabs for update"); err != nil {
		t.Fatal(err)
	}
	w.moveTo(clockTime("10:01:01"), false)
	for waiting := false; !waiting; { // until the statement waits for the row
		if err := pool.QueryRow(t.Context(), "select exists (select from pg_locks where not granted)").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	w.cancel()
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.stop()
	want(t, "jobs", jobs(t, pool), "a 10:01")
}
