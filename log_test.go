package gworker_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testworker"
)

// useDefaultLog makes a log slog's default until the test ends.
func useDefaultLog(t *testing.T) *testworker.Log {
	logger, logs := testworker.RecordLog()
	before := slog.Default()
	slog.SetDefault(logger)
	t.Cleanup(func() { slog.SetDefault(before) })
	return logs
}

// What fails is seen by those who have not thought of logs, and silence is asked for.
func TestNoLoggerIsTheDefaultLogger(t *testing.T) {
	logs := useDefaultLog(t)
	for name, logger := range map[string]*slog.Logger{"nil": nil, "silent": slog.New(slog.DiscardHandler)} {
		pool := migrated(t)
		ids := testworker.AddEach(t, newClient(t, pool), gworker.JobSpec{Task: name})
		runOnce(t, gworker.Config{
			Pool: pool, Logger: logger, Middleware: []gworker.Middleware{gworker.LogMiddleware(nil)},
			Tasks: []gworker.Task{gworker.NewRawTask(name, func(_ context.Context, job *gworker.RawJob) error {
				job.Logger().Info("trying", "name", name)
				return errors.New("no luck")
			})},
		})
		for _, message := range []string{"job failed", "trying", "handler failed"} {
			lines := logs.Where(t, func(line map[string]any) bool { return line["msg"] == message && line["task"] == name })
			if logger != nil {
				if len(lines) != 0 {
					t.Errorf("a silent worker logged %v", lines)
				}
				continue
			}
			if len(lines) != 1 || lines[0]["job_id"] != float64(ids[name]) || lines[0]["attempt"] != 1.0 {
				t.Errorf("%q was logged as %v", message, lines)
			}
			if message == "job failed" && (lines[0]["err"] != "no luck" || lines[0]["level"] != "ERROR" || lines[0]["duration_ms"].(float64) <= 0) {
				t.Errorf("the failure was logged as %v", lines)
			}
		}
	}
	if (&gworker.RawJob{}).Logger() != slog.Default() {
		t.Error("a job that no worker made has no default logger")
	}
	gworker.LogObserver(nil)(event.WorkerStopped{WorkerID: "w"})
	if lines := logs.Saying(t, "worker stopped"); len(lines) == 0 || lines[len(lines)-1]["worker_id"] != "w" {
		t.Errorf("LogObserver(nil) logged %v", lines)
	}
}

func TestListenerWithoutLoggerSaysThatItLostItsConnection(t *testing.T) {
	logs := useDefaultLog(t)
	lost := make(chan struct{}, 100)
	for _, config := range []gworker.ListenerConfig{
		{Channels: []string{"of default"}}, {Channels: []string{"of silent"}, Logger: slog.New(slog.DiscardHandler)},
	} {
		config.DatabaseURL = "postgres://127.0.0.1:1/none?sslmode=disable"
		config.OnState = func(s gworker.ListenerState) {
			if s.Kind == gworker.ListenerStateLost {
				lost <- struct{}{}
			}
		}
		l, err := gworker.NewListener(config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx, func(context.Context, gworker.ListenerBatch) {}) }()
		<-lost
		cancel()
		<-ended
	}
	lines := logs.Saying(t, "listener lost its connection; trying again")
	if len(lines) == 0 || lines[0]["level"] != "WARN" || lines[0]["err"] == nil {
		t.Fatalf("logged %v", lines)
	}
	for _, line := range lines {
		if channels := line["channels"].([]any); channels[0] != "of default" {
			t.Errorf("logged %v", line)
		}
	}
}

// A stack of the worker's own says nothing about the handler that failed, so none
// gets into the log, even of a handler that adds stacks to errors.
func TestErrorLinesHaveNoStack(t *testing.T) {
	var out bytes.Buffer
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&out), zap.InfoLevel)
	logger := slog.New(zapslog.NewHandler(core)) // which adds them by default
	pool := migrated(t)
	testworker.AddEach(t, newClient(t, pool), gworker.JobSpec{Task: "x"}, gworker.JobSpec{Task: "permanent", MaxAttempts: 1})
	fail := func(_ context.Context, job *gworker.RawJob) error {
		if job.Task == "x" {
			job.Logger().Error("the task's own line")
		}
		return errors.New("no luck")
	}
	runOnce(t, gworker.Config{
		Pool: pool, Logger: logger, Concurrency: 1,
		Tasks:      []gworker.Task{gworker.NewRawTask("x", fail), gworker.NewRawTask("permanent", fail)},
		Middleware: []gworker.Middleware{gworker.LogMiddleware(logger)},
	})
	failures := 0
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, "the task's own line") != strings.Contains(line, `"stacktrace"`) {
			t.Errorf("logged %s", line)
		}
		failures += strings.Count(line, `"level":"error"`)
	}
	if failures != 5 {
		t.Errorf("%d lines at error, want 5:\n%s", failures, out.String())
	}
}

