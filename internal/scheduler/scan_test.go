package scheduler

import (
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

// slowClaimer is a claimer by whose clock every statement takes 10 ms.
func slowClaimer(t *testing.T) (*claimer, *pgxpool.Pool) {
	pool := testdb.Pool(t, testdb.Migrated(t))
	c := newClaimer(Config{
		Database: statement.NewSet(statement.Options{}).Bind(pool, nil), WorkerID: "gworker_test", StatementTimeout: time.Minute,
		Handlers: map[string]Handler{"x": nil}, Events: eventstream.New(nil),
	})
	at := time.Now()
	c.scan.now = func() time.Time {
		at = at.Add(10 * time.Millisecond)
		return at
	}
	c.way.note(1) // the server is near, and takes that long
	return c, pool
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func take(t *testing.T, c *claimer, limit int) (ids []int64) {
	t.Helper()
	cl := &claim{asked: limit, selection: selection{tasks: c.tasks}}
	c.begin(cl)
	c.carryOut(t.Context(), t.Context(), cl, nil)
	if err := c.learn(cl); err != nil {
		t.Fatal(err)
	}
	c.planRecheck(cl, 0)
	for _, j := range cl.jobs {
		ids = append(ids, j.ID)
	}
	return ids
}

// within claims one job at a time until the job is there.
func within(t *testing.T, c *claimer, id int64, claims int) {
	t.Helper()
	for range claims {
		if slices.Contains(take(t, c, 1), id) {
			return
		}
	}
	t.Errorf("job %d was not among the next %d", id, claims)
}

// TestClaimsBeginAtACursor: what lies ahead is passed, and what becomes runnable
// there is found after a bounded number of claims: a job that is added, and the
// jobs of a queue that becomes free.
func TestClaimsBeginAtACursor(t *testing.T) {
	c, pool := slowClaimer(t)
	exec(t, pool, `
		select graphile_worker.add_job('x', queue_name => 'stuck', priority => -1, run_at => now() - interval '1 hour');
		select graphile_worker.add_job('foreign', priority => -1, run_at => now() - interval '1 hour');
		update graphile_worker._private_job_queues set locked_by = 'other', locked_at = now() - interval '1 minute';
		select graphile_worker.add_job('x', run_at => now() - interval '1 hour' + n * interval '1 s') from generate_series(1, 500) n`)
	if ids := take(t, c, 1); !slices.Equal(ids, []int64{3}) {
		t.Fatalf("the first claim took %v", ids)
	}
	if !c.scan.cursor.used() {
		t.Error("the first claim walked everything")
	}
	for range 20 {
		take(t, c, 1)
	}
	p := c.scan.cursor
	if !p.used() || *p.priority != 0 || len(p.blocked) != 1 {
		t.Fatalf("claims begin at %+v", p)
	}
	exec(t, pool, "select graphile_worker.add_job('x', priority => -5)")
	within(t, c, 503, 30)
	exec(t, pool, "update graphile_worker._private_job_queues set locked_by = null, locked_at = null")
	within(t, c, 1, 30)
}

// TestCheapTablesHaveNoCursor: where a full walk costs little every claim sees
// everything.
func TestCheapTablesHaveNoCursor(t *testing.T) {
	c, pool := slowClaimer(t)
	at := time.Now()
	c.scan.now = func() time.Time {
		at = at.Add(time.Millisecond)
		return at
	}
	exec(t, pool, "select graphile_worker.add_job('x') from generate_series(1, 20)")
	for range 10 {
		c.scan.claimed(cursor{}, 1, []*job.Claimed{}, found{}, time.Second) // expensive for another reason
		take(t, c, 1)
		if c.scan.cursor.used() {
			t.Fatal("a place is used")
		}
	}
}

// TestNothingIsOverlookedWhereNothingRuns: with a cursor in use and nothing behind
// it, jobs before it are still found.
func TestNothingIsOverlookedWhereNothingRuns(t *testing.T) {
	c, pool := slowClaimer(t)
	exec(t, pool, "select graphile_worker.add_job('x') from generate_series(1, 3)")
	for range 30 {
		take(t, c, 1)
	}
	exec(t, pool, "select graphile_worker.add_job('x', priority => -5)")
	within(t, c, 4, 30)
	if wait := c.scan.recheck(time.Hour); c.scan.cursor.used() && wait > time.Second {
		t.Errorf("the next claim comes in %s", wait)
	}
}

// TestExpensiveClaimAfterACheapFirstScan: the first scan does not keep the next one
// waiting, should claims turn out to be expensive after all.
func TestExpensiveClaimAfterACheapFirstScan(t *testing.T) {
	c, pool := slowClaimer(t)
	at, step := time.Now(), time.Millisecond
	c.scan.now = func() time.Time {
		at = at.Add(step)
		return at
	}
	exec(t, pool, "select graphile_worker.add_job('x') from generate_series(1, 20)")
	take(t, c, 1)
	if c.scan.cursor.used() {
		t.Fatal("a place is used")
	}
	step = 10 * time.Millisecond
	take(t, c, 1)
	take(t, c, 1)
	if !c.scan.cursor.used() {
		t.Error("no scan came after an expensive claim")
	}
}
