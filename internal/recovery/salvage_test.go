package recovery_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/recovery"
	"github.com/gworker/gworker/internal/testdb"
)

// refuse has a trigger be against the changes that a condition says.
func (f *fixture) refuse(table, when, body string) {
	f.t.Helper()
	f.exec(`create function public.refuse() returns trigger language plpgsql as $$ begin ` + body + ` return new; end $$`)
	change := "update"
	if table == "_private_workers" {
		change = "delete"
	}
	f.exec(`create trigger refuse before ` + change + ` on graphile_worker.` + table + ` for each row when (` + when + `) execute function public.refuse()`)
}

// allRefusals are the jobs that events name as refused.
func (f *fixture) allRefusals() (ids []int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		if failed, is := e.(event.SweepFailed); is && failed.JobID != 0 {
			ids = append(ids, failed.JobID)
		}
	}
	return ids
}

const jobsTable = "_private_jobs"

// refusals are ways to be against the change of one job's row, at each of the
// statements that a sweep does.
var refusals = map[string]struct {
	set    func(f *fixture, id int64)
	answer string
}{
	"raised": {func(f *fixture, id int64) {
		f.refuse(jobsTable, fmt.Sprintf("old.id = %d", id), "raise 'hands off';")
	}, "hands off"},
	"raised as a serialization failure": {func(f *fixture, id int64) {
		f.refuse(jobsTable, fmt.Sprintf("old.id = %d", id), "raise 'hands off' using errcode = '40001';")
	}, "hands off"},
	"a trigger's mistake": {func(f *fixture, id int64) {
		f.refuse(jobsTable, fmt.Sprintf("old.id = %d", id), "new.priority := 1 / 0;")
	}, "division by zero"},
	"a trigger's missing table": {func(f *fixture, id int64) {
		f.refuse(jobsTable, fmt.Sprintf("old.id = %d", id), "insert into nowhere values (1);")
	}, "nowhere"},
	"kept by a trigger": {func(f *fixture, id int64) {
		f.refuse(jobsTable, fmt.Sprintf("old.id = %d", id), "return null;")
	}, "keeps the row"},
	"unlocking": {func(f *fixture, id int64) {
		f.refuse(jobsTable, fmt.Sprintf("old.id = %d and new.locked_by is null", id), "raise 'hands off';")
	}, "hands off"},
	"a text": {func(f *fixture, id int64) {
		f.refuse(jobsTable, fmt.Sprintf("old.id = %d and new.last_error ~ 'time in a row'", id), "raise 'hands off';")
	}, "hands off"},
	"a check constraint": {func(f *fixture, id int64) {
		f.exec(fmt.Sprintf(`alter table graphile_worker._private_jobs add constraint stays check (id <> %d or locked_by is not null)`, id))
	}, "stays"},
	"at the commit": {func(f *fixture, id int64) {
		f.exec(`create function public.refuse() returns trigger language plpgsql as $$ begin raise 'hands off'; end $$`)
		f.exec(fmt.Sprintf(`create constraint trigger refuse after update on graphile_worker._private_jobs deferrable initially deferred
			for each row when (old.id = %d) execute function public.refuse()`, id))
	}, "hands off"},
}