// A panic of a log's handler is reported as any observer's is.
// TestRefusedDeregistrationIsToldAsThat: a worker that has ended writes no heartbeats.
func TestRefusedDeregistrationIsToldAsThat(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	exec(t, pool, `create function stay() returns trigger language plpgsql as $$ begin raise exception 'stay'; end $$;
		create trigger stay before delete on graphile_worker._private_workers for each row execute function stay()`)
	var out bytes.Buffer
	w := start(t, gworker.Config{
		Pool: pool, Logger: slog.New(slog.NewTextHandler(&out, nil)), Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)},
	})
	waitFor[event.ListenerConnected](t, w.Events, nil)
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
	if text := out.String(); !strings.Contains(text, "could not deregister") || strings.Contains(text, "heartbeat could not be written") {
		t.Errorf("logged:\n%s", text)
	}
}

func TestPanicOfALogHandlerIsReported(t *testing.T) {
	defer func() {
		if v := recover(); v != "log is full" {
			t.Errorf("recovered %v", v)
		}
	}()
	gworker.LogObserver(slog.New(panicsAt(slog.LevelError)))(event.SweepFailed{})
	t.Error("no panic")
}

type panicsAt slog.Level

func (panicsAt) Enabled(context.Context, slog.Level) bool { return true }
func (p panicsAt) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.Level(p) {
		panic("log is full")
	}
	return nil
}
func (p panicsAt) WithAttrs([]slog.Attr) slog.Handler { return p }
func (p panicsAt) WithGroup(string) slog.Handler      { return p }

// An event whose level is off costs no allocation.
func TestEventsBelowTheLevelCostNothing(t *testing.T) {
	observe := gworker.LogObserver(slog.New(slog.NewJSONHandler(failingWriter{t}, &slog.HandlerOptions{Level: slog.LevelError + 1})))
	claimed := &event.Job{}
	for _, e := range []event.Event{
		event.JobStarted{Job: claimed}, event.JobCompleted{Job: claimed, Duration: time.Second},
		event.JobFailed{Job: claimed, Err: errors.New("no"), NextRunAt: time.Now()},
		event.JobsClaimed{Count: 3}, event.WorkerRecovered{JobIDs: []int64{1}},
	} {
		if n := testing.AllocsPerRun(100, func() { observe(e) }); n != 0 {
			t.Errorf("%T allocates %v times", e, n)
		}
	}
}

type failingWriter struct{ t *testing.T }

func (w failingWriter) Write(line []byte) (int, error) {
	w.t.Errorf("written: %s", line)
	return len(line), nil
}

// Every attribute of a log line has a row in docs/events.md, and every row is one.
func TestEveryAttributeIsDocumented(t *testing.T) {
	page, err := os.ReadFile("docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## Log lines\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var documented, written []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?`) \\|").FindAllStringSubmatch(table, -1) {
		for _, name := range strings.Split(row[1], ", ") {
			documented = append(documented, strings.Trim(name, "`"))
		}
	}
	files := []string{"internal/logattr/logattr.go"}
	for _, pattern := range []string{"event/*.go", "*.go"} {
		some, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, some...)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range regexp.MustCompile(`(?:slog|logattr)\.[A-Z]\w+\("(\w+)", `).FindAllSubmatch(source, -1) {
			written = append(written, string(key[1]))
		}
	}
	slices.Sort(documented)
	slices.Sort(written)
	written = slices.Compact(written)
	if len(written) < 20 || !slices.Equal(documented, written) {
		t.Errorf("documented: %q\nwritten:    %q", documented, written)
	}
}
