package gworkertest_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/gworkertest"
)

type email struct {
	To string `json:"to"`
}

func TestRunGivesTheHandlerAPlausibleJob(t *testing.T) {
	var got gworker.Job[email]
	task := gworker.NewTask("send", func(_ context.Context, job *gworker.Job[email]) error {
		got = *job
		if job.Client() == nil {
			t.Error("no client")
		}
		return nil
	})
	before := time.Now()
	r := gworkertest.Run(t.Context(), t, task, gworkertest.Call{Payload: map[string]string{"to": "ada"}})
	if r.Outcome != gworkertest.Completed || r.Err != nil {
		t.Error(r)
	}
	if got.Payload.To != "ada" || got.ID != 1 || got.Task != "send" || got.Attempts != 1 || got.MaxAttempts != 25 || got.LastAttempt() ||
		got.RunAt.Before(before) || got.CreatedAt.IsZero() || got.LockedAt.IsZero() || !strings.HasPrefix(got.LockedBy, "gworker_") ||
		string(got.JobRow.Payload) != `{"to":"ada"}` {
		t.Errorf("the handler got %+v", got)
	}
	r = gworkertest.Run(t.Context(), t, task, gworkertest.Call{Payload: email{"bob"}, Job: gworker.JobRow{
		ID: 9, Attempts: 3, MaxAttempts: 3, Queue: "q", Key: "k", Flags: []string{"f"}, LastError: "before",
	}})
	if got.Payload.To != "bob" || got.ID != 9 || got.Attempts != 3 || !got.LastAttempt() || got.Queue != "q" || got.Key != "k" ||
		!slices.Equal(got.Flags, []string{"f"}) || got.LastError != "before" || r.Job.ID != 9 {
		t.Errorf("the handler got %+v", got)
	}
}

func TestRunRawTask(t *testing.T) {
	var got []string
	task := gworker.NewRawTask("raw", func(_ context.Context, job *gworker.RawJob) error {
		got = append(got, string(job.Payload))
		return nil
	})
	for _, payload := range []any{json.RawMessage(`{"a" : 1}`), nil, []int{1}} {
		gworkertest.Run(t.Context(), t, task, gworkertest.Call{Payload: payload})
	}
	if want := []string{`{"a" : 1}`, "{}", "[1]"}; !slices.Equal(got, want) {
		t.Errorf("payloads %q, want %q", got, want)
	}
}

func TestRunSaysHowTheRunEnded(t *testing.T) {
	no := errors.New("no ink")
	cut, cancel := context.WithCancelCause(t.Context())
	cancel(gworker.ErrShutdown)
	returns := func(err error) gworker.Task {
		return gworker.NewTask("x", func(context.Context, *gworker.Job[email]) error { return err })
	}
	last := gworker.JobRow{Attempts: 4, MaxAttempts: 4}
	for name, c := range map[string]struct {
		ctx     context.Context
		task    gworker.Task
		call    gworkertest.Call
		outcome gworkertest.Outcome
		err     func(error) bool
	}{
		"failed":             {t.Context(), returns(no), gworkertest.Call{}, gworkertest.Failed, func(err error) bool { return err == no }},
		"permanently failed": {t.Context(), returns(no), gworkertest.Call{Job: last}, gworkertest.PermanentlyFailed, func(err error) bool { return err == no }},
		"cancelled": {t.Context(), returns(gworker.Discard(no)), gworkertest.Call{}, gworkertest.PermanentlyFailed,
			func(err error) bool { return errors.Is(err, no) && err.Error() == "no ink" }},
		"snoozed in its last attempt": {t.Context(), returns(gworker.Snooze(time.Hour)), gworkertest.Call{Job: last}, gworkertest.Snoozed,
			func(err error) bool { var s *gworker.SnoozeError; return errors.As(err, &s) && s.For == time.Hour }},
		"cut off": {cut, returns(no), gworkertest.Call{Job: last}, gworkertest.Returned, func(err error) bool { return err == no }},
		"undecodable": {t.Context(), returns(nil), gworkertest.Call{Payload: 7}, gworkertest.Failed,
			func(err error) bool { return err != nil && strings.Contains(err.Error(), "decoding the payload") }},
		"panic": {t.Context(), gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error { panic(no) }),
			gworkertest.Call{}, gworkertest.Failed,
			func(err error) bool { var p *gworker.PanicError; return errors.As(err, &p) && errors.Is(err, no) }},
		"no database": {t.Context(), gworker.NewRawTask("x", func(ctx context.Context, job *gworker.RawJob) error {
			_, err := job.Client().AddJob(ctx, gworker.JobSpec{Task: "next"})
			return err
		}), gworkertest.Call{}, gworkertest.Failed, func(err error) bool { return errors.Is(err, gworkertest.ErrNoDatabase) }},
	} {
		r := gworkertest.Run(c.ctx, t, c.task, c.call)
		if r.Outcome != c.outcome || !c.err(r.Err) {
			t.Errorf("%s: %v", name, r)
		}
		if (r.Outcome == gworkertest.Snoozed) != (r.Delay != nil) || r.Delay != nil && *r.Delay != time.Hour {
			t.Errorf("%s: waits for %v", name, r.Delay)
		}
	}
}

