package gworkertest

import (
	"cmp"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/singlerun"
)

// A Call is what Run runs a task with. The zero value is a job of that task with
// the payload {} in its first attempt.
type Call struct {
	// Payload is the job's argument, as in gworker.JobSpec: any value that
	// encoding/json marshals; a json.RawMessage is left as it is; nil is {}. The
	// handler gets what becomes of it on its way through JSON.
	Payload any

	// Job is the rest of the job. Its Task and Payload are not looked at; of the
	// other fields, those that are zero get what a first run would find: ID 1,
	// Attempts 1, MaxAttempts 25, and the present time as RunAt, CreatedAt,
	// UpdatedAt and LockedAt. Queue, Key, Flags and LastError stay empty.
	Job gworker.JobRow

	// Config is the configuration of the worker that the handler believes to run
	// in. Its Tasks are not looked at. Without a Logger, the job's log lines go
	// to the test's log. Without a Pool or a DatabaseURL, whatever the handler
	// asks the job's Client for fails.
	Config gworker.Config
}

// ErrNoDatabase is the error of whatever a handler does with its job's Client
// under Run, unless Call.Config has a Pool or DatabaseURL.
var ErrNoDatabase = errors.New("gworkertest.Run has no database for the job's Client: give Call.Config a Pool, such as gworkertest.Pool(t)")

// Run runs a task as a worker does, without a queue and, as a rule, without a
// database: the payload is decoded, everything that surrounds the handler in
// production surrounds it here, panics become errors, and the result says what a
// worker would have made of the end. Nothing is stored.
//
// The handler's context is made of ctx. One that ends with the cause
// gworker.ErrShutdown is what the end of a graceful shutdown looks like.
//
// Tasks that complete in a transaction of their own, as those of .sql files do,
// need a queue: use StartWorker for them.
func Run(ctx context.Context, t testing.TB, task gworker.Task, call Call) Result {
	t.Helper()
	config := call.Config
	config.Tasks, config.Concurrency = []gworker.Task{task}, 1
	if config.Logger == nil {
		logger, stop := testLogger(t)
		defer stop()
		config.Logger = logger
	}
	if config.Pool == nil && config.DatabaseURL == "" {
		pool, err := noPool()
		if err != nil {
			t.Fatalf("gworkertest: %v", err)
		}
		defer pool.Close()
		config.Pool = pool
	}
	row, now := call.Job, time.Now()
	row.Task = task.Identifier()
	row.ID = cmp.Or(row.ID, 1)
	row.Attempts = cmp.Or(row.Attempts, 1)
	row.MaxAttempts = cmp.Or(row.MaxAttempts, 25)
	for _, at := range []*time.Time{&row.RunAt, &row.CreatedAt, &row.UpdatedAt, &row.LockedAt} {
		if at.IsZero() {
			*at = now
		}
	}
	var err error
	if row.Payload, err = job.EncodePayload(call.Payload); err != nil {
		t.Fatalf("gworkertest: running task %q: Call.Payload %v", row.Task, err)
	}
	worker, err := gworker.NewWorker(config)
	if err != nil {
		t.Fatalf("gworkertest: running task %q: %v", row.Task, err)
	}
	run := &singlerun.Run{Row: job.Row(row)}
	if err := worker.RunOnce(run.Context(ctx)); err != nil {
		t.Fatalf("gworkertest: running task %q: %v", row.Task, err)
	}
	return Result{
		Outcome: outcomeOf(run.Job, run.Outcome), Err: contain.Original(run.Outcome.Err), Job: gworker.JobRow(run.Job.Row), Duration: run.Duration,
		Delay: run.Outcome.Delay, Remaining: run.Outcome.Payload,
	}
}

// noPool is a pool that does not connect.
func noPool() (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig("host=127.0.0.1 user=none dbname=none sslmode=disable")
	if err != nil {
		return nil, err
	}
	config.BeforeConnect = func(context.Context, *pgx.ConnConfig) error { return ErrNoDatabase }
	return pgxpool.NewWithConfig(context.Background(), config)
}
