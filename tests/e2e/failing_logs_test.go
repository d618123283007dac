package e2e_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// hostileLog is a slog.Handler one of whose methods fails, once it is armed.
type hostileLog struct {
	method string
	fail   func()
	armed  *atomic.Bool
	seen   *atomic.Int32 // lines
}

func (h hostileLog) on(method string) {
	if h.method == method && h.armed.Load() {
		h.fail()
	}
}

func (h hostileLog) Enabled(context.Context, slog.Level) bool { h.on("Enabled"); return true }
func (h hostileLog) WithAttrs([]slog.Attr) slog.Handler       { h.on("WithAttrs"); return h }
func (h hostileLog) WithGroup(string) slog.Handler            { h.on("WithGroup"); return h }
func (h hostileLog) Handle(context.Context, slog.Record) error {
	h.on("Handle")
	h.seen.Add(1)
	return nil
}

// failingLogs are loggers whose handlers, levels or writers fail. Levels of slog's own
// handlers may panic, but end no goroutine.
func failingLogs(fail func(), exits bool, armed *atomic.Bool) map[string]*slog.Logger {
	failing := func() {
		if armed.Load() {
			fail()
		}
	}
	all := map[string]*slog.Logger{
		"writer":   slog.New(slog.NewJSONHandler(writing(failing), &slog.HandlerOptions{Level: slog.LevelDebug})),
		"levels":   slog.New(slog.NewJSONHandler(writing(func() {}), &slog.HandlerOptions{Level: leveling(failing)})),
		"replaces": slog.New(slog.NewTextHandler(writing(func() {}), &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr { failing(); return a }})),
	}
	for _, method := range []string{"Enabled", "Handle", "WithAttrs", "WithGroup"} {
		all[method] = slog.New(hostileLog{method: method, fail: fail, armed: armed, seen: new(atomic.Int32)})
	}
	if exits {
		delete(all, "levels")
	}
	return all
}

type writing func()

func (w writing) Write(line []byte) (int, error) { w(); return len(line), nil }

type leveling func()

func (l leveling) Level() slog.Level { l(); return slog.LevelDebug }

// TestLogsThatFailHarmNothing: a log may panic or end its goroutine, in whatever method
// and from whatever moment on: jobs run, outcomes are stored, and those who can hear of
// it do.
func TestLogsThatFailHarmNothing(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for name, c := range map[string]struct {
		fail  func()
		value any
	}{"panics": {func() { panic("boom") }, "boom"}, "exits": {runtime.Goexit, contain.ErrGoexit}} {
		for _, late := range []bool{false, true} {
			for method := range failingLogs(c.fail, name == "exits", new(atomic.Bool)) {
				mode := map[bool]string{true: "late", false: "always"}[late]
				t.Run(method+" "+name+" "+mode, func(t *testing.T) {
					sample.Take(t)
					t.Parallel()
					var armed atomic.Bool
					logger := failingLogs(c.fail, name == "exits", &armed)[method]
					armed.Store(!late)
					pool := migrated(t)
					client := newClient(t, pool)
					w := start(t, gworker.Config{
						Pool: pool, Logger: logger, Recovery: testworker.FastRecovery, Cron: gworker.CronConfig{Crontab: "* * * * * fine"},
						Middleware: []gworker.Middleware{gworker.LogMiddleware(nil), gworker.LogMiddleware(logger)},
						Tasks:      []gworker.Task{gworker.NewRawTask("fine", nothing), gworker.NewRawTask("bad", testworker.Fail(errors.New("no")))},
					})
					add(t, client, gworker.JobSpec{Task: "fine"})
					waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.Task == "fine" })
					armed.Store(true)
					held := add(t, client, gworker.JobSpec{Task: "fine"})
					bad := add(t, client, gworker.JobSpec{Task: "bad"})
					waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == held.ID })
					waitFor(t, w.Events, func(e event.JobFailed) bool { return e.Job.ID == bad.ID })
					if method != "WithAttrs" && method != "WithGroup" { // the worker calls neither
						waitFor(t, w.Events, func(e event.ObserverPanicked) bool { return e.Value == c.value })
					}
					// Whatever the connections of the worker do is told as well.
					exec(t, pool, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`)
					last := add(t, client, gworker.JobSpec{Task: "fine"})
					waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == last.ID })
					if err := w.Stop(); err != nil {
						t.Error(err)
					}
					if n := count[event.JobFailed](w.Events); n != 1 {
						t.Errorf("%d runs failed", n)
					}
				})
			}
		}
	}
}

// TestListenerWithALogThatFails goes on.
func TestListenerWithALogThatFails(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(){"panics": func() { panic("boom") }, "exits": runtime.Goexit} {
		for method := range failingLogs(fail, name == "exits", new(atomic.Bool)) {
			t.Run(method+" "+name, func(t *testing.T) {
				t.Parallel()
				var armed atomic.Bool
				armed.Store(true)
				lost := make(chan struct{}, 100)
				l, err := gworker.NewListener(gworker.ListenerConfig{
					Channels: []string{"c"}, DatabaseURL: "postgres://127.0.0.1:1/none?sslmode=disable",
					Logger: failingLogs(fail, name == "exits", &armed)[method],
					OnState: func(s gworker.ListenerState) {
						if s.Kind == gworker.ListenerStateLost {
							lost <- struct{}{}
						}
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				ended := make(chan error, 1)
				go func() {
					defer close(ended)
					ended <- l.Run(ctx, func(context.Context, gworker.ListenerBatch) {})
				}()
				for range 2 {
					select {
					case <-lost:
					case <-ctx.Done():
						t.Error("it does not go on")
					}
				}
				cancel()
				if err, ran := <-ended; err != nil || !ran {
					t.Errorf("Run returned %v (returned: %t)", err, ran)
				}
			})
		}
	}
}

// TestLevelOfALog: a log's level may change at any time.
func TestLevelOfALog(t *testing.T) {
	var level slog.LevelVar
	lines := 0
	observe := gworker.LogObserver(slog.New(slog.NewTextHandler(writing(func() { lines++ }), &slog.HandlerOptions{Level: &level})))
	var got []int
	for _, at := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelDebug} {
		level.Set(at)
		observe(event.JobsClaimed{})
		got = append(got, lines)
	}
	if !slices.Equal(got, []int{1, 1, 2}) {
		t.Errorf("lines: %v", got)
	}
}
