package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
)

func newFailCommand(shared *sharedFlags) *cobra.Command {
	var reason string
	c := &change{
		shared: shared, verb: "fail", done: "failed",
		call: func(ctx context.Context, client *gworker.Client, ids []int64) (gworker.ChangedJobs, error) {
			return client.PermanentlyFailJobs(ctx, ids, reason)
		},
		tell: func(job *gworker.JobInfo, dryRun bool) string {
			if dryRun {
				return tellState(job)
			}
			return "it is kept and not run again"
		},
	}
	cmd := &cobra.Command{
		Use:   "fail ID...",
		Short: "Keep jobs from being run (again)",
		Long: `fail marks jobs as permanently failed: they are kept, with the reason as their
last error, and not run again. "worker retry" takes that back.

With - as an argument it reads ids from standard input.

A job that a worker runs is left alone, unless it has been locked for more than
4 hours. The exit status is 1 if a job was left out.`,
		Example:           `  worker fail 17 --reason 'the customer has left'`,
		Args:              someArgs("the ids of the jobs"),
		ValidArgsFunction: completeJobIDs(shared),
		RunE:              c.run,
	}
	cmd.Flags().StringVar(&reason, "reason", "", "last error of the jobs (default \"Manually marked as failed\")")
	c.flags(cmd)
	return cmd
}
