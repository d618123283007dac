package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

func TestMain(m *testing.M) {
	// How fast a machine connects decides nothing here.
	scheduler.SetFirstConnect(patience)
	testdb.Main(m)
}

const patience = 60 * time.Second

// lossy is a database whose answers get lost: the statement runs, and the
// caller gets a broken connection instead of its result.
type lossy struct {
	*pgxpool.Pool
	mu   sync.Mutex
	lose map[string]int // how many answers of a statement are still to be lost
	odds float64        // of losing any answer
	runs map[string]int // how often a statement was run

	answered func(name string) // if not nil, called before an answer is handed on
}

func (l *lossy) count(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.runs[name]
}

// loseAnswers is to lose so many answers of a statement, also while it is used.
func (l *lossy) loseAnswers(name string, answers int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose[name] = answers
}

func (l *lossy) losing(sql string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := statement.Name(sql)
	l.runs[name]++
	if l.odds > 0 && rand.Float64() < l.odds {
		return true
	}
	if l.lose[name] == 0 {
		return false
	}
	l.lose[name]--
	return true
}

func (l *lossy) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := l.Pool.Query(ctx, sql, args...)
	if l.answered != nil {
		l.answered(statement.Name(sql))
	}
	if err == nil && l.losing(sql) {
		rows.Close() // reads to the end: the statement has taken effect
		return nil, io.ErrUnexpectedEOF
	}
	return rows, err
}

func (l *lossy) SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults {
	results := l.Pool.SendBatch(ctx, batch)
	sql := batch.QueuedQueries[len(batch.QueuedQueries)-1].SQL
	if l.answered != nil {
		l.answered(statement.Name(sql))
	}
	if l.losing(sql) {
		return lost{results}
	}
	return results
}

// lost are results that nobody gets, though the batch has taken effect.
type lost struct{ pgx.BatchResults }

func (l lost) Exec() (pgconn.CommandTag, error) {
	if err := l.Close(); err != nil {
		return pgconn.CommandTag{}, err
	}
	return pgconn.CommandTag{}, io.ErrUnexpectedEOF
}

func (l *lossy) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return l.Pool.Exec(ctx, sql, args...)
}

// fixture is one scheduler on a database of its own.
type fixture struct {
	pool   *pgxpool.Pool
	db     *lossy
	events chan event.Event
	passed []event.Event // events that wait has seen and not returned
	config scheduler.Config

	holding sync.WaitGroup // what holds a row, see holdRow
}

func newFixture(t *testing.T, handlers map[string]scheduler.Handler) *fixture {
	pool := testdb.Pool(t, testdb.Migrated(t))
	f := &fixture{pool: pool, db: &lossy{Pool: pool, lose: map[string]int{}, runs: map[string]int{}}, events: make(chan event.Event, 10_000)}
	f.config = scheduler.Config{
		Database: statement.NewSet(statement.Options{}).Bind(f.db, nil),
		WorkerID: "gworker_test", Handlers: handlers, Concurrency: 4, PollInterval: 20 * time.Millisecond,
		StatementTimeout: 30 * time.Second, AbortTimeout: 30 * time.Second,
		Events: eventstream.New(func(e event.Event) { f.events <- e }),
	}
	return f
}

func (f *fixture) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := f.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) jobs(t *testing.T) (n int) {
	t.Helper()
	if err := f.pool.QueryRow(t.Context(), "select count(*) from graphile_worker._private_jobs").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// drained waits until no job is left.
func (f *fixture) drained(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); f.jobs(t) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d jobs are left: lost", f.jobs(t))
		}
	}
}

// ranOnce checks that each of so many jobs ran, and only once.
func ranOnce(t *testing.T, runs map[int64]int, jobs int) {
	t.Helper()
	for id, n := range runs {
		if n != 1 {
			t.Errorf("job %d ran %d times", id, n)
		}
	}
	if len(runs) != jobs {
		t.Errorf("%d jobs ran, want %d", len(runs), jobs)
	}
}

// wait returns the next event of type E. Those of other types that came before it are
// left to later waits: in which order events of several goroutines come is not promised.
func wait[E event.Event](t *testing.T, f *fixture) E {
	t.Helper()
	for i, e := range f.passed {
		if typed, ok := e.(E); ok {
			f.passed = slices.Delete(f.passed, i, i+1)
			return typed
		}
	}
	timeout := time.After(patience)
	for {
		select {
		case e := <-f.events:
			if typed, ok := e.(E); ok {
				return typed
			}
			f.passed = append(f.passed, e)
		case <-timeout:
			var zero E
			t.Fatalf("no %T within %s", zero, patience)
		}
	}
}

// run runs s until stop, which waits for its end.
func run(t *testing.T, s *scheduler.Scheduler) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(patience):
				t.Error("Run did not end")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func completes(context.Context, *job.Claimed) job.Outcome { return job.Outcome{Kind: job.Completed} }

