package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// The errors and values of this file do everything wrong that a program's own
// types can.

type nilError struct{ reason string }

func (e *nilError) Error() string { return e.reason }

// panicking panics in each of the named methods.
type panicking struct {
	methods string
	value   any
}

func (p panicking) panics(method string) {
	if strings.Contains(p.methods, method) {
		panic(p.value)
	}
}

func (p panicking) Error() string                { p.panics("Error"); return "broken" }
func (p panicking) Unwrap() error                { p.panics("Unwrap"); return nil }
func (p panicking) Is(error) bool                { p.panics("Is"); return false }
func (p panicking) As(any) bool                  { p.panics("As"); return false }
func (p panicking) String() string               { p.panics("String"); return "broken" }
func (p panicking) MarshalJSON() ([]byte, error) { p.panics("MarshalJSON"); return []byte("{}"), nil }

// panicsWithItself cannot even be said to have panicked.
type panicsWithItself struct{}

func (p panicsWithItself) Error() string { panic(p) }

type exits struct{}

func (exits) Error() string { runtime.Goexit(); return "" }

// wrapsItself has no end.
type wrapsItself struct{}

func (e *wrapsItself) Error() string { return "round and round" }
func (e *wrapsItself) Unwrap() error { return e }

type wrapsItselfTwice struct{}

func (e *wrapsItselfTwice) Error() string   { return "round and round" }
func (e *wrapsItselfTwice) Unwrap() []error { return []error{e, e} }

type unmarshalPanics struct{}

func (*unmarshalPanics) UnmarshalJSON([]byte) error { panic("no decoding") }

// poison is a job that ended the process, or stopped the worker.
type poison struct {
	task      func(name string) gworker.Task
	lastError string // what it begins with
	also      string // what else is in it
	permanent bool
	snoozed   bool
}

func handled(handle func() error) func(string) gworker.Task {
	return func(name string) gworker.Task {
		return gworker.NewRawTask(name, func(context.Context, *gworker.RawJob) error { return handle() })
	}
}

func returning(err error) func(string) gworker.Task { return handled(func() error { return err }) }