// TestSweepLeavesOutWhatIsRefused: one job whose change the database refuses does not
// keep the others from coming back, and is tried again.
func TestSweepLeavesOutWhatIsRefused(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for name, refusal := range refusals {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t)
			f.register("gworker_one", 2*time.Minute, "{}")
			f.register("gworker_two", 2*time.Minute, "{}")
			first := f.locked("gworker_one", time.Hour, "queue_name => 'a'")
			poison := f.locked("gworker_one", time.Hour, "queue_name => 'b'")
			second := f.locked("gworker_two", time.Hour, "queue_name => 'c'")
			refusal.set(f, poison)
			for range 2 { // the second finds what the first has left
				f.sweep()
				for _, id := range []int64{first, second} {
					f.wantRow(id, "0|-|"+counted1+"|now")
				}
				f.wantRow(poison, "1|gworker_one|-|now")
				if got := f.one("select string_agg(queue_name, ',' order by queue_name) from graphile_worker._private_job_queues where locked_by is not null"); got != "b" {
					t.Errorf("locked queues: %s", got)
				}
				if got := f.one("select string_agg(id, ',') from graphile_worker._private_workers"); got != "gworker_one" {
					t.Errorf("registered: %s", got)
				}
			}
			if got := f.allRefusals(); !slices.Equal(got, []int64{poison, poison}) {
				t.Errorf("refused: %d, want job %d once a sweep", got, poison)
			}
			e := waitFor[event.SweepFailed](f, nil)
			if text := e.Err.Error(); !strings.Contains(text, refusal.answer) || !strings.Contains(text, fmt.Sprintf("job %d", poison)) {
				t.Errorf("the refusal says %q", text)
			}
			recovered := waitFor(f, func(e event.WorkerRecovered) bool { return e.Dead == "gworker_one" })
			if !slices.Equal(recovered.JobIDs, []int64{first}) || !slices.Equal(recovered.Refused, []int64{poison}) {
				t.Errorf("event %+v", recovered)
			}
			f.exec("drop function if exists public.refuse cascade")
			f.exec("alter table graphile_worker._private_jobs drop constraint if exists stays")
			f.sweep()
			f.wantRow(poison, "0|-|"+counted1+"|now")
			if got := f.one("select count(*)::text from graphile_worker._private_workers"); got != "0" {
				t.Errorf("%s are registered when all was given back", got)
			}
		})
	}
}

// TestSweepGivesJobsBackDespiteRefusedQueuesAndWorkers: what is not a job is left out,
// too.
func TestSweepGivesJobsBackDespiteRefusedQueuesAndWorkers(t *testing.T) {
	t.Parallel()
	for table, want := range map[string]string{"_private_job_queues": "queues of dead worker", "_private_workers": "registration of dead worker"} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.register("gworker_dead", 2*time.Minute, "{}")
			id := f.locked("gworker_dead", time.Hour, "")
			f.exec(`insert into graphile_worker._private_job_queues (queue_name, locked_by, locked_at) values ('left', 'gworker_dead', now())`)
			f.refuse(table, "true", "raise 'hands off';")
			f.sweep()
			f.wantRow(id, "0|-|"+counted1+"|now")
			e := waitFor[event.SweepFailed](f, nil)
			if !strings.Contains(e.Err.Error(), want) {
				t.Errorf("the refusal says %q", e.Err)
			}
		})
	}
}

// TestSweepWithManyRefusals: where everything is refused a sweep ends, and tells of
// some; what is in order comes back with the sweeps.
func TestSweepWithManyRefusals(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.register("gworker_dead", 2*time.Minute, "{}")
	var good int64
	for i := range 150 {
		if id := f.locked("gworker_dead", time.Hour, ""); i == 75 {
			good = id
		}
	}
	f.refuse(jobsTable, fmt.Sprintf("old.id <> %d", good), "raise 'hands off';")
	for sweeps := 0; f.row(good) != "0|-|"+counted1+"|now"; sweeps++ {
		before := len(f.allRefusals())
		f.sweep()
		if n := len(f.allRefusals()) - before; n == 0 || n > 100 {
			t.Fatalf("a sweep told of %d refusals", n)
		}
		if sweeps == 100 {
			t.Fatal("100 sweeps have not given the one job back that is in order")
		}
	}
}

