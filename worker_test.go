package gworker_test

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testworker"
)

type greeting struct {
	Name string `json:"name"`
}

func TestTypedHandlerGetsJobAndPayload(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	added := add(t, client, gworker.JobSpec{Task: "greet", Payload: greeting{Name: "Ada"}, Queue: "q", Key: "k", Flags: []string{"b", "a"}})

	var got gworker.Job[greeting]
	var fromHandler *gworker.JobRow
	e := runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
		gworker.NewTask("greet", func(ctx context.Context, job *gworker.Job[greeting]) (err error) {
			got = *job
			job.Logger().Info("greeting")
			fromHandler, err = job.Client().AddJob(ctx, gworker.JobSpec{Task: "elsewhere"})
			return err
		}),
	}})

	if got.Payload.Name != "Ada" || got.ID != added.ID || got.Attempts != 1 || got.LastAttempt() ||
		got.Task != "greet" || got.Queue != "q" || got.Key != "k" || strings.Join(got.Flags, " ") != "a b" {
		t.Errorf("handler got %+v", got)
	}
	if string(got.JobRow.Payload) != `{"name":"Ada"}` {
		t.Errorf("stored payload is %s", got.JobRow.Payload)
	}
	if fromHandler == nil || fromHandler.Task != "elsewhere" {
		t.Errorf("job added by the handler is %+v", fromHandler)
	}
	if n := jobCount(t, pool); n != 1 {
		t.Errorf("%d jobs left, want the one that the handler added", n)
	}
	waitFor(t, e, func(e event.JobCompleted) bool { return e.Job.ID == added.ID })
	var locked int
	scan(t, pool, "select count(*) from graphile_worker._private_job_queues where locked_at is not null or locked_by is not null", nil, &locked)
	if locked != 0 {
		t.Error("the job's queue is still locked")
	}
}

func TestRawHandlerGetsPayloadAsStored(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	pool := migrated(t)
	payload := `{"a" :  [1,2.50,"<&>"], "a":null}`
	add(t, newClient(t, pool), gworker.JobSpec{Task: "raw", Payload: json.RawMessage(payload)})
	var got string
	runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
		gworker.NewRawTask("raw", func(_ context.Context, job *gworker.RawJob) error {
			got = string(job.Payload)
			return nil
		}),
	}})
	if got != payload {
		t.Errorf("payload is %s, want it untouched: %s", got, payload)
	}
}

func TestFailureIsStoredAndRetriedExponentially(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for _, c := range []struct {
		attemptsBefore int
		delay          float64
	}{{0, 2.718281828}, {2, 20.085536923}, {14, 22026.465794806}} {
		pool := migrated(t)
		job := add(t, newClient(t, pool), gworker.JobSpec{Task: "fail", Queue: "q"})
		exec(t, pool, "update graphile_worker._private_jobs set attempts = $1", c.attemptsBefore)
		e := runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
			gworker.NewRawTask("fail", func(context.Context, *gworker.RawJob) error { return errors.New("no ink\x00left") }),
		}})
		row := testworker.ReadFailure(t, pool, job.ID)
		if row.Attempts != c.attemptsBefore+1 || row.LastError != "no ink\uFFFDleft" || row.LockedBy != nil || !row.IsAvailable {
			t.Errorf("after %d attempts: %+v", c.attemptsBefore, row)
		}
		if diff := row.Delay - c.delay; diff < -0.001 || diff > 0.001 {
			t.Errorf("after %d attempts: runs again after %f s, want %f s", c.attemptsBefore, row.Delay, c.delay)
		}
		failed := waitFor(t, e, func(e event.JobFailed) bool { return e.Job.ID == job.ID })
		if failed.NextRunAt.IsZero() || !strings.Contains(failed.Err.Error(), "no ink") {
			t.Errorf("event %+v", failed)
		}
	}
}

func TestLastAttemptFailsPermanently(t *testing.T) {
	pool := migrated(t)
	job := add(t, newClient(t, pool), gworker.JobSpec{Task: "fail", MaxAttempts: 1})
	last := false
	e := runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
		gworker.NewRawTask("fail", func(_ context.Context, job *gworker.RawJob) error {
			last = job.LastAttempt()
			return errors.New("never")
		}),
	}})
	if row := testworker.ReadFailure(t, pool, job.ID); row.Attempts != 1 || row.LastError != "never" || row.LockedBy != nil || row.IsAvailable {
		t.Errorf("row %+v", row)
	}
	if !last {
		t.Error("LastAttempt is false in the last attempt")
	}
	waitFor[event.JobPermanentlyFailed](t, e, nil)
}

