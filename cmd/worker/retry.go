package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
)

func newRetryCommand(shared *sharedFlags) *cobra.Command {
	c := &change{
		shared: shared, verb: "retry", done: "retried",
		call: func(ctx context.Context, client *gworker.Client, ids []int64) (gworker.ChangedJobs, error) {
			return client.RetryJobs(ctx, ids)
		},
		tell: func(job *gworker.JobInfo, dryRun bool) string { return tellState(job) },
	}
	cmd := &cobra.Command{
		Use:   "retry ID...",
		Short: "Run failed jobs again, now and with all their attempts",
		Long: `retry lets jobs run again at once, with as many attempts as when they were added:
failed ones, and those that wait for their next attempt or their time. Their last
error stays until the next one.

With - as an argument it reads ids from standard input.

A job that a worker runs is left alone, unless it has been locked for more than
4 hours. The exit status is 1 if a job was left out.`,
		Example: `  worker retry 17
  worker list --state failed --task send_email --all --ids | worker retry -`,
		Args:              someArgs("the ids of the jobs"),
		ValidArgsFunction: completeJobIDs(shared, gworker.StateFailed, gworker.StateRetrying),
		RunE:              c.run,
	}
	c.flags(cmd)
	return cmd
}
