package gworker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testworker"
)

func TestConfigIsValidated(t *testing.T) {
	task := gworker.NewRawTask("x", nothing)
	ok := []gworker.Task{task}
	for _, c := range []struct {
		config gworker.Config
		field  string
		says   string
	}{
		{gworker.Config{}, "Config.Tasks", "at least one"},
		{gworker.Config{Tasks: []gworker.Task{task, task}}, "Config.Tasks[1]", `"x"`},
		{gworker.Config{Tasks: []gworker.Task{{}}}, "Config.Tasks[0]", "no identifier"},
		{gworker.Config{Tasks: []gworker.Task{gworker.NewRawTask("x", nil)}}, "Config.Tasks[0]", "no handler"},
		{gworker.Config{Tasks: []gworker.Task{gworker.NewRawTask(strings.Repeat("x", 129), nothing)}}, "Config.Tasks[0]'s identifier", "128"},
		{gworker.Config{Tasks: ok, Concurrency: -1}, "Config.Concurrency", "-1"},
		{gworker.Config{Tasks: ok, PollInterval: -time.Second}, "Config.PollInterval", "-1s"},
		{gworker.Config{Tasks: ok, StatementTimeout: -1}, "Config.StatementTimeout", "negative"},
		{gworker.Config{Tasks: ok, MaxPoolSize: 1}, "Config.MaxPoolSize", "at least 2"},
		{gworker.Config{Tasks: ok, Schema: "pg_x"}, "Config.Schema", "pg_"},
		{gworker.Config{Tasks: ok, Schema: "a\x00b"}, "Config.Schema", "NUL"},
		{gworker.Config{Tasks: ok, DatabaseURL: "postgres://h:port/"}, "Config.DatabaseURL", "cannot be used"},
	} {
		_, err := gworker.NewWorker(c.config)
		testworker.WantFieldError(t, err, c.field, c.says)
	}
}

func TestClaimConfigIsValidated(t *testing.T) {
	task := gworker.NewRawTask("x", nothing)
	local := func(c gworker.LocalQueueConfig) gworker.Config { return gworker.Config{LocalQueue: c} }
	for _, c := range []struct {
		config gworker.Config
		field  string
		says   string
	}{
		{gworker.Config{ForbiddenFlags: []string{"ok", "a\x00"}}, "Config.ForbiddenFlags", "NUL"},
		{gworker.Config{AcceptedFlags: []string{"\xff"}}, "Config.AcceptedFlags", "UTF-8"},
		{gworker.Config{CompletionDelay: -1}, "Config.CompletionDelay", "-1ns"},
		{gworker.Config{FailureDelay: time.Hour}, "Config.FailureDelay", "1m0s"},
		{local(gworker.LocalQueueConfig{Size: -1}), "Config.LocalQueue.Size", "-1"},
		{local(gworker.LocalQueueConfig{TTL: time.Second}), "Config.LocalQueue.Size", "no effect"},
		{local(gworker.LocalQueueConfig{Size: 1, TTL: -1}), "Config.LocalQueue.TTL", "negative"},
		{local(gworker.LocalQueueConfig{Size: 1, RefetchDelay: gworker.RefetchDelayConfig{Duration: 3 * time.Second}}),
			"Config.LocalQueue.RefetchDelay.Duration", "poll interval of 2s"},
		{local(gworker.LocalQueueConfig{Size: 1, RefetchDelay: gworker.RefetchDelayConfig{Duration: -1}}),
			"Config.LocalQueue.RefetchDelay.Duration", "negative"},
		{local(gworker.LocalQueueConfig{Size: 1, RefetchDelay: gworker.RefetchDelayConfig{Threshold: -1}}),
			"Config.LocalQueue.RefetchDelay.Threshold", "-1"},
		{local(gworker.LocalQueueConfig{Size: 1, RefetchDelay: gworker.RefetchDelayConfig{MaxAbortThreshold: -1}}),
			"Config.LocalQueue.RefetchDelay.MaxAbortThreshold", "-1"},
		{gworker.Config{Tasks: []gworker.Task{task.With(gworker.TaskOptions{Concurrency: -1})}}, "Config.Tasks[0]", "-1"},
	} {
		if c.config.Tasks == nil {
			c.config.Tasks = []gworker.Task{task}
		}
		_, err := gworker.NewWorker(c.config)
		testworker.WantFieldError(t, err, c.field, c.says)
	}
}

