package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testworker"
)

// A subscriber that never reads, one that subscribes before the worker runs, and
// one that comes while it does.
func TestSubscriptions(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	const jobs = 50
	for range jobs {
		add(t, client, gworker.JobSpec{Task: "x"})
	}
	e := testworker.NewEvents()
	var worker *gworker.Worker
	var late *gworker.Subscription
	worker, err := gworker.NewWorker(gworker.Config{
		Pool: pool, Observers: []func(event.Event){e.Observe, func(e event.Event) {
			if _, ok := e.(event.WorkerStopping); ok {
				late = worker.Subscribe(gworker.SubscriptionConfig{})
			}
		}},
		Tasks: []gworker.Task{gworker.NewTask("x", func(context.Context, *gworker.Job[any]) error { return nil })},
	})
	if err != nil {
		t.Fatal(err)
	}
	stuck := worker.Subscribe(gworker.SubscriptionConfig{Buffer: 1})
	completed := worker.Subscribe(gworker.SubscriptionConfig{Types: []event.Event{event.JobCompleted{}}})
	some := worker.Subscribe(gworker.SubscriptionConfig{Filter: func(e event.Event) bool {
		c, ok := e.(event.JobCompleted)
		return ok && c.Job.ID%2 == 0
	}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := worker.RunOnce(ctx); err != nil || ctx.Err() != nil {
		t.Fatal(err, ctx.Err())
	}
	read := func(sub *gworker.Subscription) (types []string) { // until the channel is closed
		for e := range sub.Events() {
			types = append(types, strings.TrimPrefix(fmt.Sprintf("%T", e), "event."))
		}
		return types
	}
	if got := read(completed); len(got) != jobs || completed.Dropped() != 0 {
		t.Errorf("completed: %d events, %d dropped", len(got), completed.Dropped())
	}
	if got := read(some); len(got) != jobs/2 {
		t.Errorf("half of them: %d events", len(got))
	}
	seen, _ := e.Seen()
	created := 1 // WorkerCreated came before it subscribed
	if got := read(stuck); len(got) != 1 || int(stuck.Dropped()) != len(seen)-1-created {
		t.Errorf("the stuck one: %q, %d dropped of %d", got, stuck.Dropped(), len(seen))
	}
	if got := read(late); len(got) == 0 || got[len(got)-1] != "WorkerStopped" || slices.Contains(got, "JobCompleted") {
		t.Errorf("the late one: %q", got)
	}
	if got := read(worker.Subscribe(gworker.SubscriptionConfig{})); len(got) != 0 {
		t.Errorf("after the end: %q", got)
	}
}

func TestSubscriptionOfAWorkerThatIsNotRun(t *testing.T) {
	t.Parallel()
	worker, err := gworker.NewWorker(gworker.Config{
		Tasks: []gworker.Task{gworker.NewTask("x", func(context.Context, *gworker.Job[any]) error { return nil })},
	})
	if err != nil {
		t.Fatal(err)
	}
	sub := worker.Subscribe(gworker.SubscriptionConfig{Buffer: -1})
	if n := cap(sub.Events()); n != gworker.DefaultSubscriptionBuffer {
		t.Errorf("room for %d events", n)
	}
	worker.Close()
	if e, ok := <-sub.Events(); ok {
		t.Errorf("got %+v", e)
	}
}

// What a worker reports from its making to its end, but for what happens again and
// again.
func TestEventsOfAWorkersLife(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	held := make(chan struct{})
	r := start(t, gworker.Config{
		Pool: pool, GracefulShutdownAbortTimeout: time.Millisecond,
		Tasks: []gworker.Task{gworker.NewTask("stuck", func(context.Context, *gworker.Job[any]) error {
			<-held
			return nil
		})},
	})
	defer close(held)
	waitFor[event.ListenerConnected](t, r.Events, nil)
	waitFor[event.ClaimEmpty](t, r.Events, nil)
	job := add(t, client, gworker.JobSpec{Task: "stuck"})
	n := waitFor(t, r.Events, func(e event.NotificationReceived) bool { return e.Channel == "jobs:insert" })
	if !strings.Contains(n.Payload, `"count":1`) || n.WorkerID != r.ID() {
		t.Errorf("the notification is %+v", n)
	}
	waitFor[event.JobStarted](t, r.Events, nil)
	stopped := make(chan error, 1)
	go func() { stopped <- r.Stop() }()
	interrupted := waitFor[event.JobInterrupted](t, r.Events, nil)
	if interrupted.Job.ID != job.ID || !errors.Is(interrupted.Cause, gworker.ErrShutdown) {
		t.Errorf("the event is %+v", interrupted)
	}
	r.Abandon()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if forced := waitFor[event.ShutdownForced](t, r.Events, nil); !slices.Equal(forced.JobIDs, []int64{job.ID}) {
		t.Errorf("the event is %+v", forced)
	}
	if complete := waitFor[event.ShutdownComplete](t, r.Events, nil); !complete.Forced || complete.Duration <= 0 {
		t.Errorf("the event is %+v", complete)
	}
	seen, _ := r.Events.Seen()
	var order []string
	for _, e := range seen {
		switch e.(type) {
		case event.WorkerCreated, event.WorkerStarted, event.JobStarted, event.WorkerStopping, event.JobsAborted,
			event.JobInterrupted, event.ShutdownForced, event.JobReturned, event.ShutdownComplete, event.WorkerStopped:
			order = append(order, strings.TrimPrefix(fmt.Sprintf("%T", e), "event."))
		}
	}
	want := "WorkerCreated WorkerStarted JobStarted WorkerStopping JobsAborted JobInterrupted ShutdownForced JobReturned " +
		"ShutdownComplete WorkerStopped"
	if got := strings.Join(order, " "); got != want {
		t.Errorf("in this order:\n%s\nwant\n%s", got, want)
	}
	if count[event.ListenerConnecting](r.Events) == 0 || count[event.ListenerReleased](r.Events) != 1 ||
		count[event.ClaimStarted](r.Events) == 0 {
		t.Errorf("the listener or the claims are missing: %s", testworker.Describe(seen))
	}
}

func TestShutdownThatNobodyForces(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	r := start(t, gworker.Config{Pool: migrated(t), Tasks: []gworker.Task{
		gworker.NewTask("x", func(context.Context, *gworker.Job[any]) error { return nil }),
	}})
	waitFor[event.WorkerStarted](t, r.Events, nil)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	if complete := waitFor[event.ShutdownComplete](t, r.Events, nil); complete.Forced {
		t.Error("it says that it was forced")
	}
	if n := count[event.ShutdownForced](r.Events); n != 0 {
		t.Error("ShutdownForced was emitted")
	}
}
