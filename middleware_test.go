package gworker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testworker"
)

// trace is middleware that notes its name before and after what is inside.
func trace(to *[]string, name string) gworker.Middleware {
	return func(next gworker.Handler) gworker.Handler {
		*to = append(*to, "bind "+name)
		return func(ctx context.Context, job *gworker.RawJob) error {
			*to = append(*to, name)
			err := next(ctx, job)
			*to = append(*to, fmt.Sprintf("%s: %v", name, err))
			return err
		}
	}
}

func TestMiddlewareAndInterceptorsInOrder(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	var seen []string
	note := func(s string) { seen = append(seen, s) }
	before := func(name string) func(context.Context, *gworker.RawJob) gworker.BeforeRunDecision {
		return func(context.Context, *gworker.RawJob) gworker.BeforeRunDecision {
			note(name)
			return gworker.BeforeRunDecision{}
		}
	}
	after := func(name string) func(context.Context, *gworker.RawJob, gworker.RunResult) gworker.AfterRunDecision {
		return func(_ context.Context, _ *gworker.RawJob, r gworker.RunResult) gworker.AfterRunDecision {
			note(fmt.Sprintf("%s: %v", name, r.Err))
			return gworker.AfterRunDecision{}
		}
	}
	config := gworker.Config{
		Pool: pool, Concurrency: 1,
		Middleware: []gworker.Middleware{trace(&seen, "m1"), trace(&seen, "m2")},
		BeforeRun:  []func(context.Context, *gworker.RawJob) gworker.BeforeRunDecision{before("b1"), before("b2")},
		AfterRun:   []func(context.Context, *gworker.RawJob, gworker.RunResult) gworker.AfterRunDecision{after("a1"), after("a2")},
		Tasks: []gworker.Task{gworker.NewTask("x", func(_ context.Context, job *gworker.Job[int]) error {
			note(fmt.Sprint("x", job.Payload))
			return errors.New("no")
		}).With(gworker.TaskOptions{Middleware: []gworker.Middleware{trace(&seen, "t1")}})},
	}
	add(t, client, gworker.JobSpec{Task: "x", Payload: 1})
	add(t, client, gworker.JobSpec{Task: "x", Payload: 2})
	runOnce(t, config)
	once := func(n int) string {
		return fmt.Sprintf("b1,b2,m1,m2,t1,x%d,t1: no,m2: no,m1: no,a1: no,a2: no", n)
	}
	want := "bind t1,bind m2,bind m1," + once(1) + "," + once(2)
	if got := strings.Join(seen, ","); got != want {
		t.Errorf("order\n%s, want\n%s", got, want)
	}
}

