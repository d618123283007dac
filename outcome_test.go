package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// waits is how long a job waits from its last change on.
func waits(t *testing.T, pool *pgxpool.Pool, id int64) time.Duration {
	t.Helper()
	return time.Duration(testworker.ReadFailure(t, pool, id).Delay * float64(time.Second)).Round(time.Millisecond)
}

func TestSnoozeAndCancel(t *testing.T) {
	pool := migrated(t)
	declined := errors.New("card declined")
	tasks := []gworker.Task{
		gworker.NewRawTask("snooze", testworker.Fail(gworker.Snooze(90*time.Minute))),
		gworker.NewRawTask("wrapped", testworker.Fail(fmt.Errorf("no quota: %w", gworker.Snooze(time.Minute)))),
		gworker.NewRawTask("cancel", testworker.Fail(gworker.Discard(declined))),
		gworker.NewRawTask("wrapped cancel", testworker.Fail(fmt.Errorf("paying: %w", gworker.Discard(declined)))),
		gworker.NewRawTask("cancel nil", testworker.Fail(gworker.Discard(nil))),
	}
	var specs []gworker.JobSpec
	for _, task := range tasks {
		specs = append(specs, gworker.JobSpec{Task: task.Identifier(), Queue: "q " + task.Identifier(), MaxAttempts: 3})
	}
	specs[0].Key, specs[0].MaxAttempts = "k", 1 // even the only attempt does not count
	ids := testworker.AddEach(t, newClient(t, pool), specs...)
	logger, logs := testworker.RecordLog()
	e := runOnce(t, gworker.Config{Pool: pool, Tasks: tasks, Logger: logger})

	for task, want := range map[string]string{
		"snooze":         "0/1|-|k|again",
		"wrapped":        "0/3|-|again",
		"cancel":         "3/3|card declined|failed",
		"wrapped cancel": "3/3|paying: card declined|failed",
		"cancel nil":     "3/3|discarded|failed",
	} {
		if got := testworker.Row(t, pool, ids[task]); got != want {
			t.Errorf("%s left %q, want %q", task, got, want)
		}
	}
	if got := waits(t, pool, ids["snooze"]); got != 90*time.Minute {
		t.Errorf("snoozed for %s", got)
	}
	if got := waits(t, pool, ids["wrapped"]); got != time.Minute {
		t.Errorf("snoozed for %s", got)
	}
	snoozed := waitFor(t, e, func(e event.JobSnoozed) bool { return e.Job.Task == "wrapped" })
	if snoozed.For != time.Minute || snoozed.Retired || !strings.Contains(snoozed.Err.Error(), "no quota") {
		t.Errorf("event %+v", snoozed)
	}
	failed := waitFor(t, e, func(e event.JobPermanentlyFailed) bool { return e.Job.Task == "cancel" })
	var cancelled *gworker.DiscardError
	if !errors.As(failed.Err, &cancelled) || !errors.Is(failed.Err, declined) {
		t.Errorf("event %+v", failed)
	}
	if n := count[event.JobFailed](e) + count[event.JobReturned](e); n != 0 {
		t.Errorf("%d jobs reported as failed or returned", n)
	}
	lines := logs.Saying(t, "job snoozed")
	for _, line := range lines {
		if line["level"] != "INFO" {
			t.Errorf("snoozing is logged at %s", line["level"])
		}
		want := map[string]any{"snooze": nil, "wrapped": "no quota: snoozed for 1m0s"}
		if line["reason"] != want[line["task"].(string)] || line["err"] != nil {
			t.Errorf("logged as %v", line)
		}
	}
	if len(lines) != 2 {
		t.Errorf("%d lines about snoozed jobs", len(lines))
	}
	var locked int
	scan(t, pool, "select count(*) from graphile_worker._private_job_queues where locked_at is not null or locked_by is not null", nil, &locked)
	if locked != 0 {
		t.Errorf("%d queues are still locked", locked)
	}
}

