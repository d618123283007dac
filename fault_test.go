package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/internal/testdb"
)

// TestDatabaseGoesAwayUnderLoad stops the server twice, once orderly and once
// not, while jobs run. Every job must end, and a job may run again only where
// its outcome could not be stored, which the worker then knows.
func TestDatabaseGoesAwayUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	t.Run("default", func(t *testing.T) { testDatabaseGoesAway(t, nil) })
	t.Run("all are held", func(t *testing.T) { testDatabaseGoesAway(t, new(10*time.Second)) })
	t.Run("all are locked", func(t *testing.T) { testDatabaseGoesAway(t, new(time.Duration)) })
}

func testDatabaseGoesAway(t *testing.T, hold *time.Duration) {
	server := testdb.PrivateServer(t)
	url := server.URL("postgres")
	pool := testdb.Pool(t, url)
	client := newClient(t, pool)
	if err := client.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	const jobs = 600
	specs := make([]gworker.JobSpec, jobs)
	for i := range specs {
		specs[i] = gworker.JobSpec{Task: "x", Payload: i}
		if i%3 == 0 {
			specs[i].Queue = fmt.Sprintf("queue %d", i%9)
		}
	}
	if _, err := client.AddJobs(t.Context(), specs); err != nil {
		t.Fatal(err)
	}

	var mu sync.Mutex
	runs := map[int]int{}
	running := map[int]bool{}
	reached := map[int]chan struct{}{jobs / 4: make(chan struct{}), jobs / 2: make(chan struct{})}
	gate := make(chan struct{}, 1) // what lets a job pass while the server is stopped and started
	gate <- struct{}{}
	w := start(t, gworker.Config{
		DatabaseURL: url, Concurrency: 8, PollInterval: 100 * time.Millisecond, StatementTimeout: 5 * time.Second, HoldTime: hold,
		Tasks: []gworker.Task{gworker.NewTask("x", func(_ context.Context, job *gworker.Job[int]) error {
			mu.Lock()
			if running[job.Payload] {
				t.Errorf("job %d runs twice at once", job.Payload)
			}
			running[job.Payload] = true
			runs[job.Payload]++
			if ch, ok := reached[len(runs)]; ok && runs[job.Payload] == 1 {
				close(ch)
			}
			mu.Unlock()
			token := <-gate
			gate <- token
			mu.Lock()
			running[job.Payload] = false
			mu.Unlock()
			return nil
		})},
	})

	interrupt := func(at int, stop func(context.Context) error) {
		select {
		case <-reached[at]:
		case <-time.After(patience):
			t.Fatalf("%d jobs did not start", at)
		}
		<-gate // from here on running jobs wait, so some are under way
		if err := stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		gate <- struct{}{} // they end while there is no database
		waitFor(t, w.events, func(e gworker.Event) bool {
			switch e.(type) {
			// While it is not known what has become of held jobs, none are claimed.
			case gworker.ClaimFailed, gworker.OutcomesDelayed:
				return true
			}
			return false
		})
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	interrupt(jobs/4, server.Stop)
	interrupt(jobs/2, server.Crash)

	timeout := time.After(patience)
	for {
		_, change := w.events.snapshot()
		if n, err := tryCount(t, url); err == nil && n == 0 {
			break
		}
		select {
		case <-change:
		case <-timeout:
			t.Fatalf("jobs left after the database came back; %d of %d started", len(runs), jobs)
		}
	}
	if err := w.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if len(runs) != jobs {
		t.Errorf("%d of %d jobs ran", len(runs), jobs)
	}
	again := 0
	for _, n := range runs {
		again += n - 1
	}
	if again > 0 {
		t.Errorf("%d runs were repeated, although this worker lived all along", again)
	}
	if n := count[gworker.OutcomesAbandoned](w.events); n > 0 {
		t.Errorf("outcomes abandoned")
	}
}

func tryCount(t *testing.T, url string) (n int, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	err = pool.QueryRow(ctx, "select count(*) from graphile_worker._private_jobs").Scan(&n)
	return n, err
}

func TestRunWaitsForADatabaseThatComesUp(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	server := testdb.PrivateServer(t)
	url := server.URL("postgres")
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := start(t, gworker.Config{DatabaseURL: url, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	waitFor[gworker.DatabaseUnreachable](t, w.events, nil)
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor[gworker.WorkerStarted](t, w.events, nil)
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

func TestRunGivesUpOnADatabaseThatDoesNotComeUp(t *testing.T) {
	e := newEvents()
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: "postgres://u:hunter2@127.0.0.1:1/db", ConnectTimeout: 500 * time.Millisecond,
		Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}, Observers: []func(gworker.Event){e.observe},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = worker.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "gave up after 500ms") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error is %v", err)
	}
	if count[gworker.DatabaseUnreachable](e) == 0 {
		t.Error("nothing said that the database cannot be reached")
	}
	if err := worker.Run(t.Context()); !errors.Is(err, gworker.ErrAlreadyRun) {
		t.Errorf("second Run: %v", err)
	}
}

func TestStatementTimeoutNamesTheStatement(t *testing.T) {
	pool := migrated(t)
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, StatementTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "lock table graphile_worker._private_jobs in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	_, err = client.AddJob(t.Context(), gworker.JobSpec{Task: "x"})
	var timeout *gworker.StatementTimeoutError
	if !errors.As(err, &timeout) || timeout.Statement != "AddPlain" || !strings.Contains(err.Error(), "AddPlain did not end within 100ms") {
		t.Errorf("error is %v", err)
	}
}

func TestBigPayloadRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	pool := migrated(t)
	big := strings.Repeat("0123456789", 1<<20)
	add(t, newClient(t, pool), gworker.JobSpec{Task: "x", Payload: big})
	got := 0
	runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
		gworker.NewTask("x", func(_ context.Context, job *gworker.Job[string]) error { got = len(job.Payload); return nil }),
	}})
	if got != len(big) {
		t.Errorf("handler got %d bytes, want %d", got, len(big))
	}
}