// TestHoldTimeIsValidated: where jobs cannot be held, a time that is given is an
// error, and nothing and 0 are not.
func TestHoldTimeIsValidated(t *testing.T) {
	task := gworker.NewRawTask("x", nothing)
	for says, config := range map[string]gworker.Config{
		"-1ns":                                  {HoldTime: new(time.Duration(-1))},
		"to 10s":                                {HoldTime: new(time.Minute)},
		"a local queue":                         {LocalQueue: gworker.LocalQueueConfig{Size: 1}},
		"CompletionDelay":                       {CompletionDelay: 1},
		"FailureDelay":                          {FailureDelay: 1},
		"statements that are not prep":          {NoPreparedStatements: true},
		"Recovery.Delay: give one of":           {Recovery: gworker.RecoveryConfig{Delay: 1}},
		"together with Recovery.Decide without": {Recovery: gworker.RecoveryConfig{Decide: func(context.Context, gworker.RecoverableJob) (d gworker.RecoveryDecision) { return }}},
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
		testworker.WantFieldError(t, err, "Config.HoldTime", says)
	}
}

func TestRecoveryConfigIsValidated(t *testing.T) {
	pool := migrated(t)
	for field, c := range map[string]gworker.RecoveryConfig{
		"HeartbeatInterval":   {HeartbeatInterval: -1},
		"SweepInterval":       {SweepInterval: -1},
		"StaleAfter":          {StaleAfter: 20 * time.Second},
		"Delay":               {Delay: -1},
		"ResilientMultiplier": {ResilientMultiplier: 0.5},
	} {
		_, err := gworker.NewWorker(gworker.Config{Pool: pool, Recovery: c, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
		var wrong *gworker.FieldError
		if !errors.As(err, &wrong) || wrong.Field != "Config.Recovery."+field {
			t.Errorf("%+v: %v", c, err)
		}
	}
	_, err := newClient(t, pool).Sweep(t.Context(), gworker.SweepOptions{NodeLocksOlderThan: -1})
	if err == nil || !strings.Contains(err.Error(), "NodeLocksOlderThan") {
		t.Errorf("error %v", err)
	}
}

// Whoever is given a connection string that does not parse quotes nothing of it.
func TestConnectionStringsAreNotQuoted(t *testing.T) {
	t.Parallel()
	tasks := []gworker.Task{gworker.NewRawTask("x", nothing)}
	for _, s := range []string{
		"postgres://app:CORRECT/HORSE@db/app", "postgres://app:CORRECT@HORSE@db/app", "postgres://app:HORSE%@db/app",
		"host=db password=CORRECT HORSE", "host=db password='HORSE", "HORSE",
	} {
		for field, make := range map[string]func() error{
			"Config.DatabaseURL": func() error {
				_, err := gworker.NewWorker(gworker.Config{DatabaseURL: s, Tasks: tasks})
				return err
			},
			"Config.ListenDatabaseURL": func() error {
				_, err := gworker.NewWorker(gworker.Config{ListenDatabaseURL: s, Tasks: tasks})
				return err
			},
			"ClientConfig.DatabaseURL": func() error {
				_, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: s})
				return err
			},
			"ListenerConfig.DatabaseURL": func() error {
				_, err := gworker.NewListener(gworker.ListenerConfig{DatabaseURL: s, Channels: []string{"c"}})
				return err
			},
		} {
			err := make()
			if err == nil || !strings.Contains(err.Error(), field+" cannot be used") ||
				strings.Contains(err.Error(), "HORSE") || strings.Contains(err.Error(), "CORRECT") {
				t.Errorf("%s: %v", field, err)
			}
		}
	}
}