// TestReplacedJobDoesNotComeBack: a run that is put off or cut off after its job
// was replaced leaves the row failed, and says so.
func TestReplacedJobDoesNotComeBack(t *testing.T) {
	var sample testdb.Sample
	for name, c := range map[string]struct {
		result  error // nil: wait for the shutdown
		says    string
		retired func(*testing.T, *testworker.Worker) bool
	}{
		"snoozed": {gworker.Snooze(time.Hour), "job snoozed; it was replaced", func(t *testing.T, w *testworker.Worker) bool {
			return waitFor[event.JobSnoozed](t, w.Events, nil).Retired
		}},
		"cut off": {nil, "job cut off; it was replaced", func(t *testing.T, w *testworker.Worker) bool {
			if err := w.Stop(); err != nil {
				t.Error(err)
			}
			return waitFor[event.JobReturned](t, w.Events, nil).Retired
		}},
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			pool := migrated(t)
			client := newClient(t, pool)
			first := add(t, client, gworker.JobSpec{Task: "x", Key: "k", MaxAttempts: 3})
			logger, logs := testworker.RecordLog()
			replaced := make(chan struct{})
			w := start(t, gworker.Config{
				Pool: pool, GracefulShutdownAbortTimeout: time.Millisecond, Logger: logger,
				Tasks: []gworker.Task{gworker.NewRawTask("x", func(ctx context.Context, _ *gworker.RawJob) error {
					add(t, client, gworker.JobSpec{Task: "x", Key: "k", RunAt: time.Now().Add(time.Hour)})
					close(replaced)
					if c.result == nil {
						<-ctx.Done()
						return ctx.Err()
					}
					return c.result
				})},
			})
			<-replaced
			if !c.retired(t, w) {
				t.Error("the event says that it comes back")
			}
			if row := testworker.Row(t, pool, first.ID); row != "3/3|-|failed" {
				t.Errorf("row %q", row)
			}
			if err := w.Stop(); err != nil {
				t.Error(err)
			}
			says := func(line map[string]any) bool { return strings.HasPrefix(line["msg"].(string), c.says) }
			if len(logs.Where(t, says)) != 1 {
				t.Errorf("no line %q in %s", c.says, logs)
			}
		})
	}
}

// TestSnoozeForNoTimeWaitsAMoment: a job cannot keep a worker busy by itself, and
// runs when its time has come although nobody polls.
func TestSnoozeForNoTimeWaitsAMoment(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	none := map[string]error{
		"0": gworker.Snooze(0), "below 0": gworker.Snooze(-time.Second), "1 ns": gworker.Snooze(1),
		"made by hand": &gworker.SnoozeError{}, "wrapped": fmt.Errorf("wrapped: %w", &gworker.SnoozeError{For: -1}),
	}
	for name, hold := range map[string]*time.Duration{"held": nil, "locked": new(time.Duration)} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			pool := migrated(t)
			client := newClient(t, pool)
			const runs = 3
			var mu sync.Mutex
			starts := map[string][]time.Time{}
			again := func(job *gworker.JobRow) bool {
				mu.Lock()
				defer mu.Unlock()
				starts[job.Task] = append(starts[job.Task], time.Now())
				if job.Attempts != 1 {
					t.Errorf("%s: attempt %d", job.Task, job.Attempts)
				}
				return len(starts[job.Task]) < runs
			}
			config := gworker.Config{Pool: pool, PollInterval: time.Hour, HoldTime: hold}
			for name, err := range none {
				add(t, client, gworker.JobSpec{Task: name})
				config.Tasks = append(config.Tasks, gworker.NewRawTask(name, func(_ context.Context, job *gworker.RawJob) error {
					if again(&job.JobRow) {
						return err
					}
					return nil
				}))
			}
			add(t, client, gworker.JobSpec{Task: "batch", Payload: []int{1, 2}})
			config.Tasks = append(config.Tasks, gworker.NewBatchTask("batch", func(_ context.Context, job *gworker.BatchJob[int]) ([]error, error) {
				if again(&job.JobRow) {
					return []error{&gworker.SnoozeError{}, &gworker.SnoozeError{For: -1}}, nil
				}
				return nil, nil
			}))
			w := start(t, config)
			testworker.WaitForN[event.JobCompleted](t, w.Events, len(config.Tasks), nil)
			seen, _ := w.Events.Seen()
			for _, e := range seen {
				if e, is := e.(event.JobSnoozed); is && e.For != gworker.MinSnooze {
					t.Errorf("%s was snoozed for %s", e.Job.Task, e.For)
				}
			}
			for task, at := range starts {
				for i := 1; i < len(at); i++ {
					if waited := at[i].Sub(at[i-1]); waited < gworker.MinSnooze-10*time.Millisecond {
						t.Errorf("%s ran again after %s", task, waited)
					}
				}
			}
		})
	}
}

