package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/terminal"
)

// errJobNotFound makes the command fail; what there is to say is printed.
var errJobNotFound = errors.New("no such job: it is complete, was removed, or never was")

func newCancelCommand(shared *sharedFlags) *cobra.Command {
	var reason string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "cancel ID",
		Short: "Cancel a job, also while it runs",
		Long: `cancel makes a job fail permanently. A job that runs is cancelled by asking the
gworker that runs it: it ends the handler's context (an executable gets SIGTERM),
mostly within milliseconds, and after its next heartbeat at the latest. A run that
is complete before it hears of it stays complete.

Whatever becomes of the run, the job is not tried again. A job that a Node or Rust
worker runs cannot be interrupted, only kept from being tried again.

The states that --json prints are requested, kept_from_retrying, failed,
already_failed and not_found; for the last one the exit status is 1.`,
		Example: `  worker cancel 42 --reason "wrong recipient"
  worker cancel 42 --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{command: cmd.CommandPath(), err: errors.New("name the job by its id")}
			}
			return noArgs(cmd, args[1:])
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return usageError{command: cmd.CommandPath(), err: fmt.Errorf("%q is not the id of a job", args[0])}
			}
			client, err := shared.client()
			if err != nil {
				return err
			}
			defer client.Close()
			result, err := client.CancelRunning(cmd.Context(), id, reason)
			if err != nil {
				return err
			}
			if asJSON {
				err = printCancelJSON(shared.std.out, result)
			} else {
				printCancel(shared.std.out, result)
			}
			if err == nil && result.State == gworker.CancelNotFound {
				err = fmt.Errorf("cancelling job %d: %w", id, errJobNotFound)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&reason, "reason", "", `why, as the job's last error (default "the job was cancelled")`)
	flags.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
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
