package e2e_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testproxy"
	"github.com/gworker/gworker/internal/testworker"
)

// silent is a worker behind a proxy that has fallen silent.
type silent struct {
	*testworker.Worker
	proxy  *testproxy.Proxy
	direct *pgxpool.Pool // past the proxy
}

// endsWithin ends a worker and fails the test if that takes much longer than promised.
// It is generous, as a machine may be busy; what it has to tell apart takes 30 s or more.
func endsWithin(t *testing.T, w *testworker.Worker, promised time.Duration) {
	t.Helper()
	began := time.Now()
	if err := w.Stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(began); took > promised+20*time.Second {
		t.Errorf("the shutdown took %s, and %s are promised", took, promised)
	}
}

func behindProxy(t *testing.T, config gworker.Config, given bool) silent {
	t.Helper()
	database := testdb.Migrated(t)
	proxy, url := testproxy.Start(t, database)
	if given {
		// Not closed by the test: pgxpool would wait for 15 s.
		pool, err := pgxpool.New(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { go pool.Close() })
		config.Pool = pool
	} else {
		config.DatabaseURL = url
	}
	w := start(t, config)
	waitFor[event.ListenerConnected](t, w.Events, nil)
	return silent{Worker: w, proxy: proxy, direct: testdb.Pool(t, database)}
}

func noop(context.Context, *gworker.Job[any]) error { return nil }

func TestShutdownOfAnIdleWorkerWhileTheDatabaseIsSilent(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	w := behindProxy(t, gworker.Config{
		Tasks: []gworker.Task{gworker.NewTask("x", noop)}, PollInterval: 50 * time.Millisecond,
	}, false)
	add(t, newClient(t, w.direct), gworker.JobSpec{Task: "x"})
	waitFor[event.JobCompleted](t, w.Events, nil)
	w.proxy.Silence()
	time.Sleep(200 * time.Millisecond) // a poll is under way
	endsWithin(t, w.Worker, 5*time.Second)
}

// Jobs run, are locked or held, and end while nothing can be written.
func TestShutdownWithJobsWhileTheDatabaseIsSilent(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for name, hold := range map[string]*time.Duration{"held": new(10 * time.Second), "locked": new(time.Duration)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := make(chan struct{}, 100)
			w := behindProxy(t, gworker.Config{
				Tasks: []gworker.Task{gworker.NewTask("x", func(ctx context.Context, _ *gworker.Job[any]) error {
					begun <- struct{}{}
					<-ctx.Done()
					return ctx.Err()
				})},
				Concurrency: 4, HoldTime: hold, PollInterval: 50 * time.Millisecond,
				StatementTimeout: 2 * time.Second, GracefulShutdownAbortTimeout: 500 * time.Millisecond,
			}, false)
			client := newClient(t, w.direct)
			for range 3 {
				add(t, client, gworker.JobSpec{Task: "x"})
				<-begun
			}
			w.proxy.Silence()
			endsWithin(t, w.Worker, 3*time.Second)
			if n := count[event.WorkerStopping](w.Events); n != 1 {
				t.Errorf("%d times stopping", n)
			}
		})
	}
}

// A large statement time-out does not make the beginning late: what the worker waits
// for when its context ends is cut off, and the end is told at once.
func TestStoppingIsToldAtOnceWhileAClaimIsSilent(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for name, given := range map[string]bool{"own pool": false, "given pool": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := behindProxy(t, gworker.Config{
				Tasks:       []gworker.Task{gworker.NewTask("x", noop)},
				Concurrency: 4, HoldTime: new(time.Duration), PollInterval: 50 * time.Millisecond, StatementTimeout: time.Hour,
				ForbiddenFlags: []string{"f"}, // polls are claims
			}, given)
			w.proxy.Silence()
			time.Sleep(200 * time.Millisecond) // a claim is under way
			endsWithin(t, w.Worker, 5*time.Second)
			waitFor[event.WorkerStopping](t, w.Events, nil)
		})
	}
}

// A handler holds a connection of the worker's pool, and no context.
func TestShutdownTimeoutWhateverHandlersDo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	database := testdb.Migrated(t)
	direct := testdb.Pool(t, database)
	begun, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	w := start(t, gworker.Config{
		DatabaseURL: database, StatementTimeout: time.Hour, ShutdownTimeout: 2 * time.Second, HoldTime: new(time.Duration),
		Tasks: []gworker.Task{gworker.NewTask("x", func(context.Context, *gworker.Job[any]) error {
			close(begun)
			<-release
			return nil
		})},
	})
	add(t, newClient(t, direct), gworker.JobSpec{Task: "x"})
	<-begun
	endsWithin(t, w, 2*time.Second)
	waitFor[event.ShutdownForced](t, w.Events, nil)
	var attempts int
	var locked bool
	scan(t, direct, "select attempts, locked_at is not null from graphile_worker._private_jobs", nil, &attempts, &locked)
	if attempts != 0 || locked {
		t.Errorf("the job has %d attempts, locked: %v: it went not back", attempts, locked)
	}
}

