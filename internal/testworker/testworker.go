// Package testworker runs workers in tests: it records what they report, and lets a test
// wait for it.
//
// A configuration comes in; a running [Worker] with its [Events] goes out, and is stopped
// with the test. The one thing not to break: a test waits for an event, never for a time.
package testworker

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
)

// Patience is how long a test waits for something that should happen soon. It is waited
// for in full only if the test fails.
const Patience = 60 * time.Second

// A Worker is one that a test has started.
type Worker struct {
	*gworker.Worker
	Events *Events
	// Stop ends the worker and returns what Run returned.
	Stop func() error
}

// Start runs a worker until the test ends, or until Stop.
func Start(t *testing.T, config gworker.Config) *Worker {
	t.Helper()
	worker, events := observed(t, config)
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- worker.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-result:
			return err
		case <-time.After(Patience):
			t.Errorf("Run did not return within %s of its context's end", Patience)
			return nil
		}
	})
	t.Cleanup(func() { _ = stop() })
	return &Worker{Worker: worker, Events: events, Stop: stop}
}

// RunOnce runs a worker until nothing is runnable.
func RunOnce(t *testing.T, config gworker.Config) *Events {
	t.Helper()
	worker, events := observed(t, config)
	ctx, cancel := context.WithTimeout(context.Background(), 5*Patience)
	defer cancel()
	if err := worker.RunOnce(ctx); err != nil {
		t.Fatalf("RunOnce: %v", err)
	}
	if ctx.Err() != nil {
		t.Fatalf("RunOnce did not end within %s", 5*Patience)
	}
	return events
}

func observed(t *testing.T, config gworker.Config) (*gworker.Worker, *Events) {
	t.Helper()
	events := NewEvents()
	config.Observers = append(config.Observers, events.Observe)
	worker, err := gworker.NewWorker(config)
	if err != nil {
		t.Fatal(err)
	}
	return worker, events
}

// FastRecovery finds dead workers at the speed of tests.
var FastRecovery = gworker.RecoveryConfig{
	HeartbeatInterval: 20 * time.Millisecond, SweepInterval: 50 * time.Millisecond, StaleAfter: time.Minute,
}

// Client returns a client on the pool.
func Client(t *testing.T, pool *pgxpool.Pool) *gworker.Client {
	t.Helper()
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Add adds a job, or ends the test.
func Add(t *testing.T, client gworker.JobAdder, spec gworker.JobSpec) *gworker.JobRow {
	t.Helper()
	job, err := client.AddJob(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return job
}
