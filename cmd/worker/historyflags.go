package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/history"
)

// historyFlags say what a worker records, and for how long that is kept.
type historyFlags struct {
	level                  string
	events, minutes, hours time.Duration
}

func (f *historyFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.level, "history", string(history.Failures),
		"what to record about jobs: failures (statistics of all jobs, and each run that did not complete) or off")
	flags.Var(newDuration(&f.events, history.DefaultEvents), "history-retention", "how long recorded events are kept, in days")
	flags.Var(newDuration(&f.minutes, history.DefaultMinutes), "history-minutes", "how long statistics of each minute are kept")
	flags.Var(newDuration(&f.hours, history.DefaultHours), "history-hours", "how long statistics of each hour are kept")
	complete(cmd, "history", words(string(history.Failures), string(history.Off)))
}

func (f *historyFlags) apply(config *gworker.Config) {
	config.History = history.Level(f.level)
	config.HistoryRetention = history.Retention{Events: f.events, Minutes: f.minutes, Hours: f.hours}
}