// everyKind is a task of each kind that fails unless its payload says 2.
func everyKind(t *testing.T) []gworker.Task {
	dir := t.TempDir()
	files := map[string]string{
		"sql.sql": `create table if not exists effects (n int);
			insert into effects select (current_setting('gworker.payload')::json ->> 0)::int;
			select 1 / (case when current_setting('gworker.payload')::json ->> 0 = '2' then 1 else 0 end);`,
		"exe": "#!/bin/sh\ngrep -q '{\"payload\": *\\[2\\]}'\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	loaded, err := gworker.LoadTasks(dir)
	if err != nil {
		t.Fatal(err)
	}
	check := func(n []int) error {
		if len(n) != 1 || n[0] != 2 {
			return fmt.Errorf("payload %v", n)
		}
		return nil
	}
	return append(loaded.Tasks,
		gworker.NewTask("typed", func(_ context.Context, job *gworker.Job[[]int]) error {
			if string(job.JobRow.Payload) != "[1]" {
				return fmt.Errorf("stored payload %s", job.JobRow.Payload)
			}
			return check(job.Payload)
		}),
		gworker.NewRawTask("raw", func(_ context.Context, job *gworker.RawJob) error {
			var n []int
			return errors.Join(json.Unmarshal(job.Payload, &n), check(n))
		}),
		gworker.NewBatchTask("batch", func(_ context.Context, job *gworker.BatchJob[int]) ([]error, error) {
			return nil, check(job.Payload)
		}))
}

// TestPayloadChangesForEveryKindOfTask: a retrying middleware corrects it after
// the first failure, and the stored payload stays as it is.
func TestPayloadChangesForEveryKindOfTask(t *testing.T) {
	pool := migrated(t)
	tasks := everyKind(t)
	var specs []gworker.JobSpec
	for i := range tasks {
		specs = append(specs, gworker.JobSpec{Task: tasks[i].Identifier(), Payload: []int{1}})
	}
	if len(tasks) != 5 {
		t.Fatalf("%d tasks", len(tasks))
	}
	testworker.AddEach(t, newClient(t, pool), specs...)
	var tries atomic.Int32
	e := runOnce(t, gworker.Config{Pool: pool, Tasks: tasks, Middleware: []gworker.Middleware{
		func(next gworker.Handler) gworker.Handler {
			return func(ctx context.Context, job *gworker.RawJob) error {
				tries.Add(1)
				if err := next(ctx, job); err == nil {
					t.Errorf("%s succeeded with the stored payload", job.Task)
				}
				job.Payload = json.RawMessage("[2]")
				return next(ctx, job)
			}
		},
	}})
	if n := count[event.JobCompleted](e); n != 5 || tries.Load() != 5 || jobCount(t, pool) != 0 {
		seen, _ := e.Seen()
		t.Errorf("%d completed in %d runs: %s", n, tries.Load(), testworker.Describe(seen))
	}
	var effects int
	scan(t, pool, "select count(*) from effects where n = 2", nil, &effects)
	if effects != 1 {
		t.Errorf("the SQL task had its effect %d times", effects)
	}
}

func TestInterceptorsDecide(t *testing.T) {
	type before = gworker.BeforeRunDecision
	type after = gworker.AfterRunDecision
	no := errors.New("no")
	type testCase struct {
		before before
		result error // of the handler
		panics bool
		after  after
		calls  int32
		afters int32
		row    string
	}
	cases := map[string]testCase{
		"continue":      {calls: 1, afters: 1, row: "gone"},
		"skip":          {before: before{Skip: true}, result: no, row: "gone"},
		"fail":          {before: before{Err: no}, row: "1/2|no|again"},
		"snooze":        {before: before{Err: gworker.Snooze(time.Hour)}, row: "0/2|-|again"},
		"cancel":        {before: before{Err: gworker.Discard(no)}, row: "2/2|no|failed"},
		"payload":       {before: before{Payload: json.RawMessage(`"changed"`)}, calls: 1, afters: 1, row: "gone"},
		"bad payload":   {before: before{Payload: json.RawMessage(`{`)}, afters: 1, row: "1/2|decoding the payload: unexpected end of JSON input|again"},
		"after fails":   {after: after{Err: errors.New("audit")}, calls: 1, afters: 1, row: "1/2|audit|again"},
		"after snoozes": {after: after{Err: gworker.Snooze(time.Hour)}, result: no, calls: 1, afters: 1, row: "0/2|-|again"},
		"completes":     {after: after{Complete: true}, result: no, calls: 1, afters: 1, row: "gone"},
		"keeps":         {result: no, calls: 1, afters: 1, row: "1/2|no|again"},
		"saves a panic": {after: after{Complete: true}, panics: true, calls: 1, afters: 1, row: "gone"},
	}
	pool := migrated(t)
	calls, afters := map[string]*atomic.Int32{}, map[string]*atomic.Int32{}
	var tasks []gworker.Task
	var specs []gworker.JobSpec
	for name, c := range cases {
		calls[name], afters[name] = new(atomic.Int32), new(atomic.Int32)
		tasks = append(tasks, gworker.NewTask(name, func(_ context.Context, job *gworker.Job[string]) error {
			calls[name].Add(1)
			if want := "stored"; c.before.Payload == nil && job.Payload != want || c.before.Payload != nil && job.Payload != "changed" {
				t.Errorf("%s: payload %q", name, job.Payload)
			}
			if c.panics {
				panic("oh")
			}
			return c.result
		}))
		specs = append(specs, gworker.JobSpec{Task: name, Payload: "stored", MaxAttempts: 2})
	}
	ids := testworker.AddEach(t, newClient(t, pool), specs...)
	runOnce(t, gworker.Config{
		Pool: pool, Tasks: tasks,
		BeforeRun: []func(context.Context, *gworker.RawJob) before{
			func(_ context.Context, job *gworker.RawJob) before { return cases[job.Task].before },
			func(_ context.Context, job *gworker.RawJob) before {
				if d := cases[job.Task].before; d.Skip || d.Err != nil {
					t.Errorf("%s: asked after the decision", job.Task)
				}
				return before{}
			},
		},
		AfterRun: []func(context.Context, *gworker.RawJob, gworker.RunResult) after{
			func(_ context.Context, job *gworker.RawJob, r gworker.RunResult) after {
				afters[job.Task].Add(1)
				var panicked *gworker.PanicError
				if c := cases[job.Task]; errors.As(r.Err, &panicked) != c.panics || c.result != nil && r.Err != c.result {
					t.Errorf("%s: result %+v", job.Task, r)
				}
				return cases[job.Task].after
			},
		},
	})
	for name, c := range cases {
		if got := testworker.Row(t, pool, ids[name]); got != c.row || calls[name].Load() != c.calls || afters[name].Load() != c.afters {
			t.Errorf("%s: row %q, want %q; %d calls, want %d; AfterRun asked %d times, want %d",
				name, got, c.row, calls[name].Load(), c.calls, afters[name].Load(), c.afters)
		}
	}
}

func TestPanicsAroundHandlersFailTheAttempt(t *testing.T) {
	pool := migrated(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sql.sql"), []byte("select 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	files, err := gworker.LoadTasks(dir)
	if err != nil {
		t.Fatal(err)
	}
	tasks := append(files.Tasks, gworker.NewRawTask("before", nothing), gworker.NewRawTask("after", nothing),
		gworker.NewRawTask("middleware", nothing), gworker.NewRawTask("foreign", nothing), gworker.NewRawTask("nil job", nothing))
	var specs []gworker.JobSpec
	for _, task := range tasks {
		specs = append(specs, gworker.JobSpec{Task: task.Identifier()})
	}
	ids := testworker.AddEach(t, newClient(t, pool), specs...)
	panicFor := func(job *gworker.RawJob, where ...string) {
		for _, name := range where {
			if job.Task == name {
				panic("at " + name)
			}
		}
	}
	e := runOnce(t, gworker.Config{
		Pool: pool, Tasks: tasks,
		BeforeRun: []func(context.Context, *gworker.RawJob) gworker.BeforeRunDecision{
			func(_ context.Context, job *gworker.RawJob) (d gworker.BeforeRunDecision) {
				panicFor(job, "before")
				return d
			},
		},
		AfterRun: []func(context.Context, *gworker.RawJob, gworker.RunResult) gworker.AfterRunDecision{
			func(_ context.Context, job *gworker.RawJob, _ gworker.RunResult) (d gworker.AfterRunDecision) {
				panicFor(job, "after", "sql")
				return d
			},
		},
		Middleware: []gworker.Middleware{func(next gworker.Handler) gworker.Handler {
			return func(ctx context.Context, job *gworker.RawJob) error {
				panicFor(job, "middleware")
				switch job.Task {
				case "foreign":
					job = &gworker.RawJob{JobRow: job.JobRow}
				case "nil job":
					job = nil
				}
				return next(ctx, job)
			}
		}},
	})
	for name, want := range map[string]string{
		"before": "1/25|panic: at before", "after": "1/25|panic: at after", "middleware": "1/25|panic: at middleware",
		"foreign": "1/25|middleware must call next with the job", "nil job": "1/25|middleware must call next with the job",
		"sql": "gone", // it had committed
	} {
		if got := testworker.Row(t, pool, ids[name]); !strings.HasPrefix(got, want) {
			t.Errorf("%s left %q, want %q", name, got, want)
		}
	}
	late := waitFor[event.ErrorAfterCompletion](t, e, nil)
	if late.Job.Task != "sql" || !strings.Contains(late.Err.Error(), "at sql") {
		t.Errorf("event %+v", late)
	}
}

func TestReadyMiddleware(t *testing.T) {
	pool := migrated(t)
	logger, logs := testworker.RecordLog()
	var reported []string
	tasks := []gworker.Task{
		gworker.NewRawTask("ok", nothing), gworker.NewRawTask("fails", testworker.Fail(errors.New("no"))),
		gworker.NewRawTask("snoozes", testworker.Fail(gworker.Snooze(time.Hour))),
		gworker.NewRawTask("panics", func(context.Context, *gworker.RawJob) error { panic("oh") }),
		gworker.NewBatchTask("batch snoozes", func(context.Context, *gworker.BatchJob[int]) ([]error, error) {
			return []error{gworker.Snooze(time.Hour), nil}, nil
		}),
	}
	var specs []gworker.JobSpec
	for _, task := range tasks {
		specs = append(specs, gworker.JobSpec{Task: task.Identifier(), Payload: []int{1, 2}})
	}
	ids := testworker.AddEach(t, newClient(t, pool), specs...)
	runOnce(t, gworker.Config{
		Pool: pool, Tasks: tasks, Concurrency: 1,
		Middleware: []gworker.Middleware{
			gworker.LogMiddleware(logger),
			gworker.RecoverMiddleware(func(_ context.Context, job *gworker.RawJob, p *gworker.PanicError) {
				reported = append(reported, fmt.Sprint(job.Task, " ", p.Value, " ", strings.Contains(p.Stack, "middleware_test.go")))
			}),
			gworker.TimeoutMiddleware(0),
		},
	})
	if got := strings.Join(reported, ","); got != "panics oh true" {
		t.Errorf("reported %q", got)
	}
	if row := testworker.Row(t, pool, ids["panics"]); !strings.HasPrefix(row, "1/25|panic: oh") {
		t.Errorf("row %q", row)
	}
	want := map[string]string{"ok": "INFO handler succeeded", "fails": "ERROR handler failed", "snoozes": "INFO handler snoozed its job", "panics": "ERROR handler failed",
		"batch snoozes": "INFO handler snoozed its job"}
	for task, line := range want {
		lines := logs.Where(t, func(line map[string]any) bool { return line["task"] == task })
		if len(lines) != 2 || lines[0]["msg"] != "handler called" || fmt.Sprint(lines[1]["level"], " ", lines[1]["msg"]) != line {
			t.Errorf("%s was logged as %v", task, lines)
		}
	}
}