func poisons() map[string]poison {
	boom := errors.New("boom")
	var missing *nilError
	nilText := "the error's Error method panicked: runtime error: invalid memory address or nil pointer dereference " +
		"(the error is a nil *e2e_test.nilError)"
	errorPanics := "the error's Error method panicked: boom (the error is of type e2e_test.panicking)"
	bad := panicking{"Error", boom}
	with := func(options gworker.TaskOptions, err error) func(string) gworker.Task {
		return func(name string) gworker.Task { return returning(err)(name).With(options) }
	}
	return map[string]poison{
		"nil pointer":        {task: returning(missing), lastError: nilText, also: "failing_handlers_test.go"},
		"Error":              {task: returning(bad), lastError: errorPanics, also: "failing_handlers_test.go"},
		"Error in wrapped":   {task: returning(fmt.Errorf("sending: %w", bad)), lastError: "sending: %!v(PANIC=Error method: boom)"},
		"Error in joined":    {task: returning(errors.Join(boom, bad)), lastError: "the error's Error method panicked: boom"},
		"Error in cancelled": {task: returning(gworker.Discard(bad)), lastError: "the error's Error method panicked: boom", permanent: true},
		"nil in cancelled":   {task: returning(gworker.Discard(missing)), lastError: "the error's Error method panicked: runtime error", permanent: true},
		"nil DiscardError":   {task: returning((*gworker.DiscardError)(nil)), lastError: "the error's Error method panicked: runtime error"},
		"nil SnoozeError":    {task: returning((*gworker.SnoozeError)(nil)), lastError: "the error's Error method panicked: runtime error"},
		"nil BatchError":     {task: returning((*gworker.BatchError)(nil)), lastError: "the error's Error method panicked: runtime error"},
		"Error and Snooze":   {task: returning(errors.Join(gworker.Snooze(time.Hour), bad)), snoozed: true},
		"Unwrap":             {task: returning(panicking{"Unwrap", boom}), lastError: "broken; the error's Unwrap method panicked: boom", also: "failing_handlers_test.go"},
		"As":                 {task: returning(panicking{"As", boom}), lastError: "broken; the error's As method panicked: boom"},
		"Is": {task: with(gworker.TaskOptions{Middleware: []gworker.Middleware{gworker.TimeoutMiddleware(time.Nanosecond)}},
			panicking{"Is", boom}), lastError: "the job's time is up"},
		"Error panics with itself": {task: returning(panicsWithItself{}), lastError: "the error's Error method panicked: a value of type e2e_test.panicsWithItself"},
		"Error exits":              {task: returning(exits{}), lastError: "the error's Error method ended its goroutine (runtime.Goexit)"},
		"wraps itself":             {task: returning(&wrapsItself{}), lastError: "round and round"},
		"wraps itself twice":       {task: returning(&wrapsItselfTwice{}), lastError: "round and round"},
		"no text":                  {task: returning(errors.New("")), lastError: "the handler returned an error without a text"},
		"no text in cancelled":     {task: returning(gworker.Discard(errors.New(" "))), lastError: "the handler returned an error without a text", permanent: true},
		"huge and not UTF-8":       {task: returning(errors.New("a\xff\x00" + strings.Repeat("é", 1<<20))), lastError: "a\uFFFD\uFFFDéé", also: "é [cut]"},

		"panic":             {task: handled(func() error { panic("boom") }), lastError: "panic: boom\n\ngoroutine ", also: "failing_handlers_test.go"},
		"panic with error":  {task: handled(func() error { panic(bad) }), lastError: "panic: the error's Error method panicked: boom"},
		"panic with String": {task: handled(func() error { panic(&struct{ fmt.Stringer }{}) }), lastError: "panic: "},
		"panic with nil":    {task: handled(func() error { panic(missing) }), lastError: "panic: the error's Error method panicked: runtime error"},
		"panic with itself": {task: handled(func() error { panic(panicsWithItself{}) }), lastError: "panic: the error's Error method panicked: a value of type e2e_test.panicsWithItself"},
		"panic with exits":  {task: handled(func() error { panic(exits{}) }), lastError: "panic: the error's Error method ended its goroutine"},
		"Goexit":            {task: handled(func() error { runtime.Goexit(); return nil }), lastError: "the handler ended its goroutine"},

		"Recover middleware": {task: func(name string) gworker.Task {
			return handled(func() error { panic(bad) })(name).With(gworker.TaskOptions{
				Middleware: []gworker.Middleware{
					func(next gworker.Handler) gworker.Handler {
						return func(ctx context.Context, job *gworker.RawJob) error { return fmt.Errorf("outside: %w", next(ctx, job)) }
					},
					gworker.LogMiddleware(nil), gworker.RecoverMiddleware(nil),
				},
			})
		}, lastError: "outside: panic: the error's Error method panicked: boom (the error is of type e2e_test.panicking)\n\ngoroutine ", also: "failing_handlers_test.go"},
		"Backoff panics": {task: with(gworker.TaskOptions{Backoff: func(gworker.BackoffInput) time.Duration { panic(bad) }}, boom), lastError: "boom"},
		"Backoff exits":  {task: with(gworker.TaskOptions{Backoff: func(gworker.BackoffInput) time.Duration { runtime.Goexit(); return 0 }}, boom), lastError: "boom"},
		"decoding": {task: func(name string) gworker.Task {
			return gworker.NewTask(name, func(context.Context, *gworker.Job[unmarshalPanics]) error { return nil })
		}, lastError: "decoding the payload: panic: no decoding\n\ngoroutine "},
		"element": {task: func(name string) gworker.Task {
			return gworker.NewBatchTask(name, func(_ context.Context, job *gworker.BatchJob[int]) ([]error, error) {
				return []error{boom, missing, errors.New(""), nil}, nil
			})
		}, lastError: "Batch failures:\nboom\n" + nilText + "\nthe handler returned an error without a text"},
		"elements of one mind": {task: func(name string) gworker.Task {
			return gworker.NewBatchTask(name, func(_ context.Context, job *gworker.BatchJob[int]) ([]error, error) {
				return []error{gworker.Discard(bad), gworker.Discard(missing), gworker.Discard(boom), nil}, nil
			})
		}, lastError: "Batch failures:\nthe error's Error method panicked: boom", permanent: true},
	}
}

// TestPoisonJobsHarmNoOther runs a job of each kind among others: it fails with a
// text that says why, and nothing else is affected.
func TestPoisonJobsHarmNoOther(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	off := new(time.Duration)
	for name, config := range map[string]gworker.Config{
		"held":   {},
		"locked": {HoldTime: off},
		"in every layer": {HoldTime: off, BeforeRun: []func(context.Context, *gworker.RawJob) gworker.BeforeRunDecision{
			func(context.Context, *gworker.RawJob) (d gworker.BeforeRunDecision) { return d },
		}, AfterRun: []func(context.Context, *gworker.RawJob, gworker.RunResult) gworker.AfterRunDecision{
			func(_ context.Context, _ *gworker.RawJob, r gworker.RunResult) gworker.AfterRunDecision {
				return gworker.AfterRunDecision{Err: r.Err}
			},
		}},
		"local queue": {LocalQueue: gworker.LocalQueueConfig{Size: 5}, FailureDelay: time.Millisecond},
	} {
		for _, once := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/once=%t", name, once), func(t *testing.T) {
				sample.Take(t)
				t.Parallel()
				testPoison(t, config, once)
			})
		}
	}
}

