package recovery_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/recovery"
	"github.com/gworker/gworker/internal/testdb"
)

const counted1 = "Job recovered after worker interruption (1 time in a row)"

func TestSweepGivesTheJobsOfADeadWorkerBack(t *testing.T) {
	f := newFixture(t)
	conn, err := pgx.Connect(t.Context(), f.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	f.register("gworker_dead", 2*time.Minute, "{}")
	f.register("gworker_live", 30*time.Second, "{}")
	free := f.locked("gworker_dead", time.Second, "")
	queued := f.locked("gworker_dead", time.Hour, "queue_name => 'q', job_key => 'k'")
	live := f.locked("gworker_live", time.Hour, "queue_name => 'other'")
	f.exec(`insert into graphile_worker._private_job_queues (queue_name, locked_by, locked_at) values ('left', 'gworker_dead', now())`)
	if _, err := conn.Exec(t.Context(), `listen "jobs:insert"`); err != nil {
		t.Fatal(err)
	}

	result := f.sweep()
	if got := dead(result); got != "[gworker_dead]" || result.Busy {
		t.Errorf("declared dead: %s", got)
	}
	for _, id := range []int64{free, queued} {
		f.wantRow(id, "0|-|"+counted1+"|now")
	}
	f.wantRow(live, "1|gworker_live|-|now")
	queues := f.one(`select string_agg(queue_name || ' ' || is_available, ',' order by queue_name) from graphile_worker._private_job_queues`)
	if queues != "left true,other false,q true" {
		t.Errorf("queues: %s", queues)
	}
	if got := f.one("select string_agg(id, ',') from graphile_worker._private_workers"); got != "gworker_live" {
		t.Errorf("registered: %s", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := conn.WaitForNotification(ctx)
	if err != nil || !strings.Contains(strings.ReplaceAll(n.Payload, " ", ""), `"count":2`) {
		t.Errorf("notification %v, %v", n, err)
	}
	e := waitFor[event.WorkerRecovered](f, nil)
	if e.Dead != "gworker_dead" || fmt.Sprint(e.JobIDs) != fmt.Sprint([]int64{free, queued}) || e.Silence < 2*time.Minute {
		t.Errorf("event %+v", e)
	}
	if again := f.sweep(); len(again.Workers) != 0 {
		t.Errorf("the next sweep found %s", dead(again))
	}
}

func TestWhichWorkersAreDead(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	const minute = time.Minute
	type worker struct {
		id         string
		heartbeat  time.Duration // 0: not registered
		metadata   string
		lock       time.Duration
		liveRust   bool
		nodeBound  time.Duration
		self, dead bool
	}
	for name, w := range map[string]worker{
		"silent":                        {id: "gworker_a", heartbeat: 61 * time.Second, lock: 1, dead: true},
		"late":                          {id: "gworker_a", heartbeat: 59 * time.Second, lock: time.Hour},
		"this one":                      {id: "gworker_a", heartbeat: time.Hour, lock: time.Hour, self: true},
		"wants more time":               {id: "gworker_a", heartbeat: 3 * minute, metadata: `{"stale_after_seconds": 240}`, lock: time.Hour},
		"wanted more time":              {id: "gworker_a", heartbeat: 5 * minute, metadata: `{"stale_after_seconds": 240}`, lock: time.Hour, dead: true},
		"wants a strange time":          {id: "gworker_a", heartbeat: 5 * minute, metadata: `{"stale_after_seconds": "x"}`, lock: time.Hour, dead: true},
		"says something else":           {id: "gworker_a", heartbeat: 5 * minute, metadata: `["x"]`, lock: time.Hour, dead: true},
		"of another kind, registered":   {id: "elsewhere", heartbeat: 2 * minute, lock: time.Hour, dead: true},
		"ours, gone":                    {id: "gworker_a", lock: 61 * time.Second, dead: true},
		"ours, perhaps not yet there":   {id: "gworker_a", lock: 59 * time.Second},
		"ours, told not to register":    {id: "gworker_unregistered_a", lock: 3 * time.Hour},
		"this one, not registered":      {id: "gworker_a", lock: time.Hour, self: true},
		"Rust's, silent":                {id: "graphile_worker_a", heartbeat: 6 * minute, lock: time.Hour, dead: true},
		"Rust's, within its bound":      {id: "graphile_worker_a", heartbeat: 4 * minute, lock: time.Hour},
		"Rust's, gone":                  {id: "graphile_worker_a", lock: 6 * minute, liveRust: true, dead: true},
		"Rust's, perhaps":               {id: "graphile_worker_a", lock: 4 * minute, liveRust: true},
		"Rust's without recovery":       {id: "graphile_worker_a", lock: 3 * time.Hour},
		"Node's pool":                   {id: "pool-0123456789abcdef01", lock: 3 * time.Hour},
		"Node's other pool":             {id: "otpool-0123456789abcdef01", lock: 3 * time.Hour},
		"Node's worker":                 {id: "worker-0123456789abcdef01", lock: 3 * time.Hour},
		"Node's, and the operator said": {id: "pool-0123456789abcdef01", lock: 3 * time.Hour, nodeBound: 2 * time.Hour, dead: true},
		"Node's, younger than said":     {id: "pool-0123456789abcdef01", lock: time.Hour, nodeBound: 2 * time.Hour},
		"of no known runtime":           {id: "by hand", lock: 3 * time.Hour, nodeBound: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			if w.heartbeat > 0 {
				metadata := w.metadata
				if metadata == "" {
					metadata = "{}"
				}
				f.register(w.id, w.heartbeat, metadata)
			}
			if w.liveRust {
				f.register("graphile_worker_live", time.Second, "{}")
			}
			if w.self {
				f.options.Self = w.id
			}
			f.options.NodeLocksOlderThan = w.nodeBound
			id := f.locked(w.id, w.lock, "")
			f.sweep()
			want := "1|" + w.id + "|-|now"
			if w.dead {
				want = "0|-|" + counted1 + "|now"
			}
			f.wantRow(id, want)
		})
	}
}

// After an outage every heartbeat is missing, this worker's own as well: then
// no worker is declared dead.
func TestWorkerThatWasAwayTakesNobodyForDead(t *testing.T) {
	f := newFixture(t)
	f.options.Self = "gworker_self"
	f.register("gworker_other", 5*time.Minute, "{}")
	id := f.locked("gworker_other", 5*time.Minute, "")
	f.sweep() // not registered
	f.wantRow(id, "1|gworker_other|-|now")
	f.register("gworker_self", 5*time.Minute, "{}")
	f.sweep()
	f.wantRow(id, "1|gworker_other|-|now")
	f.exec("update graphile_worker._private_workers set last_heartbeat_at = now() where id = 'gworker_self'")
	f.sweep()
	f.wantRow(id, "0|-|"+counted1+"|now")
}

// Between the moment when this worker's heartbeat is written again and the moment
// when it learns that it is, the row alone would say that all is well.
func TestSweepAsksForAnOutageAfterItHasReadTheHeartbeats(t *testing.T) {
	f := newFixture(t)
	f.options.Self = "gworker_self"
	f.register("gworker_other", 5*time.Minute, "{}")
	f.register("gworker_self", 0, "{}")
	id := f.locked("gworker_other", 5*time.Minute, "")

	asked := 0
	f.options.Watched = func() (here, unbroken time.Duration) { asked++; return 0, 0 }
	if result := f.sweep(); len(result.Workers) > 0 || asked != 1 {
		t.Errorf("asked %d times; the result is %+v", asked, result)
	}
	f.wantRow(id, "1|gworker_other|-|now")
	f.options.Watched = func() (here, unbroken time.Duration) { return time.Hour, time.Hour }
	f.sweep()
	f.wantRow(id, "0|-|"+counted1+"|now")
}

// What a heartbeat finds is what holds the sweeps back.
func TestSweepsHoldBackAfterAnOutage(t *testing.T) {
	f := newFixture(t)
	f.options.StaleAfter = time.Hour // and so long it holds back
	loop := &recovery.Sweeper{WorkerID: "gworker_a", Pool: f.Pool, Statements: f.statements, Events: f.stream, Options: f.options}
	if recovery.Holding(loop) {
		t.Error("it holds back from the beginning")
	}
	k := newKept(f, "gworker_a")
	k.Interval = time.Hour
	paused := 0
	k.Paused = func() { paused++; loop.Pause() }
	if err := k.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := k.Deregister(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	beat := func() {
		t.Helper()
		if err := recovery.Beat(t.Context(), k.Heartbeat); err != nil {
			t.Fatal(err)
		}
	}
	beat()
	if paused != 0 || recovery.Holding(loop) {
		t.Error("it holds back although all is well")
	}
	f.exec("update graphile_worker._private_workers set last_heartbeat_at = now() - interval '3 hours'")
	beat()
	if paused != 1 || !recovery.Holding(loop) {
		t.Error("it does not hold back after its heartbeat was missing")
	}
	f.exec("delete from graphile_worker._private_workers")
	beat()
	if paused != 2 {
		t.Error("it does not hold back after it was declared dead")
	}
}

// A pool of Node's workers shares one id: of its locks only the old ones go.
func TestOnlyOldLocksOfUnregisteredHoldersAreTaken(t *testing.T) {
	f := newFixture(t)
	f.options.NodeLocksOlderThan = time.Hour
	old, young := f.locked("pool-1", 2*time.Hour, ""), f.locked("pool-1", time.Minute, "")
	f.exec(`insert into graphile_worker._private_job_queues (queue_name, locked_by, locked_at) values ('q', 'pool-1', now())`)
	f.sweep()
	f.wantRow(old, "0|-|"+counted1+"|now")
	f.wantRow(young, "1|pool-1|-|now")
	if got := f.one("select locked_by from graphile_worker._private_job_queues"); got != "pool-1" {
		t.Errorf("the queue is held by %s", got)
	}
}

// On no schema, and whatever is decided about them.
func TestRetiredJobsDoNotComeBack(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for _, action := range []recovery.Action{recovery.Recover, recovery.Reschedule} {
		t.Run(action.String(), func(t *testing.T) {
			onEachSchema(t, func(t *testing.T, f *fixture, _ string) {
				f.register("gworker_dead", time.Hour, "{}")
				id := f.locked("gworker_dead", time.Minute, "job_key => 'k'")
				f.exec("select graphile_worker.add_job('x', job_key => 'k', run_at => now() + interval '1 hour')") // replaces it while it runs
				removed := f.locked("gworker_dead", time.Minute, "job_key => 'r'")
				f.exec("select graphile_worker.remove_job('r')")
				f.options.Decide = func(context.Context, recovery.Job) recovery.Decision { return recovery.Decision{Action: action} }
				f.sweep()
				for _, retired := range []int64{id, removed} {
					f.wantRow(retired, "25|-|"+counted1+"; not tried again: that was its last attempt, or it was replaced or removed meanwhile|now")
				}
				if e := waitFor[event.WorkerRecovered](f, nil); len(e.JobIDs) != 0 || len(e.GivenUp) != 2 {
					t.Errorf("the event is %+v", e)
				}
			})
		})
	}
}

// A job that ends its worker each time is given up after max_attempts starts, with
// a key or without, whether it has failed before or not, on any schema.
func TestJobThatKillsItsWorkersIsGivenUp(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	cases := map[string]struct {
		spec   string
		failed int // attempts before
	}{
		"with a key":                 {"max_attempts => 4, job_key => 'k'", 0},
		"without":                    {"max_attempts => 4", 0},
		"after failures, with a key": {"max_attempts => 4, job_key => 'k'", 2},
		"after failures, without":    {"max_attempts => 4", 2},
		"on its last, with a key":    {"max_attempts => 4, job_key => 'k'", 3},
		"on its last, without":       {"max_attempts => 4", 3},
		"of one attempt, with a key": {"max_attempts => 1, job_key => 'k'", 0},
		"of one attempt, without":    {"max_attempts => 1", 0},
		"in a queue, on its last":    {"max_attempts => 4, queue_name => 'q'", 3},
	}
	onEachSchema(t, func(t *testing.T, f *fixture, _ string) {
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				sample.Take(t)
				f.exec("delete from graphile_worker._private_jobs")
				testJobThatKillsItsWorkers(t, f, f.locked("gworker_0", time.Minute, c.spec), c.failed)
			})
		}
	})
}

