package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
)

func newCompleteCommand(shared *sharedFlags) *cobra.Command {
	c := &change{
		shared: shared, verb: "complete", done: "completed",
		call: func(ctx context.Context, client *gworker.Client, ids []int64) (gworker.ChangedJobs, error) {
			return client.CompleteJobs(ctx, ids)
		},
		tell: func(job *gworker.JobInfo, dryRun bool) string {
			if dryRun {
				return tellState(job)
			}
			return "deleted; it was " + tellState(job)
		},
	}
	cmd := &cobra.Command{
		Use:   "complete ID...",
		Short: "Delete jobs as if they were done",
		Long: `complete deletes jobs by their ids, as if a worker had done them. Failed jobs can
be completed, too.

With - as an argument it reads ids from standard input.

A job that a worker runs is left alone, unless it has been locked for more than
4 hours. The exit status is 1 if a job was left out.`,
		Example: `  worker complete 17 18 --dry-run
  worker list --state failed --task old_report --all --ids | worker complete -`,
		Args:              someArgs("the ids of the jobs"),
		ValidArgsFunction: completeJobIDs(shared),
		RunE:              c.run,
	}
	c.flags(cmd)
	return cmd
}