func TestBreakingMigrationStopsTheWorker(t *testing.T) {
	pool := migrated(t)
	w := start(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	waitFor[gworker.ListenerConnected](t, w.events, nil)
	// Another schema's breaking migration is none of ours.
	exec(t, pool, `select pg_notify('worker:migrate', '{"migrationNumber":1001,"breaking":true}')`)
	exec(t, pool, "select graphile_worker.add_job('x')")
	waitFor[gworker.JobCompleted](t, w.events, nil)

	exec(t, pool, "insert into graphile_worker.migrations (id, breaking) values (1001, true)")
	exec(t, pool, `select pg_notify('worker:migrate', '{"migrationNumber":1001,"breaking":true}')`)
	stopped := waitFor[gworker.WorkerStopped](t, w.events, nil)
	if !errors.Is(stopped.Err, gworker.ErrBreakingMigration) || !errors.Is(w.stop(), gworker.ErrBreakingMigration) {
		t.Errorf("Run returned %v", stopped.Err)
	}
}

func TestWorkerOnAnySchemaWithoutPreparedStatements(t *testing.T) {
	url := testdb.Empty(t)
	pool := testdb.Pool(t, url)
	odd := `my "odd" Schema`
	done := 0
	config := gworker.Config{
		DatabaseURL: url, Schema: odd, NoPreparedStatements: true, Concurrency: 1,
		Tasks: append(sqlTasks(t, map[string]string{"sql": "create table seen ()"}),
			gworker.NewRawTask("go", func(ctx context.Context, job *gworker.RawJob) error {
				done++
				if done == 1 {
					return errors.New("again")
				}
				_, err := job.Client().AddJob(ctx, gworker.JobSpec{Task: "sql", Queue: "q"})
				return err
			})),
	}
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, Schema: odd, NoPreparedStatements: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(t, client, gworker.JobSpec{Task: "go"})
	add(t, client, gworker.JobSpec{Task: "go"})
	e := runOnce(t, config)
	if count[gworker.JobCompleted](e) != 2 || count[gworker.JobFailed](e) != 1 {
		seen, _ := e.snapshot()
		t.Errorf("events: %s", describe(seen))
	}
	exec(t, pool, "select from seen")
	var prepared int
	scan(t, pool, `select count(*) from "my ""odd"" Schema".migrations`, nil, &prepared)
	if prepared != 20 {
		t.Errorf("%d revisions in the odd schema", prepared)
	}
}

func TestObserverPanicHarmsNothing(t *testing.T) {
	pool := migrated(t)
	add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
	e := runOnce(t, gworker.Config{
		Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)},
		Observers: []func(gworker.Event){func(e gworker.Event) {
			if _, ok := e.(gworker.JobStarted); ok {
				panic("bad observer")
			}
		}},
	})
	waitFor[gworker.JobCompleted](t, e, nil)
	if panicked := waitFor[gworker.ObserverPanicked](t, e, nil); panicked.Value != "bad observer" {
		t.Errorf("reported %+v", panicked)
	}
}