func testJobThatKillsItsWorkers(t *testing.T, f *fixture, id int64, failed int) {
	f.exec("update graphile_worker._private_jobs set attempts = $1", failed+1)
	most := f.one("select max_attempts::text from graphile_worker._private_jobs")
	starts := 1
	for ; starts <= 10; starts++ {
		f.register(fmt.Sprintf("gworker_%d", starts-1), time.Hour, "{}")
		f.options.DryRun = true
		foreseen := f.sweep().Workers[0].Jobs[0].GivenUp
		f.options.DryRun = false
		givenUp := f.sweep().Workers[0].Jobs[0].GivenUp
		available := f.one("select is_available::text from graphile_worker._private_jobs") == "true"
		if givenUp != foreseen || givenUp == available {
			t.Errorf("after start %d: foreseen %v, said %v, available %v: %s", starts, foreseen, givenUp, available, f.row(id))
		}
		if !available {
			break
		}
		f.wantRow(id, fmt.Sprintf("%d|-|Job recovered after worker interruption (%s in a row)|now", failed, times(starts)))
		f.exec("update graphile_worker._private_jobs set locked_by = $1, locked_at = now(), attempts = attempts + 1",
			fmt.Sprintf("gworker_%d", starts))
	}
	if most != fmt.Sprint(failed+starts) {
		t.Errorf("it has started %d times, and %d before, of %s: %s", starts, failed, most, f.row(id))
	}
	if got := f.row(id); !strings.HasPrefix(got, most+"|-|") || !strings.Contains(got, "; not tried again: ") {
		t.Errorf("the job is %s", got)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if e, ok := f.events[len(f.events)-1].(event.WorkerRecovered); !ok || fmt.Sprint(e.GivenUp) != fmt.Sprint([]int64{id}) {
		t.Errorf("the last event is %+v", f.events[len(f.events)-1])
	}
}

func times(n int) string {
	if n == 1 {
		return "1 time"
	}
	return fmt.Sprintf("%d times", n)
}

func TestDecisions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	at := time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		decide func(recovery.Job) recovery.Decision
		want   string
	}{
		"recover":    {func(recovery.Job) recovery.Decision { return recovery.Decision{} }, "1|-|" + counted1 + "|now"},
		"skip":       {func(recovery.Job) recovery.Decision { return recovery.Decision{Action: recovery.Skip} }, "2|gworker_dead|-|now"},
		"fail":       {func(recovery.Job) recovery.Decision { return recovery.Decision{Action: recovery.Fail, Reason: "no"} }, "2|-|no|later"},
		"reschedule": {func(recovery.Job) recovery.Decision { return recovery.Decision{Action: recovery.Reschedule, RunAt: at} }, "0|-|" + counted1 + "|later"},
		"reschedule with attempts": {func(recovery.Job) recovery.Decision {
			return recovery.Decision{Action: recovery.Reschedule, Attempts: 5, Reason: "why"}
		}, "5|-|why|now"},
		"panic":     {func(recovery.Job) recovery.Decision { panic("no idea") }, "1|-|" + counted1 + "|now"},
		"Goexit":    {func(recovery.Job) recovery.Decision { runtime.Goexit(); return recovery.Decision{} }, "1|-|" + counted1 + "|now"},
		"no action": {func(recovery.Job) recovery.Decision { return recovery.Decision{Action: 99} }, "1|-|" + counted1 + "|now"},
		"a text that cannot be stored": {func(recovery.Job) recovery.Decision {
			return recovery.Decision{Action: recovery.Fail, Reason: "a\x00b\xff"}
		}, "2|-|a\uFFFDb\uFFFD|later"},
		"too early, and too few attempts": {func(recovery.Job) recovery.Decision {
			return recovery.Decision{Action: recovery.Reschedule, Attempts: -3, RunAt: time.Date(-5000, 1, 1, 0, 0, 0, 0, time.UTC)}
		}, "0|-|" + counted1 + "|now"},
		"too late, and too many attempts": {func(recovery.Job) recovery.Decision {
			return recovery.Decision{Action: recovery.Reschedule, Attempts: 1 << 40, RunAt: time.Date(300_000, 1, 1, 0, 0, 0, 0, time.UTC)}
		}, "32767|-|" + counted1 + "|later"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.register("gworker_dead", time.Hour, "{}")
			id := f.locked("gworker_dead", time.Minute, "queue_name => 'q', job_key => 'k', flags => array['b', 'a']")
			f.exec("update graphile_worker._private_jobs set attempts = 2")
			var asked recovery.Job
			f.options.Decide = func(_ context.Context, j recovery.Job) recovery.Decision {
				asked = j
				return c.decide(j)
			}
			f.sweep()
			f.wantRow(id, c.want)
			if asked.ID != id || asked.Task != "x" || asked.Queue != "q" || asked.Key != "k" || asked.Attempts != 2 ||
				asked.MaxAttempts != 25 || asked.WorkerID != "gworker_dead" || fmt.Sprint(asked.Flags) != "[a b]" || asked.LockedFor < time.Minute {
				t.Errorf("asked about %+v", asked)
			}
			skipped := c.want == "2|gworker_dead|-|now"
			if got := f.one("select count(*)::text from graphile_worker._private_workers"); (got == "1") != skipped {
				t.Errorf("%s registrations", got)
			}
			if got := f.one("select is_available::text from graphile_worker._private_job_queues"); (got == "false") != skipped {
				t.Errorf("the queue is free: %s", got)
			}
			if name == "panic" || name == "Goexit" {
				waitFor[event.ObserverPanicked](f, nil)
			}
		})
	}
}