func TestJobsOfAClaimWhoseAnswerWasLostRun(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"x": completes})
	f.exec(t, "select graphile_worker.add_job('x') from generate_series(1, 3)")
	f.db.lose["ClaimJobs"] = 1
	f.db.lose["ListLockedJobs"] = 1 // and so does the first question after them
	stop := run(t, scheduler.New(f.config))
	if recovered := wait[event.LostClaimRecovered](t, f); recovered.Count != 3 {
		t.Errorf("recovered %d jobs, want 3", recovered.Count)
	}
	for range 3 {
		if done := wait[event.JobCompleted](t, f); done.Job.Attempts != 1 {
			t.Errorf("job %d ran as attempt %d", done.Job.ID, done.Job.Attempts)
		}
	}
	stop()
	if n := f.jobs(t); n != 0 {
		t.Errorf("%d jobs left", n)
	}
}

func TestOutcomeWhoseAnswerWasLostIsWrittenAgainAndNotTwice(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{
		"done": completes,
		"fail": func(context.Context, *job.Claimed) job.Outcome {
			return job.Outcome{Kind: job.Failed, Err: errors.New("no")}
		},
	})
	f.exec(t, "select graphile_worker.add_job('done'), graphile_worker.add_job('fail')")
	f.db.lose["CompleteJobs"], f.db.lose["FailJobs"] = 2, 1
	s := scheduler.New(f.config)
	stop := run(t, s)
	for lost := 0; lost < 2; {
		switch e := (<-f.events).(type) {
		case event.OutcomesDelayed:
			s.DatabaseBack() // no need to wait for seconds
		case event.JobLost:
			lost++
			if !e.Unsure {
				t.Errorf("job %d reported as lost for sure", e.Job.ID)
			}
		case event.JobCompleted, event.JobFailed:
			t.Errorf("%T although its answer was lost", e)
		}
	}
	stop()
	var attempts int
	var lastError string
	if err := f.pool.QueryRow(t.Context(), "select attempts, last_error from graphile_worker._private_jobs").Scan(&attempts, &lastError); err != nil {
		t.Fatal(err)
	}
	if attempts != 1 || lastError != "no" {
		t.Errorf("failed job has attempts %d, error %q", attempts, lastError)
	}
}

// TestOutcomeIsFenced takes the lock away while the job runs, in the ways that
// this can happen.
func TestOutcomeIsFenced(t *testing.T) {
	var sample testdb.Sample
	for name, steal := range map[string]string{
		"another worker": "update graphile_worker._private_jobs set locked_by = 'other'",
		"recovered":      "update graphile_worker._private_jobs set locked_by = null, locked_at = null, attempts = attempts - 1",
		"claimed again by this worker after a recovery": "update graphile_worker._private_jobs set locked_at = now() + interval '1 second'",
		"another attempt": "update graphile_worker._private_jobs set attempts = attempts + 1",
	} {
		for _, kind := range []job.Kind{job.Completed, job.Failed, job.Returned} {
			t.Run(fmt.Sprintf("%s/%d", name, kind), func(t *testing.T) {
				sample.Take(t)
				var f *fixture
				f = newFixture(t, map[string]scheduler.Handler{"x": func(ctx context.Context, j *job.Claimed) job.Outcome {
					f.exec(t, steal)
					return job.Outcome{Kind: kind, Err: errors.New("no")}
				}})
				f.config.Concurrency = 1
				f.exec(t, "select graphile_worker.add_job('x', run_at => now() - interval '1 minute')")
				ctx, cancel := context.WithCancel(t.Context())
				f.config.Events = eventstream.New(func(e event.Event) {
					if _, ended := e.(event.JobEnded); ended {
						cancel() // one run is enough
					}
					f.events <- e
				})
				if err := scheduler.New(f.config).Run(ctx); err != nil {
					t.Fatal(err)
				}
				if lost := wait[event.JobLost](t, f); lost.Unsure {
					t.Error("reported as unsure")
				}
				var lastError *string
				if err := f.pool.QueryRow(t.Context(), "select last_error from graphile_worker._private_jobs").Scan(&lastError); err != nil {
					t.Fatalf("the row that another holds: %v", err)
				}
				if lastError != nil {
					t.Errorf("last_error was written: %q", *lastError)
				}
			})
		}
	}
}