func TestConfigIsValidated(t *testing.T) {
	task := gworker.NewRawTask("x", nothing)
	ok := []gworker.Task{task}
	for _, c := range []struct {
		config gworker.Config
		field  string
		says   string
	}{
		{gworker.Config{}, "Config.Tasks", "at least one"},
		{gworker.Config{Tasks: []gworker.Task{task, task}}, "Config.Tasks[1]", `"x"`},
		{gworker.Config{Tasks: []gworker.Task{{}}}, "Config.Tasks[0]", "no identifier"},
		{gworker.Config{Tasks: []gworker.Task{gworker.NewRawTask("x", nil)}}, "Config.Tasks[0]", "no handler"},
		{gworker.Config{Tasks: []gworker.Task{gworker.NewRawTask(strings.Repeat("x", 129), nothing)}}, "Config.Tasks[0]'s identifier", "128"},
		{gworker.Config{Tasks: ok, Concurrency: -1}, "Config.Concurrency", "-1"},
		{gworker.Config{Tasks: ok, PollInterval: -time.Second}, "Config.PollInterval", "-1s"},
		{gworker.Config{Tasks: ok, StatementTimeout: -1}, "Config.StatementTimeout", "negative"},
		{gworker.Config{Tasks: ok, MaxPoolSize: 1}, "Config.MaxPoolSize", "at least 2"},
		{gworker.Config{Tasks: ok, Schema: "pg_x"}, "Config.Schema", "pg_"},
		{gworker.Config{Tasks: ok, Schema: "a\x00b"}, "Config.Schema", "NUL"},
		{gworker.Config{Tasks: ok, DatabaseURL: "postgres://h:port/"}, "Config.DatabaseURL", "cannot be used"},
	} {
		_, err := gworker.NewWorker(c.config)
		wantFieldError(t, err, c.field, c.says)
	}
}

// TestServerThatBecomesReadOnlyIsLeft: as after a failover, the old primary still
// answers, and new connections reach the new one.
func TestServerThatBecomesReadOnlyIsLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	before, after, pool, failOver := twoServers(t)
	w := start(t, gworker.Config{
		Pool: pool, PollInterval: 50 * time.Millisecond, Recovery: quick,
		Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)},
	})
	waitFor[gworker.ListenerConnected](t, w.events, nil)

	failOver()
	old := testdb.Pool(t, before.URL("postgres"))
	exec(t, old, "alter system set default_transaction_read_only = on")
	exec(t, old, "select pg_reload_conf()")
	job := add(t, newClient(t, testdb.Pool(t, after.URL("postgres"))), gworker.JobSpec{Task: "x"})
	done := waitFor[gworker.JobCompleted](t, w.events, nil)
	if done.Job.ID != job.ID {
		t.Errorf("completed %+v", done.Job)
	}
	waitFor[gworker.ListenerLost](t, w.events, nil)
	there := testdb.Pool(t, after.URL("postgres"))
	listening := func() bool {
		var n int
		scan(t, there, `select count(*) from pg_stat_activity where query like '%LISTEN "jobs:insert"%'
			and pid <> pg_backend_pid()`, nil, &n)
		return n > 0
	}
	for deadline := time.Now().Add(patience); !listening(); {
		if time.Now().After(deadline) {
			t.Fatal("the listener stays with the old server")
		}
	}
}