func TestResilientJobsWaitLonger(t *testing.T) {
	for silence, recovered := range map[time.Duration]bool{2 * time.Minute: false, 4 * time.Minute: true} {
		f := newFixture(t)
		f.register("gworker_dead", silence, "{}")
		resilient := f.locked("gworker_dead", time.Second, "flags => array['infrastructure_resilient']")
		ordinary := f.locked("gworker_dead", time.Second, "")
		f.sweep()
		f.wantRow(ordinary, "0|-|"+counted1+"|now")
		if recovered {
			f.wantRow(resilient, "0|-|"+counted1+"|now")
		} else {
			f.wantRow(resilient, "1|gworker_dead|-|now")
		}
	}
}

func TestDelay(t *testing.T) {
	f := newFixture(t)
	f.options.Delay = time.Hour
	f.register("gworker_dead", time.Hour, "{}")
	id := f.locked("gworker_dead", time.Second, "")
	f.sweep()
	f.wantRow(id, "0|-|"+counted1+"|later")
}

func TestDryRunChangesNothing(t *testing.T) {
	f := newFixture(t)
	f.options.DryRun = true
	f.register("gworker_dead", time.Hour, "{}")
	id := f.locked("gworker_dead", time.Second, "queue_name => 'q'")
	result := f.sweep()
	if dead(result) != "[gworker_dead]" || len(result.Workers[0].Jobs) != 1 || result.Workers[0].Jobs[0].ID != id {
		t.Errorf("would do: %+v", result)
	}
	f.wantRow(id, "1|gworker_dead|-|now")
	if got := f.one("select count(*)::text from graphile_worker._private_workers"); got != "1" {
		t.Errorf("%s registrations", got)
	}
}