func TestHandlersThatDoNotReturnFailTheirJobAlone(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	jobs := map[string]*gworker.JobRow{}
	for _, name := range []string{"panic", "panic nil", "panic error", "goexit", "decode"} {
		jobs[name] = add(t, client, gworker.JobSpec{Task: name, Payload: []int{1}})
	}
	sentinel := errors.New("sentinel")
	e := runOnce(t, gworker.Config{Pool: pool, Concurrency: 1, Tasks: []gworker.Task{
		gworker.NewRawTask("panic", func(context.Context, *gworker.RawJob) error { panic("out of cheese") }),
		gworker.NewRawTask("panic nil", func(context.Context, *gworker.RawJob) error { panic(nil) }),
		gworker.NewRawTask("panic error", func(context.Context, *gworker.RawJob) error { panic(sentinel) }),
		gworker.NewRawTask("goexit", func(context.Context, *gworker.RawJob) error { runtime.Goexit(); return nil }),
		gworker.NewTask("decode", func(context.Context, *gworker.Job[greeting]) error {
			t.Error("handler called with a payload that does not decode")
			return nil
		}),
	}})
	for name, want := range map[string][]string{
		"panic":       {"out of cheese", "worker_test.go"},
		"panic nil":   {"panic called with nil"},
		"panic error": {"sentinel", "goroutine"},
		"goexit":      {"Goexit"},
		"decode":      {"decoding the payload", "greeting"},
	} {
		row := testworker.ReadFailure(t, pool, jobs[name].ID)
		for _, part := range want {
			if !strings.Contains(row.LastError, part) {
				t.Errorf("%s: last_error lacks %q:\n%s", name, part, row.LastError)
			}
		}
		if row.Attempts != 1 || row.LockedBy != nil {
			t.Errorf("%s: %+v", name, row)
		}
	}
	failed := waitFor(t, e, func(e event.JobFailed) bool { return e.Job.Task == "panic error" })
	var panicked *gworker.PanicError
	if !errors.As(failed.Err, &panicked) || !errors.Is(failed.Err, sentinel) {
		t.Errorf("event's error %T does not lead to the panic", failed.Err)
	}
}

func TestUnknownTasksAreNotClaimed(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	odd := "odd 'task\" ☃ \\ $1;--"
	unknown := add(t, client, gworker.JobSpec{Task: "unknown"})
	known := add(t, client, gworker.JobSpec{Task: odd})
	e := runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask(odd, nothing)}})
	waitFor(t, e, func(e event.JobCompleted) bool { return e.Job.ID == known.ID })
	if row := testworker.ReadFailure(t, pool, unknown.ID); row.Attempts != 0 || row.LockedBy != nil {
		t.Errorf("job of an unknown task was touched: %+v", row)
	}
}