// TestReasonsFitEveryEncoding: a reason that the database cannot hold is stored in
// escapes, and does not change that of another job.
func TestReasonsFitEveryEncoding(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	config, err := pgxpool.ParseConfig(testdb.EmptyIn(t, "EUC_JP"))
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["client_encoding"] = "UTF8"
	if f.Pool, err = pgxpool.NewWithConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Pool.Close)
	if _, err := migrate.Up(t.Context(), f.Pool, migrate.Options{}); err != nil {
		t.Fatal(err)
	}
	f.register("gworker_dead", 2*time.Minute, "{}")
	japanese, emoji, plain := f.locked("gworker_dead", time.Hour, ""), f.locked("gworker_dead", time.Hour, ""), f.locked("gworker_dead", time.Hour, "")
	f.options.Decide = func(_ context.Context, j recovery.Job) recovery.Decision {
		reasons := map[int64]string{japanese: "落ちた", emoji: "落ちた 😀"}
		if j.ID == plain {
			return recovery.Decision{}
		}
		return recovery.Decision{Action: recovery.Fail, Reason: reasons[j.ID]}
	}
	f.sweep()
	f.wantRow(japanese, "1|-|落ちた|later")
	f.wantRow(emoji, `1|-|\u843d\u3061\u305f \ud83d\ude00|later`)
	f.wantRow(plain, "0|-|"+counted1+"|now")
	if got := f.allRefusals(); len(got) > 0 {
		t.Errorf("refused: %d", got)
	}
}

// TestOldLocksAreResetDespiteRefusedOnes: the reset of locks older than 4 hours leaves
// out what the database refuses.
func TestOldLocksAreResetDespiteRefusedOnes(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for _, table := range []string{jobsTable, "_private_job_queues"} {
		t.Run(table, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t)
			good := f.locked("pool-1", 5*time.Hour, "queue_name => 'good'")
			poison := f.locked("pool-1", 5*time.Hour, "queue_name => 'poison'")
			when, left := fmt.Sprintf("old.id = %d", poison), "poison"
			wantJobs, wantQueues := []int64{good}, []string{"good", "poison"}
			if table != jobsTable {
				when = "old.queue_name = 'poison'"
				wantJobs, wantQueues = []int64{good, poison}, []string{"good"}
			}
			f.refuse(table, when, "raise 'hands off';")
			loop := &recovery.Sweeper{WorkerID: "gworker_a", Pool: f.Pool, Statements: f.statements, Events: f.stream}
			if err := recovery.ResetOldLocks(t.Context(), loop); err != nil {
				t.Fatal(err)
			}
			f.wantRow(good, "1|-|-|now")
			e := waitFor[event.OldLocksReset](f, nil)
			slices.Sort(e.JobIDs)
			slices.Sort(e.Queues)
			if !slices.Equal(e.JobIDs, wantJobs) || !slices.Equal(e.Queues, wantQueues) {
				t.Errorf("event %+v", e)
			}
			refused := waitFor[event.SweepFailed](f, nil)
			if text := refused.Err.Error(); !strings.Contains(text, "hands off") ||
				table == jobsTable && refused.JobID != poison || table != jobsTable && !strings.Contains(text, left) {
				t.Errorf("the refusal is %+v", refused)
			}
		})
	}
}

// TestOldLocksAreResetDespiteConstraintsAtTheCommit: what the commit refuses, too.
func TestOldLocksAreResetDespiteConstraintsAtTheCommit(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	good, poison := f.locked("pool-1", 5*time.Hour, ""), f.locked("pool-1", 5*time.Hour, "")
	refusals["at the commit"].set(f, poison)
	loop := &recovery.Sweeper{WorkerID: "gworker_a", Pool: f.Pool, Statements: f.statements, Events: f.stream}
	if err := recovery.ResetOldLocks(t.Context(), loop); err != nil {
		t.Fatal(err)
	}
	f.wantRow(good, "1|-|-|now")
	f.wantRow(poison, "1|pool-1|-|now")
	if e := waitFor[event.OldLocksReset](f, nil); !slices.Equal(e.JobIDs, []int64{good}) {
		t.Errorf("event %+v", e)
	}
	if got := f.allRefusals(); !slices.Equal(got, []int64{poison}) {
		t.Errorf("refused: %d", got)
	}
}
