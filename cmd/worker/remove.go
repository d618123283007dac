package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/program"
	"github.com/gworker/gworker/internal/terminal"
)

func newRemoveCommand(shared *sharedFlags) *cobra.Command {
	var dryRun, asJSON, byID bool
	cmd := &cobra.Command{
		Use:   "remove KEY...",
		Short: "Remove jobs by their keys",
		Long: `remove deletes the jobs that have the given job keys. A job that a worker runs
cannot be deleted: it loses its key and is not tried again if it fails.
"worker cancel" ends its run.

Keys may be any text, numbers too, so ids are taken with --id only. remove --id
is the same as complete. The exit status is 1 if there is no such job.`,
		Example: `  worker remove 'reminder of user 7'
  worker remove --id 17`,
		Args: someArgs("the keys of the jobs, or with --id their ids"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if byID {
			c := &change{
				shared: shared, verb: "remove", done: "removed", dryRun: dryRun, json: asJSON,
				call: func(ctx context.Context, client *gworker.Client, ids []int64) (gworker.ChangedJobs, error) {
					return client.CompleteJobs(ctx, ids)
				},
				tell: func(job *gworker.JobInfo, _ bool) string { return tellState(job) },
			}
			return c.run(cmd, args)
		}
		return shared.withRows(cmd.Context(), func(client *gworker.Client) error {
			result := removeJSON{DryRun: dryRun, Jobs: []removedJSON{}, NotFound: []string{}}
			for _, key := range args {
				removed, err := removeKey(cmd.Context(), client, key, dryRun)
				switch {
				case errors.Is(err, gworker.ErrJobNotFound):
					result.NotFound = append(result.NotFound, key)
				case err != nil:
					// Jobs that were removed before are gone, so print them.
					return errors.Join(result.print(shared, asJSON), err)
				default:
					result.Jobs = append(result.Jobs, removed)
				}
			}
			if err := result.print(shared, asJSON); err != nil {
				return err
			}
			if n := len(result.NotFound); n > 0 {
				return fmt.Errorf("%d of %s not found", n, counted(len(args), "key"))
			}
			return nil
		})
	}
	cmd.Flags().BoolVar(&byID, "id", false, "the arguments are ids; - reads them from standard input")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing, and print what would be touched")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func removeKey(ctx context.Context, client *gworker.Client, key string, dryRun bool) (removedJSON, error) {
	job, err := client.GetJobByKey(ctx, key)
	if err != nil || dryRun {
		if err != nil {
			return removedJSON{}, err
		}
		preview, err := client.PreviewJobs(ctx, []int64{job.ID})
		return removedJSON{RemovedKey: key, Deleted: len(preview.Jobs) == 1, jobJSON: jsonJobInfo(job)}, err
	}
	row, err := client.RemoveJob(ctx, key)
	if err != nil {
		return removedJSON{}, err
	}
	// A job that is not deleted has lost its key.
	return removedJSON{RemovedKey: key, Deleted: row.Key != "", jobJSON: jsonJob(row)}, nil
}

type removeJSON struct {
	DryRun   bool          `json:"dry_run"`
	Jobs     []removedJSON `json:"jobs"`
	NotFound []string      `json:"not_found"`
}

type removedJSON struct {
	RemovedKey string `json:"removed_key"`
	Deleted    bool   `json:"deleted"`
	jobJSON
}

func (r removeJSON) print(shared *sharedFlags, asJSON bool) error {
	out := shared.std.out
	if asJSON {
		return printJSON(out, r)
	}
	for _, job := range r.Jobs {
		switch {
		case job.Deleted && r.DryRun:
			terminal.Fprintf(out, "would remove job %d (%s, key %q)\n", job.ID, cell(job.Task, 60), job.RemovedKey)
		case job.Deleted:
			terminal.Fprintf(out, "removed job %d (%s, key %q)\n", job.ID, cell(job.Task, 60), job.RemovedKey)
		default:
			what := "it loses its key and is not tried again"
			if r.DryRun {
				what = "it would lose its key and not be tried again"
			}
			terminal.Fprintf(out, "job %d (%s, key %q) is locked by %s: %s; \"%s cancel %d\" ends a running job\n",
				job.ID, cell(job.Task, 60), job.RemovedKey, cell(job.LockedBy, 60), what, program.Name, job.ID)
		}
	}
	for _, key := range r.NotFound {
		terminal.Fprintf(out, "no job has the key %q\n", key)
	}
	return nil
}
