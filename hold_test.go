package gworker_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
)

// TestHoldTimeIsValidated: where jobs cannot be held, a time that is given is an
// error, and nothing and 0 are not.
func TestHoldTimeIsValidated(t *testing.T) {
	task := gworker.NewRawTask("x", nothing)
	for says, config := range map[string]gworker.Config{
		"-1ns":                           {HoldTime: new(time.Duration(-1))},
		"to 10s":                         {HoldTime: new(time.Minute)},
		"forbidden flags":                {ForbiddenFlags: []string{"f"}},
		"accepted flags":                 {AcceptedFlags: []string{"f"}},
		"ForbiddenFlagsFunc":             {ForbiddenFlagsFunc: func(context.Context) ([]string, error) { return nil, nil }},
		"a local queue":                  {LocalQueue: gworker.LocalQueueConfig{Size: 1}},
		"CompletionDelay":                {CompletionDelay: 1},
		"FailureDelay":                   {FailureDelay: 1},
		"a clock of the worker's own":    {Now: time.Now},
		"statements that are not prep":   {NoPreparedStatements: true},
		"a Concurrency of a task's own":  {Tasks: []gworker.Task{task.With(gworker.TaskOptions{Concurrency: 1})}},
		"Recovery.Delay: give one of":    {Recovery: gworker.RecoveryConfig{Delay: 1}},
		"together with Recovery.Decide:": {Recovery: gworker.RecoveryConfig{Decide: func(context.Context, gworker.RecoverableJob) (d gworker.RecoveryDecision) { return }}},
	} {
		if config.Tasks == nil {
			config.Tasks = []gworker.Task{task}
		}
		for _, hold := range []*time.Duration{nil, new(time.Duration)} {
			free := config
			free.HoldTime = hold
			w, err := gworker.NewWorker(free)
			if err != nil {
				t.Errorf("%s, hold time %v: %v", says, hold, err)
				continue
			}
			w.Close()
		}
		if config.HoldTime == nil {
			config.HoldTime = new(time.Second)
		}
		_, err := gworker.NewWorker(config)
		wantFieldError(t, err, "Config.HoldTime", says)
	}
}

// TestJobsAreHeldByDefault: sooner or later a job runs whose row shows no lock. On
// a busy machine one may run for longer than the hold time.
func TestJobsAreHeldByDefault(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	held := make(chan struct{}, 1)
	w := start(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask("x", func(_ context.Context, job *gworker.RawJob) error {
		if !lockIsWritten(t, pool, job.ID) {
			select {
			case held <- struct{}{}:
			default:
			}
		}
		return nil
	})}})
	timeout := time.After(patience)
	for {
		job := add(t, client, gworker.JobSpec{Task: "x"})
		waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == job.ID })
		select {
		case <-held:
			return
		case <-timeout:
			t.Fatal("no job was held")
		default:
		}
	}
}

func lockIsWritten(t *testing.T, pool *pgxpool.Pool, id int64) (locked bool) {
	t.Helper()
	scan(t, pool, "select locked_at is not null from graphile_worker._private_jobs where id = $1", []any{id}, &locked)
	return locked
}

// TestWhichJobsAreLockedFirst: those that take an outage better than a second run,
// and those whose worker has died before; all of them where each dead worker's job
// is to be decided about.
func TestWhichJobsAreLockedFirst(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	long := new(10 * time.Second)
	for _, c := range []struct {
		name   string
		config gworker.Config
		want   string
	}{
		{"default flags", gworker.Config{HoldTime: long}, "plain held, recovered locked, resilient locked"},
		{"no flags", gworker.Config{HoldTime: long, Recovery: gworker.RecoveryConfig{ResilientFlags: []string{}}},
			"plain held, recovered locked, resilient held"},
		{"off", gworker.Config{HoldTime: new(time.Duration)}, "plain locked, recovered locked, resilient locked"},
		{"decided about", gworker.Config{Recovery: gworker.RecoveryConfig{
			Decide: func(context.Context, gworker.RecoverableJob) (d gworker.RecoveryDecision) { return d },
		}}, "plain locked, recovered locked, resilient locked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := migrated(t)
			client := newClient(t, pool)
			var seen []string
			config := c.config
			config.Pool, config.Concurrency = pool, 1 // the handler's writes come one after another
			config.PollInterval = time.Hour           // a claim of a poll locks
			config.Tasks = []gworker.Task{gworker.NewTask("x", func(_ context.Context, job *gworker.Job[string]) error {
				how := "held"
				if lockIsWritten(t, pool, job.ID) {
					how = "locked"
				}
				seen = append(seen, job.Payload+" "+how)
				return nil
			})}
			w := start(t, config)
			warm := func() string {
				first := add(t, client, gworker.JobSpec{Task: "x", Payload: "warm"})
				waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == first.ID })
				return seen[len(seen)-1]
			}
			if first := warm(); first != "warm locked" {
				t.Errorf("saw first %s", first)
			}
			// None is held before there is a connection to.
			for patient := time.Now().Add(patience); strings.Contains(c.want, "held") && warm() == "warm locked"; {
				if time.Now().After(patient) {
					t.Fatal("no job was held")
				}
			}
			seen = nil
			// One after another: a job that waits for its lock ends the claim of all.
			for _, spec := range []gworker.JobSpec{
				{Task: "x", Payload: "plain"},
				{Task: "x", Payload: "resilient", Flags: []string{gworker.DefaultResilientFlag}},
				{Task: "x", Payload: "recovered"},
			} {
				tx, err := pool.Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = tx.Rollback(context.Background()) }()
				job := add(t, client.WithTx(tx), spec)
				if _, err := tx.Exec(t.Context(), `update graphile_worker._private_jobs
					set last_error = 'Job recovered after worker interruption (1 time in a row)'
					where payload::text = '"recovered"'`); err != nil {
					t.Fatal(err)
				}
				if err := tx.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
				waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == job.ID })
			}
			if err := w.stop(); err != nil {
				t.Fatal(err)
			}
			if strings.Join(slices.Sorted(slices.Values(seen)), ", ") != c.want {
				t.Errorf("saw %v, want %s", seen, c.want)
			}
		})
	}
}
