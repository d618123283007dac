package gworkertest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/wait"
)

const (
	// DefaultWait is how long WaitRun and WaitJob wait if their context has no
	// deadline.
	DefaultWait = time.Minute

	// DefaultPollInterval is a Worker's PollInterval if its configuration has
	// none: retries and jobs for later are found soon.
	DefaultPollInterval = 100 * time.Millisecond
)

// stopPatience is how long a worker's shutdown may take beyond its
// GracefulShutdownAbortTimeout.
var stopPatience = 10 * time.Second

// Worker is a gworker.Worker that runs for a test. Its methods may be called from
// the test's goroutine only.
type Worker struct {
	t      testing.TB
	worker *gworker.Worker
	find   func(jobID int64) ([]*gworker.JobRow, error)
	runs   *runs

	cancel   context.CancelFunc
	returned chan struct{} // closed when Run has returned
	err      error         // what it returned; read after returned
	abort    time.Duration
	stopOnce sync.Once
	quiet    func() // ends its logging
}

// StartWorker runs a worker until the test ends, and returns when it has begun
// to take jobs. An error of the configuration, of the start or of Run fails the
// test. The end of the test is a graceful shutdown; a handler that does not
// return even when its context has ended fails the test and is left behind.
//
// Three fields of the configuration have other defaults than in production:
// without a Pool or a DatabaseURL, the worker gets a new database, as Database
// makes it, and adding jobs is up to its Client; PollInterval is
// DefaultPollInterval; and without a Logger, log lines go to the test's log.
func StartWorker(t testing.TB, config gworker.Config) *Worker {
	t.Helper()
	if config.Pool == nil && config.DatabaseURL == "" {
		template := &plain
		if config.Schema != "" {
			template = &Template{Schema: config.Schema}
		}
		config.DatabaseURL = template.Database(t)
	}
	if config.PollInterval == 0 {
		config.PollInterval = DefaultPollInterval
	}
	w := &Worker{
		t: t, returned: make(chan struct{}), quiet: func() {},
		abort: config.GracefulShutdownAbortTimeout,
		runs:  &runs{ends: map[int64][]Result{}, taken: map[int64]int{}, changed: make(chan struct{}), started: make(chan struct{})},
	}
	if w.abort == 0 {
		w.abort = gworker.DefaultGracefulShutdownAbortTimeout
	}
	if config.Logger == nil {
		config.Logger, w.quiet = testLogger(t)
	}
	config.Observers = append(append([]func(event.Event){}, config.Observers...), w.runs.observe)
	var err error
	if w.worker, err = gworker.NewWorker(config); err != nil {
		t.Fatalf("gworkertest: %v", err)
	}
	w.find = w.finder(config)
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	go func() {
		defer close(w.returned)
		w.err = w.worker.Run(ctx)
	}()
	t.Cleanup(w.Stop)
	select {
	case <-w.runs.started:
	case <-w.returned:
		t.Fatalf("gworkertest: the worker did not start: %v", w.err)
	}
	return w
}

// finder returns how to read a job's row, on a connection of its own: the worker
// closes its pool when it stops.
func (w *Worker) finder(config gworker.Config) func(int64) ([]*gworker.JobRow, error) {
	return func(jobID int64) ([]*gworker.JobRow, error) {
		ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
		defer cancel()
		if config.Pool != nil {
			return JobsIn(config.Pool).InSchema(config.Schema).rows(ctx, "", jobID)
		}
		pool, err := newPool(ctx, config.DatabaseURL)
		if err != nil {
			return nil, err
		}
		defer pool.Close()
		return JobsIn(pool).InSchema(config.Schema).rows(ctx, "", jobID)
	}
}

// ID returns the id under which the worker locks jobs.
func (w *Worker) ID() string { return w.worker.ID() }

// Client returns a client on the worker's database and schema.
func (w *Worker) Client() *gworker.Client { return w.worker.Client() }

// Stop shuts the worker down, as the end of the test does, and returns when it
// has stored all outcomes. Calling it again does nothing.
func (w *Worker) Stop() {
	w.t.Helper()
	w.stopOnce.Do(func() {
		w.t.Helper()
		w.cancel()
		if !wait.For(context.Background(), w.returned, w.abort+stopPatience) {
			w.t.Errorf("gworkertest: the worker has not stopped within %s: a handler ignores that its context has ended", w.abort+stopPatience)
			w.worker.Abandon()
			<-w.returned
		}
		w.quiet()
		if w.err != nil {
			w.t.Errorf("gworkertest: the worker ended with an error: %v", w.err)
		}
	})
}

// WaitRun waits until a run of the job has ended and its outcome is stored, and
// returns it. Each run is returned once, the oldest first, whether it ended
// before the call or after: a second call for one job waits for its second run.
//
// The test fails if ctx ends before that, or, where ctx has no deadline, after
// DefaultWait.
func (w *Worker) WaitRun(ctx context.Context, jobID int64) Result {
	w.t.Helper()
	return w.wait(ctx, jobID, "ended a run of", func(Result) bool { return true })
}

// WaitJob waits until the job is over, completed or permanently failed, and
// returns its last run. It passes over runs that failed and are tried again, and
// those that put the job back: Returned, Snoozed. A job that was replaced or
// removed by its key while it ran is over even so. The test fails if ctx ends
// before that, or, where ctx has no deadline, after DefaultWait.
func (w *Worker) WaitJob(ctx context.Context, jobID int64) Result {
	w.t.Helper()
	return w.wait(ctx, jobID, "ended", Result.final)
}

func (w *Worker) wait(ctx context.Context, jobID int64, what string, ok func(Result) bool) Result {
	w.t.Helper()
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultWait)
		defer cancel()
	}
	began, running := time.Now(), w.returned
	for {
		r, found, changed := w.runs.next(jobID, ok)
		if found {
			return r
		}
		select {
		case <-changed:
		case <-running:
			// Its last events are there now.
			if r, found, _ = w.runs.next(jobID, ok); found {
				return r
			}
			w.t.Fatalf("gworkertest: the worker has stopped (error: %v) and not %s job %d. %s", w.err, what, jobID, w.describe(jobID))
		case <-ctx.Done():
			w.t.Fatalf("gworkertest: the worker has not %s job %d within %s (%v). %s",
				what, jobID, time.Since(began).Round(time.Millisecond), context.Cause(ctx), w.describe(jobID))
		}
	}
}

// describe says what is known of a job that was waited for in vain.
func (w *Worker) describe(jobID int64) string {
	var b strings.Builder
	for _, r := range w.runs.all(jobID) {
		fmt.Fprintf(&b, "Seen: %s. ", r)
	}
	rows, err := w.find(jobID)
	switch {
	case err != nil:
		fmt.Fprintf(&b, "Reading its row failed: %v", err)
	case len(rows) == 0:
		b.WriteString("It is not in the database: it was not committed, or another worker has completed it.")
	default:
		row := rows[0]
		fmt.Fprintf(&b, "Its row: task %q, attempt %d of %d, run_at %s", row.Task, row.Attempts, row.MaxAttempts, row.RunAt.Format(time.RFC3339Nano))
		if row.Queue != "" {
			fmt.Fprintf(&b, ", queue %q", row.Queue)
		}
		switch {
		case row.LockedBy == w.ID():
			b.WriteString(", running")
		case row.LockedBy != "":
			fmt.Fprintf(&b, ", locked by %q", row.LockedBy)
		}
		if row.LastError != "" {
			fmt.Fprintf(&b, ", last error %q", cut(row.LastError))
		}
	}
	return b.String()
}
