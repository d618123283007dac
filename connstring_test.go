package gworker_test

import (
	"strings"
	"testing"

	"github.com/gworker/gworker"
)

// Whoever is given a connection string that does not parse quotes nothing of it.
func TestConnectionStringsAreNotQuoted(t *testing.T) {
	t.Parallel()
	tasks := []gworker.Task{gworker.NewTask("x", noop)}
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