func TestMaxAttemptsOfTheTask(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	last := map[string]bool{}
	task := func(name string, limit int) gworker.Task {
		return gworker.NewRawTask(name, func(_ context.Context, job *gworker.RawJob) error {
			last[name] = job.LastAttempt()
			if name == "panic" {
				panic("no")
			}
			return errors.New("no")
		}).With(gworker.TaskOptions{MaxAttempts: limit})
	}
	tasks := []gworker.Task{task("first", 3), task("last but one", 3), task("last", 3), task("beyond", 3), task("panic", 3), task("the job's", 7)}
	before := map[string]int{"first": 0, "last but one": 1, "last": 2, "beyond": 6, "panic": 2, "the job's": 4}
	var specs []gworker.JobSpec
	for name := range before {
		specs = append(specs, gworker.JobSpec{Task: name, MaxAttempts: 5})
		if name == "beyond" {
			specs[len(specs)-1].MaxAttempts = 10
		}
	}
	ids := testworker.AddEach(t, client, specs...)
	for name, attempts := range before {
		exec(t, pool, "update graphile_worker._private_jobs set attempts = $1 where id = $2", attempts, ids[name])
	}
	runOnce(t, gworker.Config{Pool: pool, Concurrency: 1, Tasks: tasks})
	for name, want := range map[string]string{
		"first": "1/5|no|again", "last but one": "2/5|no|again", "last": "3/3|no|failed", "beyond": "7/7|no|failed", "the job's": "5/5|no|failed",
	} {
		if got := testworker.Row(t, pool, ids[name]); got != want {
			t.Errorf("%s left %q, want %q", name, got, want)
		}
		if last[name] != strings.HasSuffix(want, "failed") {
			t.Errorf("%s: LastAttempt is %v", name, last[name])
		}
	}
	if got := testworker.Row(t, pool, ids["panic"]); !strings.HasPrefix(got, "3/3|panic: no") {
		t.Errorf("a panic left %q", got)
	}
}

func TestBackoffOfTheTask(t *testing.T) {
	pool := migrated(t)
	no := errors.New("no")
	inputs := map[string]gworker.BackoffInput{}
	task := func(name string, delay time.Duration) gworker.Task {
		return gworker.NewRawTask(name, testworker.Fail(no)).With(gworker.TaskOptions{Backoff: func(in gworker.BackoffInput) time.Duration {
			inputs[name] = in
			if name == "panics" {
				panic("which time?")
			}
			return delay
		}})
	}
	tasks := []gworker.Task{
		task("minute", time.Minute), task("fraction", 1500*time.Millisecond), task("negative", -time.Hour),
		task("huge", math.MaxInt64), task("panics", 0), task("final", time.Minute),
	}
	specs := []gworker.JobSpec{}
	for _, task := range tasks {
		// In the future, the next run would be counted from there.
		specs = append(specs, gworker.JobSpec{Task: task.Identifier(), RunAt: time.Now().Add(-time.Hour)})
	}
	specs[5].MaxAttempts = 1
	ids := testworker.AddEach(t, newClient(t, pool), specs...)
	exec(t, pool, "update graphile_worker._private_jobs set attempts = 2 where max_attempts > 2")
	var negative atomic.Int32
	e := runOnce(t, gworker.Config{Pool: pool, Concurrency: 1, Tasks: tasks, BeforeRun: []func(context.Context, *gworker.RawJob) gworker.BeforeRunDecision{
		func(_ context.Context, job *gworker.RawJob) gworker.BeforeRunDecision {
			if job.Task == "negative" && negative.Add(1) > 1 {
				return gworker.BeforeRunDecision{Skip: true} // it came back at once
			}
			return gworker.BeforeRunDecision{}
		},
	}})
	for name, want := range map[string]time.Duration{
		"minute": time.Minute, "fraction": 1500 * time.Millisecond, "panics": 20086 * time.Millisecond, "final": 2718 * time.Millisecond,
	} {
		if got := waits(t, pool, ids[name]); got != want {
			t.Errorf("%s waits for %s, want %s", name, got, want)
		}
	}
	if got := testworker.ReadFailure(t, pool, ids["huge"]).Delay; got < 9.2e9 {
		t.Errorf("huge waits for %f s", got)
	}
	if negative.Load() < 2 {
		t.Error("negative was not put back to run at once")
	}
	if in := inputs["minute"]; in.Job == nil || in.Job.ID != ids["minute"] || in.Attempt != 3 || in.Err != no {
		t.Errorf("Backoff got %+v", in)
	}
	if _, asked := inputs["final"]; asked {
		t.Error("Backoff was asked about a permanent failure")
	}
	panicked := waitFor[event.BackoffPanicked](t, e, nil)
	if panicked.Value != "which time?" || panicked.Job.Task != "panics" || !strings.Contains(panicked.Stack, "outcome_test.go") {
		t.Errorf("event %+v", panicked)
	}
}