// TestNotificationStartsJob can only pass through LISTEN: the next poll is an
// hour away.
func TestNotificationStartsJob(t *testing.T) {
	pool := migrated(t)
	w := start(t, gworker.Config{Pool: pool, PollInterval: time.Hour, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	waitFor[event.ListenerConnected](t, w.Events, nil)
	job := add(t, newClient(t, pool), gworker.JobSpec{Task: "x"})
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })

	// What is no notification of ours is harmless, and an unreadable one counts.
	exec(t, pool, `select pg_notify('jobs:insert', ''), pg_notify('jobs:insert', '{"count":'),
		pg_notify('jobs:insert', '[]'), pg_notify('worker:migrate', 'nonsense'), pg_notify('worker:migrate', '{"breaking":true}')`)
	exec(t, pool, "select graphile_worker.add_job('x')")
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID > job.ID })
	if err := w.Stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestPollingFindsJobsWhoseTimeHasCome(t *testing.T) {
	pool := migrated(t)
	w := start(t, gworker.Config{Pool: pool, PollInterval: 50 * time.Millisecond, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	waitFor[event.ListenerConnected](t, w.Events, nil)
	// Inserted behind everybody's back, so nobody is notified.
	exec(t, pool, "insert into graphile_worker._private_tasks (identifier) values ('x')")
	exec(t, pool, `insert into graphile_worker._private_jobs (task_id, run_at)
		select id, now() + interval '200 milliseconds' from graphile_worker._private_tasks`)
	done := waitFor[event.JobCompleted](t, w.Events, nil)
	if started := done.Job.LockedAt; started.Before(done.Job.RunAt) {
		t.Errorf("claimed at %s, before its run_at %s", started, done.Job.RunAt)
	}
}

func TestConcurrencyIsBoundedAndUsed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Run("held", func(t *testing.T) { testConcurrency(t, nil) })
	t.Run("locked", func(t *testing.T) { testConcurrency(t, new(time.Duration)) })
}

// testConcurrency: while it is not known how long the jobs take, no claim is larger
// than the slots.
func testConcurrency(t *testing.T, hold *time.Duration) {
	const slots = 4
	pool := migrated(t)
	specs := make([]gworker.JobSpec, 40)
	for i := range specs {
		specs[i] = gworker.JobSpec{Task: "x"}
	}
	if _, err := newClient(t, pool).AddJobs(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	var now, most atomic.Int32
	// The first jobs wait for each other, so with a slot left unused this hangs.
	full := make(chan struct{})
	var arrived atomic.Int32
	e := runOnce(t, gworker.Config{Pool: pool, Concurrency: slots, HoldTime: hold, Tasks: []gworker.Task{
		gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			if arrived.Add(1) == slots {
				close(full)
			}
			<-full
			return nil
		}),
	}})
	if most.Load() > slots {
		t.Errorf("%d jobs ran at once, want at most %d", most.Load(), slots)
	}
	if n := count[event.JobCompleted](e); n != len(specs) {
		t.Errorf("%d jobs completed, want %d", n, len(specs))
	}
	seen, _ := e.Seen()
	claims := 0
	for _, e := range seen {
		if claimed, ok := e.(event.JobsClaimed); ok {
			if claims++; claimed.Count > claimed.Asked || claims == 1 && claimed.Asked > slots {
				t.Errorf("claim %d took %d of %d with %d slots", claims, claimed.Count, claimed.Asked, slots)
			}
		}
	}
}

func TestNamedQueueRunsInOrderOneAtATime(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	const perQueue = 30
	var specs []gworker.JobSpec
	for i := range perQueue {
		for _, queue := range []string{"a", "b", "c"} {
			specs = append(specs, gworker.JobSpec{Task: "x", Queue: queue, Payload: i})
		}
	}
	if _, err := client.AddJobs(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	order := map[string][]int{}
	busy := map[string]bool{}
	task := gworker.NewTask("x", func(_ context.Context, job *gworker.Job[int]) error {
		mu.Lock()
		if busy[job.Queue] {
			t.Errorf("two jobs of queue %s at once", job.Queue)
		}
		busy[job.Queue] = true
		order[job.Queue] = append(order[job.Queue], job.Payload)
		mu.Unlock()
		runtime.Gosched()
		mu.Lock()
		busy[job.Queue] = false
		mu.Unlock()
		return nil
	})
	// Several workers compete, so that claims race for the same queues. The
	// poll is an hour away: freed queues must wake the workers by themselves.
	var workers []*testworker.Worker
	for range 3 {
		workers = append(workers, start(t, gworker.Config{Pool: pool, Concurrency: 5, PollInterval: time.Hour, Tasks: []gworker.Task{task}}))
	}
	timeout := time.After(patience)
	for {
		if jobCount(t, pool) == 0 {
			break
		}
		done := 0
		var changes []<-chan struct{}
		for _, w := range workers {
			_, change := w.Events.Seen()
			changes = append(changes, change)
			done += count[event.JobCompleted](w.Events)
		}
		if done == len(specs) {
			break
		}
		select {
		case <-changes[0]:
		case <-changes[1]:
		case <-changes[2]:
		case <-timeout:
			t.Fatalf("%d of %d jobs done", done, len(specs))
		}
	}
	for _, w := range workers {
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	}
	for queue, got := range order {
		for i, n := range got {
			if i != n {
				t.Fatalf("queue %s ran in the order %v", queue, got)
			}
		}
	}
}