func testPoison(t *testing.T, config gworker.Config, once bool) {
	pool := migrated(t)
	client := newClient(t, pool)
	all, ids := poisons(), map[string]int64{}
	logger, log := testworker.RecordLog()
	config.Pool, config.Concurrency, config.Logger = pool, 4, logger
	config.Tasks = append(config.Tasks, gworker.NewRawTask("fine", nothing))
	const fine = 3
	for name, p := range all {
		config.Tasks = append(config.Tasks, p.task(name))
		for range fine {
			add(t, client, gworker.JobSpec{Task: "fine"})
		}
		ids[name] = add(t, client, gworker.JobSpec{Task: name, Payload: []int{1, 2, 3, 4}}).ID
	}
	var e *testworker.Events
	if once {
		e = runOnce(t, config)
	} else {
		w := start(t, config)
		e = w.Events
		// Again and again: the worker goes on after each of them.
		for name, id := range ids {
			waitForEnd(t, e, name, id)
		}
		// All of them: one that was claimed and had to be given back runs after later ones.
		add(t, client, gworker.JobSpec{Task: "fine"})
		testworker.WaitForN(t, e, fine*len(all)+1, func(event.JobCompleted) bool { return true })
		if err := w.Stop(); err != nil {
			t.Errorf("Run returned %v", err)
		}
	}
	if n := count[event.JobCompleted](e); n < fine*len(all) {
		t.Errorf("%d other jobs were completed, want %d", n, fine*len(all))
	}
	for name, p := range all {
		row := testworker.ReadFailure(t, pool, ids[name])
		switch {
		case row.LockedBy != nil:
			t.Errorf("%s: the job is locked still", name)
		case p.snoozed:
			if row.LastError != "" || row.Attempts != 0 {
				t.Errorf("%s: want a snooze, got %+v", name, row)
			}
			continue
		case !strings.HasPrefix(row.LastError, p.lastError) || !strings.Contains(row.LastError, p.also):
			t.Errorf("%s: last_error is %.300q, want %q and in it %q", name, row.LastError, p.lastError, p.also)
		case len(row.LastError) > 64<<10:
			t.Errorf("%s: last_error has %d bytes", name, len(row.LastError))
		case (row.Attempts == 25) != p.permanent:
			t.Errorf("%s: it has had %d of 25 attempts, permanent: %t", name, row.Attempts, p.permanent)
		}
		lines := log.Where(t, func(line map[string]any) bool { return line["task"] == name && line["level"] == "ERROR" })
		if len(lines) == 0 {
			t.Errorf("%s: the log has no line of it", name)
		}
	}
}

// blocks is an error whose text takes as long as it wants.
type blocks struct{ until <-chan struct{} }

func (b blocks) Error() string { <-b.until; return "at last" }

// TestErrorThatBlocksKeepsItsSlotAlone: it is read in the slot, as the handler runs
// there, and the end of the worker does not depend on it.
func TestErrorThatBlocksKeepsItsSlotAlone(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for name, hold := range map[string]*time.Duration{"held": nil, "locked": new(time.Duration)} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			pool := migrated(t)
			client := newClient(t, pool)
			until := make(chan struct{})
			reading := make(chan struct{})
			w := start(t, gworker.Config{
				Pool: pool, Concurrency: 2, HoldTime: hold, GracefulShutdownAbortTimeout: time.Millisecond,
				Tasks: []gworker.Task{
					gworker.NewRawTask("fine", nothing),
					gworker.NewRawTask("blocks", func(context.Context, *gworker.RawJob) error {
						close(reading)
						return blocks{until}
					}),
				},
			})
			t.Cleanup(func() { close(until) }) // before the worker is waited for, if it is still there
			job := add(t, client, gworker.JobSpec{Task: "blocks"})
			<-reading
			for range 20 {
				fine := add(t, client, gworker.JobSpec{Task: "fine"})
				waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == fine.ID })
			}
			w.Abandon()
			if err := w.Stop(); err != nil {
				t.Errorf("Run returned %v", err)
			}
			if row := testworker.Row(t, pool, job.ID); row != "0/25|-|again" {
				t.Errorf("the row is %q, want the job back in the queue", row)
			}
		})
	}
}

func waitForEnd(t *testing.T, e *testworker.Events, name string, id int64) {
	t.Helper()
	timeout := time.After(patience)
	for {
		seen, change := e.Seen()
		for _, e := range seen {
			switch e := e.(type) {
			case event.JobFailed:
				if e.Job.ID == id {
					return
				}
			case event.JobPermanentlyFailed:
				if e.Job.ID == id {
					return
				}
			case event.JobSnoozed:
				if e.Job.ID == id {
					return
				}
			}
		}
		select {
		case <-change:
		case <-timeout:
			t.Fatalf("%s has not ended; seen: %.3000s", name, testworker.Describe(seen))
		}
	}
}
