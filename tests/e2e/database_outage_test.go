package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
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
		waitFor(t, w.Events, func(e event.Event) bool {
			switch e.(type) {
			// While it is not known what has become of held jobs, none are claimed.
			case event.ClaimFailed, event.OutcomesDelayed:
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
		_, change := w.Events.Seen()
		if n, err := tryCount(t, url); err == nil && n == 0 {
			break
		}
		select {
		case <-change:
		case <-timeout:
			t.Fatalf("jobs left after the database came back; %d of %d started", len(runs), jobs)
		}
	}
	if err := w.Stop(); err != nil {
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
	if n := count[event.OutcomesAbandoned](w.Events); n > 0 {
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
	waitFor[event.DatabaseUnreachable](t, w.Events, nil)
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor[event.WorkerStarted](t, w.Events, nil)
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}

func TestRunGivesUpOnADatabaseThatDoesNotComeUp(t *testing.T) {
	e := testworker.NewEvents()
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: "postgres://u:hunter2@127.0.0.1:1/db", ConnectTimeout: 500 * time.Millisecond,
		Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}, Observers: []func(event.Event){e.Observe},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = worker.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "gave up after 500ms") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error is %v", err)
	}
	if count[event.DatabaseUnreachable](e) == 0 {
		t.Error("nothing said that the database cannot be reached")
	}
	if err := worker.Run(t.Context()); !errors.Is(err, gworker.ErrAlreadyRun) {
		t.Errorf("second Run: %v", err)
	}
}
