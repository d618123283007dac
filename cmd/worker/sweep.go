package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/terminal"
)

type sweepFlags struct {
	dryRun     bool
	json       bool
	staleAfter time.Duration
	delay      time.Duration
	nodeLocks  time.Duration
}

func newSweepCommand(shared *sharedFlags) *cobra.Command {
	var f sweepFlags
	cmd := &cobra.Command{
		Use:   "sweep",
		Short: "Give back the jobs of dead workers",
		Long: `sweep looks once for dead workers and gives their jobs back, as every running
worker does by itself. With --dry-run it changes nothing and prints what it would
do.

Node's workers send no heartbeats, so a long job of theirs looks like a job of a
dead worker. Their locks are left alone for 4 hours, unless
--include-node-locks-older-than says that no job of theirs takes that long.`,
		Example: `  worker sweep --dry-run
  worker sweep --include-node-locks-older-than 30m`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return shared.withRows(cmd.Context(), func(client *gworker.Client) error {
				result, err := client.Sweep(cmd.Context(), gworker.SweepOptions{
					Recovery:           gworker.RecoveryConfig{StaleAfter: f.staleAfter, Delay: f.delay},
					NodeLocksOlderThan: f.nodeLocks,
					DryRun:             f.dryRun,
				})
				if err != nil {
					return err
				}
				if f.json {
					return printSweepJSON(shared.std.out, f.dryRun, result)
				}
				printSweep(shared.std.out, f.dryRun, result)
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.dryRun, "dry-run", false, "change nothing, and print what would be done")
	flags.BoolVar(&f.json, "json", false, "print the result as JSON")
	flags.Var(newDuration(&f.staleAfter, gworker.DefaultStaleAfter), "stale-after", "silence after which a worker is declared dead")
	flags.Var(newDuration(&f.delay, 0), "delay", "how long recovered jobs wait before they can run")
	flags.Var(newDuration(&f.nodeLocks, 0), "include-node-locks-older-than",
		"also take jobs whose locks Node's workers have had for longer (default: never)")
	return cmd
}

func printSweep(out io.Writer, dryRun bool, result gworker.SweepResult) {
	switch {
	case result.Busy:
		fmt.Fprintln(out, "another process is sweeping at this moment: nothing was done")
		return
	case len(result.Workers) == 0:
		fmt.Fprintln(out, "no dead workers")
		return
	}
	would := ""
	if dryRun {
		would = "would be "
	}
	for _, w := range result.Workers {
		silence := "its oldest lock is " + w.Silence.Round(time.Second).String() + " old, and it is not registered"
		if w.Registered {
			silence = "not heard of for " + w.Silence.Round(time.Second).String()
		}
		terminal.Fprintf(out, "%s: %s\n", w.ID, silence)
		for _, j := range w.Jobs {
			terminal.Fprintf(out, "  job %d (%s, attempt %d of %d) %s%s\n", j.ID, j.Task, j.Attempts, j.MaxAttempts, would, fate(j))
		}
		if len(w.Jobs) == 0 {
			fmt.Fprintln(out, "  it has locked no job")
		}
	}
}

// fate says what became of a job; "would be" may stand before it.
func fate(j gworker.SweptJob) string {
	switch {
	case j.Refused != nil:
		return "left with it, for the database refuses the change: " + j.Refused.Error()
	case j.Action == gworker.RecoverLater:
		return "left with it for now"
	case j.GivenUp && j.Key == "" && j.Attempts >= j.MaxAttempts:
		return "unlocked, and stays failed: that was its last attempt, or it was replaced or removed meanwhile"
	case j.GivenUp:
		return "given up: it has been started too often"
	case j.Cancelled:
		return "unlocked, and stays failed: it was cancelled"
	}
	return "given back"
}

type sweepJSON struct {
	DryRun  bool               `json:"dry_run"`
	Busy    bool               `json:"busy"`
	Workers []sweptWorkersJSON `json:"workers"`
}

type sweptWorkersJSON struct {
	ID             string         `json:"id"`
	Registered     bool           `json:"registered"`
	SilenceSeconds float64        `json:"silence_seconds"`
	Jobs           []sweptJobJSON `json:"jobs"`
}

type sweptJobJSON struct {
	ID          int64  `json:"id"`
	Task        string `json:"task_identifier"`
	Queue       string `json:"queue_name,omitempty"`
	Key         string `json:"key,omitempty"`
	Attempts    int    `json:"attempts"`
	MaxAttempts int    `json:"max_attempts"`
	Action      string `json:"action"`
	GivenUp     bool   `json:"given_up"`
	Refused     string `json:"refused,omitempty"`
}

func printSweepJSON(out io.Writer, dryRun bool, result gworker.SweepResult) error {
	printed := sweepJSON{DryRun: dryRun, Busy: result.Busy, Workers: []sweptWorkersJSON{}}
	for _, w := range result.Workers {
		worker := sweptWorkersJSON{ID: w.ID, Registered: w.Registered, SilenceSeconds: w.Silence.Seconds(), Jobs: []sweptJobJSON{}}
		for _, j := range w.Jobs {
			refused := ""
			if j.Refused != nil {
				refused = j.Refused.Error()
			}
			worker.Jobs = append(worker.Jobs, sweptJobJSON{
				ID: j.ID, Task: j.Task, Queue: j.Queue, Key: j.Key, Attempts: j.Attempts, MaxAttempts: j.MaxAttempts,
				Action: j.Action.String(), GivenUp: j.GivenUp, Refused: refused,
			})
		}
		printed.Workers = append(printed.Workers, worker)
	}
	if err := json.NewEncoder(out).Encode(printed); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}