// TestRetiredJobEnds: a job that is replaced while it runs has lost its key and
// used up its attempts, but its lock is still the claim's.
func TestRetiredJobEnds(t *testing.T) {
	for kind, want := range map[job.Kind]string{job.Completed: "", job.Failed: "25 attempts, error no", job.Returned: "25 attempts"} {
		var f *fixture
		f = newFixture(t, map[string]scheduler.Handler{"x": func(context.Context, *job.Claimed) job.Outcome {
			f.exec(t, "select graphile_worker.add_job('y', job_key => 'k')")
			return job.Outcome{Kind: kind, Err: errors.New("no")}
		}})
		f.exec(t, "select graphile_worker.add_job('x', job_key => 'k')")
		if err := scheduler.New(f.config).RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got string
		err := f.pool.QueryRow(t.Context(), `select attempts || ' attempts' || coalesce(', error ' || last_error, '')
			from graphile_worker.jobs where task_identifier = 'x' and locked_by is null and key is null`).Scan(&got)
		if errors.Is(err, pgx.ErrNoRows) {
			got, err = "", nil
		}
		if err != nil || got != want {
			t.Errorf("outcome %d left %q (%v), want %q", kind, got, err, want)
		}
	}
}

func TestGracefulShutdownLetsJobsFinish(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	f := newFixture(t, map[string]scheduler.Handler{"x": func(ctx context.Context, _ *job.Claimed) job.Outcome {
		close(started)
		<-finish
		if ctx.Err() != nil {
			t.Error("the job's context ended during a graceful shutdown")
		}
		return job.Outcome{Kind: job.Completed}
	}})
	f.exec(t, "select graphile_worker.add_job('x')")
	stop := run(t, scheduler.New(f.config))
	<-started
	f.exec(t, "select graphile_worker.add_job('y')")
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	if e := wait[event.WorkerStopping](t, f); e.Running != 1 {
		t.Errorf("%d jobs running at the stop, want 1", e.Running)
	}
	close(finish)
	<-stopped
	if n := f.jobs(t); n != 1 {
		t.Errorf("%d jobs left, want the one added during the shutdown", n)
	}
}

func TestAbortedJobsGoBackWithTheirAttempt(t *testing.T) {
	started := make(chan struct{})
	f := newFixture(t, map[string]scheduler.Handler{"x": func(ctx context.Context, _ *job.Claimed) job.Outcome {
		close(started)
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), scheduler.ErrShutdown) {
			t.Errorf("cause is %v", context.Cause(ctx))
		}
		return job.Outcome{Kind: job.Failed, Err: ctx.Err()}
	}})
	f.config.AbortTimeout = time.Millisecond
	f.exec(t, "select graphile_worker.add_job('x', job_key => 'k', queue_name => 'q')")
	stop := run(t, scheduler.New(f.config))
	<-started
	stop()
	wait[event.JobReturned](t, f)
	f.wantReturned(t)
}

func TestForcedShutdownDoesNotWaitForHandlers(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	ended := make(chan struct{})
	f := newFixture(t, map[string]scheduler.Handler{"x": func(context.Context, *job.Claimed) job.Outcome {
		defer close(ended)
		close(started)
		<-release // ignores its context
		return job.Outcome{Kind: job.Completed}
	}})
	f.config.AbortTimeout = time.Millisecond
	f.exec(t, "select graphile_worker.add_job('x', job_key => 'k', queue_name => 'q')")
	s := scheduler.New(f.config)
	stop := run(t, s)
	<-started
	s.Force()
	stop()
	f.wantReturned(t)
	close(release) // its late end must change nothing
	<-ended
	f.wantReturned(t)
}

func (f *fixture) wantReturned(t *testing.T) {
	t.Helper()
	var row, queue string
	err := f.pool.QueryRow(t.Context(), `select concat_ws('|', attempts, key, locked_by, last_error, is_available),
		(select concat_ws('|', locked_by, is_available) from graphile_worker._private_job_queues)
		from graphile_worker._private_jobs`).Scan(&row, &queue)
	if err != nil || row != "0|k|t" || queue != "t" {
		t.Errorf("returned job is %q, its queue %q (%v)", row, queue, err)
	}
}

func TestRunOnceGivesUpOnABrokenSchema(t *testing.T) {
	f := newFixture(t, map[string]scheduler.Handler{"x": completes})
	f.exec(t, "alter table graphile_worker._private_jobs rename to gone")
	err := scheduler.New(f.config).RunOnce(t.Context())
	var answer *pgconn.PgError
	if !errors.As(err, &answer) || answer.Code != "42P01" || !strings.Contains(err.Error(), "FindCursor") {
		t.Errorf("error is %v", err)
	}
}

func TestClaimOrder(t *testing.T) {
	var mu sync.Mutex
	var order []int64
	f := newFixture(t, map[string]scheduler.Handler{"x": func(_ context.Context, j *job.Claimed) job.Outcome {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, j.ID)
		return job.Outcome{Kind: job.Completed}
	}})
	f.config.Concurrency = 1
	f.exec(t, `select graphile_worker.add_job('x', priority => p, run_at => now() - make_interval(mins => m))
		from (values (0, 1), (0, 3), (1, 9), (-1, 1), (0, 2)) v (p, m)`)
	if err := scheduler.New(f.config).RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(order, []int64{4, 2, 5, 1, 3}) {
		t.Errorf("ran in the order %v", order)
	}
}

var _ dbgen.DBTX = (*lossy)(nil)