func TestTimeoutOfTheTask(t *testing.T) {
	pool := migrated(t)
	causes := make(chan error, 3)
	waits := func(result error) func(context.Context, *gworker.RawJob) error {
		return func(ctx context.Context, _ *gworker.RawJob) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			if result == nil {
				return ctx.Err()
			}
			return result
		}
	}
	options := gworker.TaskOptions{Timeout: 20 * time.Millisecond}
	tasks := []gworker.Task{
		gworker.NewRawTask("slow", waits(nil)).With(options),
		gworker.NewRawTask("cancels", waits(gworker.Discard(errors.New("too slow")))).With(options),
		gworker.NewRawTask("finishes", func(ctx context.Context, _ *gworker.RawJob) error {
			<-ctx.Done()
			return nil
		}).With(options),
		gworker.NewRawTask("in time", testworker.Fail(errors.New("no"))).With(gworker.TaskOptions{Timeout: time.Hour}),
		gworker.NewRawTask("inner", waits(nil)),
	}
	var specs []gworker.JobSpec
	for _, task := range tasks {
		specs = append(specs, gworker.JobSpec{Task: task.Identifier(), MaxAttempts: 2})
	}
	tasks[4] = tasks[4].With(gworker.TaskOptions{Middleware: []gworker.Middleware{gworker.TimeoutMiddleware(20 * time.Millisecond)}})
	ids := testworker.AddEach(t, newClient(t, pool), specs...)
	e := runOnce(t, gworker.Config{Pool: pool, Tasks: tasks})
	const text = "the job's time is up: it ran for longer than 20ms: context deadline exceeded"
	for name, want := range map[string]string{
		"slow": "1/2|" + text + "|again", "inner": "1/2|" + text + "|again", "cancels": "2/2|too slow|failed",
		"finishes": "gone", "in time": "1/2|no|again",
	} {
		if got := testworker.Row(t, pool, ids[name]); got != want {
			t.Errorf("%s left %q, want %q", name, got, want)
		}
	}
	for range 3 {
		if cause := <-causes; !errors.Is(cause, gworker.ErrJobTimeout) {
			t.Errorf("cause is %v", cause)
		}
	}
	failed := waitFor(t, e, func(e event.JobFailed) bool { return e.Job.Task == "slow" })
	if !errors.Is(failed.Err, gworker.ErrJobTimeout) || !errors.Is(failed.Err, context.DeadlineExceeded) {
		t.Errorf("event %+v", failed)
	}
}