// Rust's sweepers take the same lock.
func TestOneSweepAtATime(t *testing.T) {
	f := newFixture(t)
	f.register("gworker_dead", time.Hour, "{}")
	id := f.locked("gworker_dead", time.Second, "")
	tx, err := f.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select pg_advisory_xact_lock(x'47575253'::int, x'53574550'::int)"); err != nil {
		t.Fatal(err)
	}
	if result := f.sweep(); !result.Busy {
		t.Errorf("swept during another sweep: %+v", result)
	}
	f.wantRow(id, "1|gworker_dead|-|now")
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.sweep()
	f.wantRow(id, "0|-|"+counted1+"|now")
}

// The worker is not dead after all, and writes the end of its job just now.
func TestJobThatEndsJustNowIsLeftAlone(t *testing.T) {
	f := newFixture(t)
	f.register("gworker_slow", time.Hour, "{}")
	id := f.locked("gworker_slow", time.Second, "")
	tx, err := f.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "delete from graphile_worker._private_jobs where id = $1", id); err != nil {
		t.Fatal(err)
	}
	if result := f.sweep(); len(result.Workers) != 1 || len(result.Workers[0].Jobs) != 0 {
		t.Errorf("took %+v", result)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.one("select count(*)::text from graphile_worker._private_jobs"); got != "0" {
		t.Errorf("%s jobs", got)
	}
	f.sweep()
	if got := f.one("select count(*)::text from graphile_worker._private_workers"); got != "0" {
		t.Errorf("%s registrations", got)
	}
}

func TestOldLocksAreReset(t *testing.T) {
	f := newFixture(t)
	old := f.locked("pool-1", 5*time.Hour, "queue_name => 'q'")
	young := f.locked("pool-1", 3*time.Hour, "queue_name => 'other'")
	loop := &recovery.Sweeper{WorkerID: "gworker_a", Pool: f.Pool, Statements: f.statements, Events: f.stream}
	if err := recovery.ResetOldLocks(t.Context(), loop); err != nil {
		t.Fatal(err)
	}
	f.wantRow(old, "1|-|-|now")
	f.wantRow(young, "1|pool-1|-|now")
	waitFor[event.OldLocksResetStarted](f, nil)
	e := waitFor[event.OldLocksReset](f, nil)
	if fmt.Sprint(e.JobIDs, e.Queues) != fmt.Sprintf("[%d] [q]", old) {
		t.Errorf("event %+v", e)
	}
}
