package e2e_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
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
			"observer":     {Observers: []func(event.Event){func(event.Event) { fail() }}},
			"Now":          {Now: func() time.Time { fail(); return time.Time{} }},
			"BeforeRun":    {BeforeRun: []func(context.Context, *gworker.RawJob) gworker.BeforeRunDecision{skipping(fail, "bad")}},
			"observer and": {HoldTime: new(time.Duration), Observers: []func(event.Event){func(event.Event) {}, func(event.Event) { fail() }}},
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
				logger, log := testworker.RecordLog()
				config.Pool, config.Logger = pool, logger
				config.Tasks = []gworker.Task{gworker.NewRawTask("fine", nothing), gworker.NewRawTask("bad", testworker.Fail(bad))}
				w := start(t, config)
				sub := w.Subscribe(gworker.SubscriptionConfig{Filter: func(event.Event) bool { fail(); return true }})
				for range 3 {
					waitFor[event.JobCompleted](t, w.Events, nil)
				}
				waitFor(t, w.Events, func(e event.JobFailed) bool { return e.Job.ID == failing.ID })
				add(t, client, gworker.JobSpec{Task: "fine"})
				testworker.WaitForN[event.JobCompleted](t, w.Events, 4, nil)
				if err := w.Stop(); err != nil {
					t.Errorf("Run returned %v", err)
				}
				if n := len(sub.Events()); n != 0 {
					t.Errorf("%d events have passed a filter that fails", n)
				}
				if got := testworker.ReadFailure(t, pool, failing.ID).LastError; hook != "BeforeRun" && !strings.HasPrefix(got, "the error's Error method panicked: boom") {
					t.Errorf("last_error is %q, want what the handler did", got)
				}
				if started, ended := count[event.JobStarted](w.Events), count[event.JobEnded](w.Events); started < 5 || started != ended {
					t.Errorf("%d jobs started, and %d ended", started, ended)
				}
				if len(log.Saying(t, "an observer panicked")) == 0 {
					t.Error("nothing was reported of the filter")
				}
				if hook == "Now" && len(log.Saying(t, "Config.Now, Recovery.Decide or the log of LogMiddleware panicked; going on without it")) == 0 {
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
			waitFor(t, w.Events, func(e event.ClaimFailed) bool {
				return strings.HasPrefix(e.Err.Error(), "asking which flags are forbidden now: ")
			})
			waitFor[event.JobCompleted](t, w.Events, nil)
			if err := w.Stop(); err != nil {
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
	config := gworker.Config{Pool: pool, Observers: []func(event.Event){func(e event.Event) {
		if failed, ok := e.(event.JobFailed); ok {
			var target *nilError
			if errors.Is(failed.Err, mine) && errors.As(failed.Err, &target) && target == mine {
				found.Add(1)
			}
		}
	}}}
	for name, err := range tasks {
		config.Tasks = append(config.Tasks, gworker.NewRawTask(name, testworker.Fail(err)))
		add(t, newClient(t, pool), gworker.JobSpec{Task: name})
	}
	e := runOnce(t, config)
	if found.Load() != 1 || count[event.JobFailed](e) != len(tasks) {
		t.Errorf("found it %d times in %d failures", found.Load(), count[event.JobFailed](e))
	}
	if count[event.ObserverPanicked](e) != 0 {
		t.Error("the observer has panicked")
	}
}

func TestObserverPanicHarmsNothing(t *testing.T) {
	pool := migrated(t)
	add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
	e := runOnce(t, gworker.Config{
		Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)},
		Observers: []func(event.Event){func(e event.Event) {
			if _, ok := e.(event.JobStarted); ok {
				panic("bad observer")
			}
		}},
	})
	waitFor[event.JobCompleted](t, e, nil)
	if panicked := waitFor[event.ObserverPanicked](t, e, nil); panicked.Value != "bad observer" {
		t.Errorf("reported %+v", panicked)
	}
}

// TestCronAsksBeforeAdd: the jobs of cron items pass the interceptors like those
// that the worker's client adds.
func TestCronAsksBeforeAdd(t *testing.T) {
	ran := make(chan string, 10)
	config := gworker.Config{
		Pool: migrated(t),
		Tasks: []gworker.Task{gworker.NewTask("report", func(_ context.Context, job *gworker.Job[struct{ Region string }]) error {
			ran <- job.Payload.Region + " " + strings.Join(job.Flags, ",")
			return nil
		})},
		Cron: gworker.CronConfig{Crontab: `
			* * * * * report ?id=kept&fill=1m {region: 'kept'}
			* * * * * report ?id=skipped&fill=1m&queue=skipped
			* * * * * report ?id=refused&fill=1m&queue=refused
			* * * * * report ?id=panics&fill=1m&queue=panics
			* * * * * report ?id=exits&fill=1m&queue=exits
			* * * * * report ?id=unreadable&fill=1m&queue=unreadable
			* * * * * report ?id=unwritable&fill=1m&queue=unwritable`},
		BeforeAdd: []func(context.Context, *gworker.JobSpec) error{func(_ context.Context, spec *gworker.JobSpec) error {
			switch spec.Queue {
			case "skipped":
				return gworker.ErrAddSkipped
			case "refused":
				return errors.New("not today")
			case "panics":
				panic(panicsWithItself{})
			case "exits":
				runtime.Goexit()
			case "unreadable":
				return panicking{"Error Is As Unwrap", "boom"}
			case "unwritable":
				spec.Payload = panicking{"MarshalJSON", "boom"}
			}
			spec.Flags = []string{"seen"}
			return nil
		}},
	}
	exec(t, config.Pool, `insert into graphile_worker._private_known_crontabs (identifier, known_since)
		select unnest('{kept,skipped,refused,panics,exits,unreadable,unwritable}'::text[]), now() - interval '1 hour'`)
	w := start(t, config)
	for item, says := range map[string]string{
		"refused": "not today", "panics": "panic: ", "exits": "runtime.Goexit",
		"unreadable": "the error's Error method panicked: boom", "unwritable": "cannot be encoded as JSON: panic: boom",
	} {
		failed := waitFor(t, w.Events, func(e event.CronItemFailed) bool { return e.Identifier == item })
		if !strings.Contains(failed.Err.Error(), says) {
			t.Errorf("%+v", failed)
		}
	}
	select {
	case got := <-ran:
		if got != "kept seen" {
			t.Errorf("ran %q", got)
		}
	case <-time.After(patience):
		t.Fatal("nothing ran")
	}
	waitFor[event.CronStarted](t, w.Events, nil)
	var others int
	scan(t, config.Pool, "select count(*) from graphile_worker.jobs where queue_name is not null", nil, &others)
	if others != 0 {
		t.Errorf("%d jobs that the interceptor refused were added", others)
	}
}