// twoServers are two servers with a queue each, and a pool whose new connections
// lead to the second one after failOver.
func twoServers(t *testing.T) (before, after *devpg.Server, pool *pgxpool.Pool, failOver func()) {
	t.Helper()
	before, after = testdb.PrivateServer(t), testdb.PrivateServer(t)
	for _, server := range []*devpg.Server{before, after} {
		if err := newClient(t, testdb.Pool(t, server.URL("postgres"))).Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	config, err := pgxpool.ParseConfig(before.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	new, err := pgxpool.ParseConfig(after.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	var failedOver atomic.Bool
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		if failedOver.Load() {
			c.Port = new.ConnConfig.Port
		}
		return nil
	}
	pool, err = pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return before, after, pool, func() { failedOver.Store(true) }
}

// TestHeldJobOfAServerThatBecomesReadOnly: its transaction is older than that, and
// so it is done there. The next claim is on the new server.
func TestHeldJobOfAServerThatBecomesReadOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	before, after, pool, failOver := twoServers(t)
	started, release := make(chan struct{}), make(chan struct{})
	old := testdb.Pool(t, before.URL("postgres"))
	locked := false // the job that ran last
	w := start(t, gworker.Config{
		Pool: pool, PollInterval: 50 * time.Millisecond, HoldTime: new(10 * time.Second), Recovery: quick,
		Tasks: []gworker.Task{gworker.NewTask("x", func(_ context.Context, job *gworker.Job[string]) error {
			if job.Payload == "held" {
				close(started)
				<-release
			}
			if job.Payload == "first" {
				locked = lockIsWritten(t, old, job.ID)
			}
			return nil
		})},
	})
	client := newClient(t, old)
	// The first job is locked, and so are all before there is a connection to hold.
	for patient, tries := time.Now().Add(patience), 0; tries == 0 || locked; tries++ {
		if time.Now().After(patient) {
			t.Fatal("no job was held")
		}
		first := add(t, client, gworker.JobSpec{Task: "x", Payload: "first"})
		waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == first.ID })
	}
	held := add(t, client, gworker.JobSpec{Task: "x", Payload: "held"})
	<-started
	if lockIsWritten(t, old, held.ID) {
		t.Error("the job is locked")
	}
	failOver()
	exec(t, old, "alter system set default_transaction_read_only = on")
	exec(t, old, "select pg_reload_conf()")
	for deadline, readOnly := time.Now().Add(patience), ""; readOnly != "on"; {
		if time.Now().After(deadline) {
			t.Fatal("the server does not become read-only")
		}
		scan(t, old, "show default_transaction_read_only", nil, &readOnly)
	}
	close(release)
	waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == held.ID && e.Job.Payload[1] == 'h' })
	if n := jobCount(t, old); n != 0 {
		t.Errorf("%d jobs are left on the old server", n)
	}
	add(t, newClient(t, testdb.Pool(t, after.URL("postgres"))), gworker.JobSpec{Task: "x", Payload: "new"})
	waitFor(t, w.events, func(e gworker.JobCompleted) bool { return string(e.Job.Payload) == `"new"` })
	if n := count[gworker.HoldLost](w.events) + count[gworker.JobLost](w.events); n != 0 {
		seen, _ := w.events.snapshot()
		t.Errorf("lost: %s", describe(seen))
	}
}

// TestStartOnAServerThatIsStillReadOnly: a worker that starts in the middle of a
// failover waits for its end.
func TestStartOnAServerThatIsStillReadOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	server := testdb.PrivateServer(t)
	pool := testdb.Pool(t, server.URL("postgres"))
	exec(t, pool, "alter system set default_transaction_read_only = on")
	exec(t, pool, "select pg_reload_conf()")
	readOnly := func(want string) {
		for deadline := time.Now().Add(patience); ; {
			var got string
			scan(t, pool, "show default_transaction_read_only", nil, &got)
			if got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("read-only is %s", got)
			}
		}
	}
	readOnly("on")
	w := start(t, gworker.Config{DatabaseURL: server.URL("postgres"), Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	first := waitFor[gworker.DatabaseUnreachable](t, w.events, nil)
	if text := first.Err.Error(); !strings.Contains(text, "default_transaction_read_only is on") || !strings.Contains(text, "target_session_attrs") {
		t.Errorf("the first message says %s", text)
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, sql := range []string{"set default_transaction_read_only = off", "alter system reset default_transaction_read_only", "select pg_reload_conf()"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	waitFor[gworker.WorkerStarted](t, w.events, nil)
}
