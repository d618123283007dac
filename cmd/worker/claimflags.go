package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
)

// claimFlags say which jobs a worker claims, how far ahead, and by which clock.
type claimFlags struct {
	forbidden  []string
	accepted   []string
	localQueue int
	holdTime   time.Duration
	workerTime bool
}

func (f *claimFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.forbidden, "forbidden-flags", nil, "leave jobs with any of these flags to other workers (a,b,...)")
	flags.StringSliceVar(&f.accepted, "accepted-flags", nil, "take only jobs with at least one of these flags (a,b,...)")
	flags.IntVar(&f.localQueue, "local-queue-size", 0,
		"claim this many jobs at a time, ahead of free slots: for very short jobs (default: none ahead)")
	flags.DurationVar(&f.holdTime, "hold-time", gworker.DefaultHoldTime,
		"hold jobs that end within this time by an open transaction instead of locking them; 0 turns it off, and so do options that need locks")
	flags.BoolVar(&f.workerTime, "use-worker-time", false,
		"this machine's clock, not the database's, decides when jobs are due")
}

// apply sets the options that were given to the command, which may be the root.
func (f *claimFlags) apply(cmd *cobra.Command, config gworker.Config) gworker.Config {
	config.ForbiddenFlags, config.AcceptedFlags = f.forbidden, f.accepted
	config.LocalQueue.Size = f.localQueue
	if cmd.Flags().Changed("hold-time") {
		config.HoldTime = &f.holdTime
	}
	if f.workerTime {
		config.Now = time.Now
	}
	return config
}
