package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/terminal"
)

// errJobNotFound makes the command fail; the results are printed before.
var errJobNotFound = errors.New("no such job: it is complete, was removed, or never was")

func newCancelCommand(shared *sharedFlags) *cobra.Command {
	var reason string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "cancel ID...",
		Short: "Cancel jobs, also while they run",
		Long: `cancel makes jobs fail permanently. If a job is running, the gworker that runs it is
asked to end it: it ends the handler's context (an executable gets SIGTERM), usually
within milliseconds, and at its next heartbeat at the latest. A run that completes
before that stays complete.

With - as an argument it reads ids from standard input.

Whatever becomes of the run, the job is not tried again. A job on a Node or Rust
worker cannot be interrupted, only kept from being tried again.

--json prints one object per line. Its states are requested, kept_from_retrying,
failed, already_failed and not_found; for the last one the exit status is 1.`,
		Example: `  worker cancel 42 --reason "wrong recipient"
  worker list --task import --state running,ready --all --ids | worker cancel -`,
		Args:              someArgs("the ids of the jobs"),
		ValidArgsFunction: completeJobIDs(shared),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := idsOf(args, shared.std.in)
			if err != nil {
				return usageError{command: cmd.CommandPath(), err: err}
			}
			return shared.withRows(cmd.Context(), func(client *gworker.Client) error {
				return cancelJobs(cmd.Context(), client, shared.std.out, ids, reason, asJSON)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&reason, "reason", "", `why, as the jobs' last error (default "the job was cancelled")`)
	flags.BoolVar(&asJSON, "json", false, "print the results as JSON, one per line")
	return cmd
}

// cancelJobs cancels one job after the other and reports each at once: jobs stay cancelled
// if a later one cannot be.
func cancelJobs(ctx context.Context, client *gworker.Client, out io.Writer, ids []int64, reason string, asJSON bool) error {
	if len(ids) == 0 && !asJSON {
		fmt.Fprintln(out, "no jobs were named: nothing to do")
	}
	missing := 0
	for _, id := range ids {
		result, err := client.Cancel(ctx, id, reason)
		if err != nil {
			return err
		}
		if result.State == gworker.CancelNotFound {
			missing++
		}
		if asJSON {
			err = printCancelJSON(out, result)
		} else {
			printCancel(out, result)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case missing == 1 && len(ids) == 1:
		return fmt.Errorf("cancelling job %d: %w", ids[0], errJobNotFound)
	case missing > 0:
		return fmt.Errorf("%d of %s not found", missing, counted(len(ids), "job"))
	}
	return nil
}

func printCancel(out io.Writer, r gworker.CancelResult) {
	switch r.State {
	case gworker.CancelRequested:
		terminal.Fprintf(out, "job %d (%s) runs on %s, which has been told: unless it is complete before, it fails permanently\n",
			r.JobID, r.Task, r.WorkerID)
	case gworker.CancelKeptFromRetrying:
		terminal.Fprintf(out, "job %d (%s) runs on %s, which is not a gworker and cannot be interrupted: "+
			"if the run fails, the job is not tried again\n", r.JobID, r.Task, r.WorkerID)
	case gworker.CancelFailed:
		terminal.Fprintf(out, "job %d (%s) did not run, and has failed permanently\n", r.JobID, r.Task)
	case gworker.CancelNotFound:
		terminal.Fprintf(out, "left out job %d: there is no such job\n", r.JobID)
	case gworker.CancelAlreadyFailed:
		terminal.Fprintf(out, "job %d (%s) had failed permanently before: %s\n", r.JobID, r.Task, oneLine(r.Reason))
	}
}

type cancelJSON struct {
	ID       int64  `json:"id"`
	State    string `json:"state"`
	Task     string `json:"task_identifier,omitempty"`
	WorkerID string `json:"locked_by,omitempty"`
	Reason   string `json:"last_error,omitempty"`
}

func printCancelJSON(out io.Writer, r gworker.CancelResult) error {
	printed := cancelJSON{ID: r.JobID, State: string(r.State), Task: r.Task, WorkerID: r.WorkerID, Reason: r.Reason}
	if err := json.NewEncoder(out).Encode(printed); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}
