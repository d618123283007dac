package gworker_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// TestHooksThatFailHarmNothing: what is called on goroutines that many jobs share
// may panic, with whatever value, or end its goroutine.
func TestHooksThatFailHarmNothing(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	bad := panicking{"Error Is As Unwrap String", errors.New("boom")}
	for name, fail := range map[string]func(){
		"panics":             func() { panic("boom") },
		"panics with error":  func() { panic(bad) },
		"panics with itself": func() { panic(panicsWithItself{}) },
		"exits":              runtime.Goexit,
	} {
		for hook, config := range map[string]gworker.Config{
			"observer":     {Observers: []func(gworker.Event){func(gworker.Event) { fail() }}},
			"Now":          {Now: func() time.Time { fail(); return time.Time{} }},
			"BeforeRun":    {BeforeRun: []func(context.Context, *gworker.RawJob) gworker.BeforeRunDecision{skipping(fail, "bad")}},
			"observer and": {HoldTime: new(time.Duration), Observers: []func(gworker.Event){func(gworker.Event) {}, func(gworker.Event) { fail() }}},
		} {
			t.Run(hook+" "+name, func(t *testing.T) {
				sample.Take(t)
				t.Parallel()
				pool := migrated(t)
				client := newClient(t, pool)
				for range 3 {
					add(t, client, gworker.JobSpec{Task: "fine"})
				}
				failing := add(t, client, gworker.JobSpec{Task: "bad"})
				logger, log := recordLog()
				config.Pool, config.Logger = pool, logger
				config.Tasks = []gworker.Task{gworker.NewRawTask("fine", nothing), gworker.NewRawTask("bad", fails(bad))}
				w := start(t, config)
				sub := w.Subscribe(gworker.SubscriptionConfig{Filter: func(gworker.Event) bool { fail(); return true }})
				for range 3 {
					waitFor[gworker.JobCompleted](t, w.events, nil)
				}
				waitFor(t, w.events, func(e gworker.JobFailed) bool { return e.Job.ID == failing.ID })
				add(t, client, gworker.JobSpec{Task: "fine"})
				waitForMany[gworker.JobCompleted](t, w.events, 4)
				if err := w.stop(); err != nil {
					t.Errorf("Run returned %v", err)
				}
				if n := len(sub.Events()); n != 0 {
					t.Errorf("%d events have passed a filter that fails", n)
				}
				if got := readFailed(t, pool, failing.ID).lastError; hook != "BeforeRun" && !strings.HasPrefix(got, "the error's Error method panicked: boom") {
					t.Errorf("last_error is %q, want what the handler did", got)
				}
				if started, ended := count[gworker.JobStarted](w.events), count[gworker.JobEnded](w.events); started < 5 || started != ended {
					t.Errorf("%d jobs started, and %d ended", started, ended)
				}
				if len(log.saying(t, "an observer panicked")) == 0 {
					t.Error("nothing was reported of the filter")
				}
				if hook == "Now" && len(log.saying(t, "Config.Now, Recovery.Decide or the log of LogMiddleware panicked; going on without it")) == 0 {
					t.Error("nothing was reported of the clock")
				}
			})
		}
	}
}

// skipping fails for jobs of one task.
func skipping(fail func(), task string) func(context.Context, *gworker.RawJob) gworker.BeforeRunDecision {
	return func(_ context.Context, job *gworker.RawJob) (d gworker.BeforeRunDecision) {
		if job.Task == task {
			fail()
		}
		return d
	}
}

func waitForMany[E gworker.Event](t *testing.T, e *events, n int) {
	t.Helper()
	timeout := time.After(patience)
	for count[E](e) < n {
		_, change := e.snapshot()
		if count[E](e) >= n {
			return
		}
		select {
		case <-change:
		case <-timeout:
			var zero E
			t.Fatalf("%d of %d %T", count[E](e), n, zero)
		}
	}
}

