package gworkertest

import (
	"testing"
	"time"
)

// Impatient makes what waits for a test's own faults give up soon.
func Impatient(after time.Duration) (restore func()) {
	pool, stop := poolPatience, stopPatience
	poolPatience, stopPatience = after, after
	return func() { poolPatience, stopPatience = pool, stop }
}

// For is the worker for another test's goroutine.
func (w *Worker) For(t testing.TB) *Worker {
	other := Worker{t: t, worker: w.worker, find: w.find, runs: w.runs, returned: w.returned, err: w.err}
	return &other
}