// Other functions of the caller's hold Run up just as well.
func TestShutdownTimeoutWhateverHooksDo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	release, asked := make(chan struct{}), make(chan struct{}, 100)
	database := testdb.Migrated(t)
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: database, ShutdownTimeout: time.Second, Tasks: []gworker.Task{gworker.NewTask("x", noop)},
		ForbiddenFlagsFunc: func(context.Context) ([]string, error) {
			asked <- struct{}{}
			<-release
			return nil, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- worker.Run(ctx) }()
	<-asked
	cancel()
	select {
	case err := <-result:
		if !errors.Is(err, gworker.ErrShutdownTimeout) {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		t.Error("Run did not return")
	}
	close(release)
}

// A silent server is left alone: whatever the worker does at that moment.
func TestShutdownWhileTheStartIsSilent(t *testing.T) {
	t.Parallel()
	proxy, url := testproxy.Start(t, testdb.Migrated(t))
	proxy.Silence()
	w := start(t, gworker.Config{DatabaseURL: url, Tasks: []gworker.Task{gworker.NewTask("x", noop)}})
	for patient := time.Now().Add(patience); proxy.Connections() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(patient) {
			t.Fatal("the worker does not connect")
		}
	}
	endsWithin(t, w, 5*time.Second)
}

func TestCloseOfAClientWhileTheDatabaseIsSilent(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	// pgxpool itself gives up after 15 s. A busy machine only adds to the time: so one of
	// three tries is enough.
	var took time.Duration
	for range 3 {
		if took = silentClientCloses(t); took <= 14*time.Second {
			return
		}
	}
	t.Errorf("it took %s to close, and 5 s are promised", took)
}

func silentClientCloses(t *testing.T) time.Duration {
	t.Helper()
	proxy, url := testproxy.Start(t, testdb.Migrated(t))
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: url})
	if err != nil {
		t.Fatal(err)
	}
	add(t, client, gworker.JobSpec{Task: "x"})
	proxy.Silence()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := client.AddJob(ctx, gworker.JobSpec{Task: "x"}); err == nil {
		t.Fatal("a job was added")
	}
	began := time.Now()
	client.Close()
	return time.Since(began)
}

// TestInterruptionsComeBeforeTheEnd: however slowly an observer hears that a run is
// interrupted, and however fast the run ends, nobody is told of its end before.
func TestInterruptionsComeBeforeTheEnd(t *testing.T) {
	var sample testdb.Sample
	for name, interrupt := range map[string]func(*testing.T, *testworker.Worker, int64){
		"cancelled": func(t *testing.T, w *testworker.Worker, id int64) {
			if _, err := w.Client().Cancel(t.Context(), id, "no"); err != nil {
				t.Error(err)
			}
		},
		"shutdown": func(_ *testing.T, w *testworker.Worker, _ int64) { _ = w.Stop() },
		"forced": func(_ *testing.T, w *testworker.Worker, _ int64) {
			w.Abandon()
			_ = w.Stop()
		},
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			pool := migrated(t)
			job := add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
			ended := make(chan struct{}, 10)
			w := start(t, gworker.Config{Pool: pool, GracefulShutdownAbortTimeout: time.Millisecond, Observers: []func(event.Event){
				func(e event.Event) {
					switch e.(type) {
					case event.JobInterrupted:
						select { // until the end is told, if it is
						case <-ended:
						case <-time.After(100 * time.Millisecond):
						}
					case event.JobEnded, event.JobPermanentlyFailed, event.JobReturned:
						ended <- struct{}{}
					}
				},
			}, Tasks: []gworker.Task{gworker.NewRawTask("x", func(ctx context.Context, _ *gworker.RawJob) error {
				<-ctx.Done()
				return ctx.Err()
			})}})
			waitFor[event.JobStarted](t, w.Events, nil)
			for !testworker.IsLocked(t, pool, job.ID) {
				time.Sleep(time.Millisecond)
			}
			interrupt(t, w, job.ID)
			waitFor[event.JobEnded](t, w.Events, nil)
			if err := w.Stop(); err != nil && name != "forced" {
				t.Error(err)
			}
			seen, _ := w.Events.Seen()
			place := func(is func(event.Event) bool) int { return slices.IndexFunc(seen, is) }
			interrupted := place(func(e event.Event) bool { _, is := e.(event.JobInterrupted); return is })
			end := place(func(e event.Event) bool {
				switch e.(type) {
				case event.JobEnded, event.JobPermanentlyFailed, event.JobReturned:
					return true
				}
				return false
			})
			if interrupted < 0 || interrupted > end {
				t.Errorf("interrupted is event %d, the end %d", interrupted, end)
			}
		})
	}
}