// TestForbiddenFlagsFuncThatFails: nothing is claimed, and it is asked again.
func TestForbiddenFlagsFuncThatFails(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for name, fail := range map[string]func() error{
		"Error panics":       func() error { return panicking{"Error", "boom"} },
		"As and Is panic":    func() error { return panicking{"As Is", "boom"} },
		"wraps itself":       func() error { return &wrapsItself{} },
		"wraps itself twice": func() error { return &wrapsItselfTwice{} },
		"panics":             func() error { panic(panicking{"Error As Is", "boom"}) },
		"exits":              func() error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			pool := migrated(t)
			add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
			var asked atomic.Int32
			w := start(t, gworker.Config{
				Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}, PollInterval: time.Millisecond,
				ForbiddenFlagsFunc: func(context.Context) ([]string, error) {
					if asked.Add(1) < 3 {
						return nil, fail()
					}
					return nil, nil
				},
			})
			waitFor(t, w.events, func(e gworker.ClaimFailed) bool {
				return strings.HasPrefix(e.Err.Error(), "asking which flags are forbidden now: ")
			})
			waitFor[gworker.JobCompleted](t, w.events, nil)
			if err := w.stop(); err != nil {
				t.Errorf("Run returned %v", err)
			}
		})
	}
}

// TestBeforeAddAndPayloadsThatFail: nothing is added, and the error says why.
func TestBeforeAddAndPayloadsThatFail(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	bad := panicking{"Error Is As Unwrap MarshalJSON", "boom"}
	for name, c := range map[string]struct {
		before  func(context.Context, *gworker.JobSpec) error
		payload any
		want    string
	}{
		"error":   {before: func(context.Context, *gworker.JobSpec) error { return bad }, want: "BeforeAdd[0]: the error's Error method panicked: boom"},
		"panic":   {before: func(context.Context, *gworker.JobSpec) error { panic(bad) }, want: "BeforeAdd[0]: panic: the error's Error method panicked: boom"},
		"payload": {payload: bad, want: "JobSpec.Payload cannot be encoded as JSON: panic: boom"},
		"changed payload": {before: func(_ context.Context, s *gworker.JobSpec) error { s.Payload = bad; return nil },
			want: "JobSpec.Payload cannot be encoded as JSON: panic: boom"},
	} {
		t.Run(name, func(t *testing.T) {
			config := gworker.ClientConfig{Pool: pool}
			if c.before != nil {
				config.BeforeAdd = []func(context.Context, *gworker.JobSpec) error{c.before}
			}
			client, err := gworker.NewClient(config)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if _, err := client.AddJob(t.Context(), gworker.JobSpec{Task: "x", Payload: c.payload}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("AddJob: %v, want %q", err, c.want)
			}
			want := strings.Replace(c.want, "JobSpec", "specs[0]", 1)
			if _, err := client.AddJobs(t.Context(), []gworker.JobSpec{{Task: "x", Payload: c.payload}}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("AddJobs: %v, want %q", err, want)
			}
		})
	}
	if n := jobCount(t, pool); n != 0 {
		t.Errorf("%d jobs were added", n)
	}
}

// TestObserversCanLookThroughFailures: what a handler has returned is found in the
// events, but for what cannot be looked through.
func TestObserversCanLookThroughFailures(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	mine := &nilError{"mine"}
	tasks := map[string]error{"mine": errors.Join(errors.New("x"), mine), "bad": panicking{"As", "boom"}, "round": &wrapsItself{}}
	var found atomic.Int32
	config := gworker.Config{Pool: pool, Observers: []func(gworker.Event){func(e gworker.Event) {
		if failed, ok := e.(gworker.JobFailed); ok {
			var target *nilError
			if errors.Is(failed.Err, mine) && errors.As(failed.Err, &target) && target == mine {
				found.Add(1)
			}
		}
	}}}
	for name, err := range tasks {
		config.Tasks = append(config.Tasks, gworker.NewRawTask(name, fails(err)))
		add(t, newClient(t, pool), gworker.JobSpec{Task: name})
	}
	e := runOnce(t, config)
	if found.Load() != 1 || count[gworker.JobFailed](e) != len(tasks) {
		t.Errorf("found it %d times in %d failures", found.Load(), count[gworker.JobFailed](e))
	}
	if count[gworker.ObserverPanicked](e) != 0 {
		t.Error("the observer has panicked")
	}
}