// TestDecisionsOutliveAShutdown: what a handler has decided counts although its
// context has ended; only an error that says no more is a job cut off.
func TestDecisionsOutliveAShutdown(t *testing.T) {
	pool := migrated(t)
	started, aborted := make(chan struct{}, 5), make(chan struct{})
	cut := func(name string, result error) gworker.Task {
		return gworker.NewRawTask(name, func(ctx context.Context, _ *gworker.RawJob) error {
			started <- struct{}{}
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), gworker.ErrShutdown) {
				t.Errorf("%s: cause is %v", name, context.Cause(ctx))
			}
			return result
		})
	}
	tasks := []gworker.Task{
		cut("cut off", errors.New("interrupted")), cut("snoozes", gworker.Snooze(time.Hour)),
		cut("cancels", gworker.Discard(errors.New("no more"))), cut("completes", nil),
		gworker.NewRawTask("timed out", func(ctx context.Context, _ *gworker.RawJob) error {
			<-ctx.Done()
			err := context.Cause(ctx)
			started <- struct{}{}
			<-aborted
			return err
		}).With(gworker.TaskOptions{Timeout: time.Millisecond}),
	}
	var specs []gworker.JobSpec
	for _, task := range tasks {
		specs = append(specs, gworker.JobSpec{Task: task.Identifier(), MaxAttempts: 4})
	}
	ids := testworker.AddEach(t, newClient(t, pool), specs...)
	w := start(t, gworker.Config{
		Pool: pool, Tasks: tasks, GracefulShutdownAbortTimeout: time.Millisecond, ShutdownReturnDelay: 7 * time.Minute,
		Observers: []func(event.Event){func(e event.Event) {
			if _, ok := e.(event.JobsAborted); ok {
				close(aborted)
			}
		}},
	})
	for range tasks {
		<-started
	}
	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"cut off": "0/4|-|again", "snoozes": "0/4|-|again", "cancels": "4/4|no more|failed", "completes": "gone",
	} {
		if got := testworker.Row(t, pool, ids[name]); got != want {
			t.Errorf("%s left %q, want %q", name, got, want)
		}
	}
	if got := testworker.Row(t, pool, ids["timed out"]); !strings.HasPrefix(got, "1/4|the job's time is up") {
		t.Errorf("timed out before the shutdown left %q", got)
	}
	if got := waits(t, pool, ids["cut off"]); got != 7*time.Minute {
		t.Errorf("what was cut off waits for %s, want 7m", got)
	}
	if got := waits(t, pool, ids["snoozes"]); got != time.Hour {
		t.Errorf("what was snoozed waits for %s, want 1h", got)
	}
}

func TestTaskOptionsAreValidated(t *testing.T) {
	for _, c := range []struct {
		config      gworker.Config
		options     gworker.TaskOptions
		field, says string
	}{
		{options: gworker.TaskOptions{Timeout: -1}, field: "Config.Tasks[0]'s TaskOptions.Timeout", says: "negative"},
		{options: gworker.TaskOptions{MaxAttempts: -1}, field: "Config.Tasks[0]'s TaskOptions.MaxAttempts", says: "1 to 32767"},
		{options: gworker.TaskOptions{MaxAttempts: 32768}, field: "Config.Tasks[0]'s TaskOptions.MaxAttempts", says: "1 to 32767"},
		{options: gworker.TaskOptions{Middleware: []gworker.Middleware{nil}}, field: "Config.Tasks[0]'s TaskOptions.Middleware[0]", says: "nil"},
		{config: gworker.Config{Middleware: []gworker.Middleware{nil}}, field: "Config.Middleware[0]", says: "nil"},
		{config: gworker.Config{BeforeRun: []func(context.Context, *gworker.RawJob) gworker.BeforeRunDecision{nil}}, field: "Config.BeforeRun[0]", says: "nil"},
		{config: gworker.Config{AfterRun: []func(context.Context, *gworker.RawJob, gworker.RunResult) gworker.AfterRunDecision{nil}}, field: "Config.AfterRun[0]", says: "nil"},
		{config: gworker.Config{ShutdownReturnDelay: -1}, field: "Config.ShutdownReturnDelay", says: "negative"},
	} {
		c.config.Tasks = []gworker.Task{gworker.NewRawTask("x", nothing).With(c.options)}
		_, err := gworker.NewWorker(c.config)
		testworker.WantFieldError(t, err, c.field, c.says)
	}
	_, err := gworker.NewWorker(gworker.Config{Tasks: []gworker.Task{gworker.NewBatchTask[int]("b", nil)}})
	testworker.WantFieldError(t, err, "Config.Tasks[0]", "no handler")
}