func TestRunLogsAndEmitsAsAWorkerDoes(t *testing.T) {
	var started, ended int
	f := watch(t, func(t testing.TB) {
		gworkertest.Run(context.Background(), t, gworker.NewRawTask("x", func(_ context.Context, job *gworker.RawJob) error {
			job.Logger().Info("half way")
			return nil
		}), gworkertest.Call{Config: gworker.Config{Observers: []func(event.Event){func(e event.Event) {
			switch e.(type) {
			case event.JobStarted:
				started++
			case event.JobEnded:
				ended++
			}
		}}}})
	})
	if log := strings.Join(f.logged, "\n"); !strings.Contains(log, "half way") || !strings.Contains(log, "task=x") {
		t.Errorf("log: %s", log)
	}
	if started != 1 || ended != 1 {
		t.Errorf("%d starts, %d ends", started, ended)
	}
}

func TestRunWithADatabase(t *testing.T) {
	pool := gworkertest.Pool(t)
	task := gworker.NewRawTask("first", func(ctx context.Context, job *gworker.RawJob) error {
		_, err := job.Client().AddJob(ctx, gworker.JobSpec{Task: "next"})
		return err
	})
	if r := gworkertest.Run(t.Context(), t, task, gworkertest.Call{Config: gworker.Config{Pool: pool}}); r.Outcome != gworkertest.Completed {
		t.Fatal(r)
	}
	gworkertest.JobsIn(pool).Require(t, gworker.JobSpec{Task: "next"})
}

func TestRunRefusesWhatAWorkerRefuses(t *testing.T) {
	task := gworker.NewRawTask("x", nothing)
	for says, call := range map[string]gworkertest.Call{
		"Call.Payload cannot be encoded as JSON": {Payload: func() {}},
		"Config.PollInterval is -1s":             {Config: gworker.Config{PollInterval: -time.Second}},
	} {
		wantFailure(t, func(t testing.TB) { gworkertest.Run(context.Background(), t, task, call) }, says)
	}
	wantFailure(t, func(t testing.TB) {
		gworkertest.Run(context.Background(), t, gworker.NewRawTask("y", nil), gworkertest.Call{})
	}, `"y"`, "has no handler")
}

// A worker that a handler starts under its own context works on its queue.
func TestRunOfAHandlerThatRunsAWorker(t *testing.T) {
	pool := gworkertest.Pool(t)
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.AddJob(t.Context(), gworker.JobSpec{Task: "inner"}); err != nil {
		t.Fatal(err)
	}
	ran := 0
	outer := gworker.NewRawTask("outer", func(ctx context.Context, _ *gworker.RawJob) error {
		worker, err := gworker.NewWorker(gworker.Config{Pool: pool, Tasks: []gworker.Task{
			gworker.NewRawTask("inner", func(context.Context, *gworker.RawJob) error { ran++; return nil }),
		}})
		if err != nil {
			return err
		}
		return worker.RunOnce(ctx)
	})
	if r := gworkertest.Run(t.Context(), t, outer, gworkertest.Call{}); r.Outcome != gworkertest.Completed || ran != 1 {
		t.Errorf("%v; the inner job ran %d times", r, ran)
	}
}
