package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/terminal"
)

func newForceUnlockCommand(shared *sharedFlags) *cobra.Command {
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "force-unlock WORKER...",
		Short: "Remove the locks of dead workers",
		Long: `force-unlock takes the locks of workers away at once, by the ids that "worker
workers" prints. Use it only for workers that are certainly dead. For workers that
register, "worker sweep" finds out which are dead, and restores the interrupted
attempt, which force-unlock does not.

It stops nothing that is running: if such a worker still runs a job, another one
can start it at once, and both run it.`,
		Example: `  worker workers
  worker force-unlock pool-3f2a77c1d0e94b5a86 --dry-run`,
		Args:              someArgs("the ids of the workers"),
		ValidArgsFunction: completeWorkers(shared),
		RunE: func(cmd *cobra.Command, args []string) error {
			return shared.withRows(cmd.Context(), func(client *gworker.Client) error {
				unlock := client.ForceUnlockWorkers
				if dryRun {
					unlock = client.LockedBy
				}
				return forceUnlock(cmd.Context(), shared.std.out, unlock, args, dryRun, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing, and print what would be unlocked")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func forceUnlock(
	ctx context.Context, out io.Writer, unlock func(context.Context, []string) ([]gworker.WorkerLocks, error), workers []string, dryRun, asJSON bool,
) error {
	locks, err := unlock(ctx, workers)
	if err != nil {
		return err
	}
	if asJSON {
		if err := printJSON(out, unlockedJSON(dryRun, locks)); err != nil {
			return err
		}
	}
	idle := 0
	for _, w := range locks {
		if len(w.Jobs)+len(w.Queues) == 0 {
			idle++
		}
		if !asJSON {
			printUnlocked(out, w, dryRun)
		}
	}
	if idle > 0 {
		return fmt.Errorf("%d of %s had no locks", idle, counted(len(locks), "worker"))
	}
	return nil
}

func printUnlocked(out io.Writer, w gworker.WorkerLocks, dryRun bool) {
	if len(w.Jobs)+len(w.Queues) == 0 {
		terminal.Fprintf(out, "%s has no locks: check the id\n", cell(w.WorkerID, 60))
		return
	}
	did := "unlocked"
	if dryRun {
		did = "would unlock"
	}
	terminal.Fprintf(out, "%s what %s has locked:\n", did, cell(w.WorkerID, 60))
	for _, job := range w.Jobs {
		terminal.Fprintf(out, "  job %d (%s, attempt %d of %d), locked for %s\n", job.ID, cell(job.Task, 60), job.Attempts, job.MaxAttempts, span(job.LockedFor))
	}
	if len(w.Queues) > 0 {
		names := make([]string, len(w.Queues))
		for i, name := range w.Queues {
			names[i] = cell(name, 60)
		}
		terminal.Fprintf(out, "  %s: %s\n", strings.TrimPrefix(counted(len(names), "queue"), "1 "), strings.Join(names, ", "))
	}
}

type forceUnlockJSON struct {
	DryRun  bool                 `json:"dry_run"`
	Workers []unlockedWorkerJSON `json:"workers"`
}

type unlockedWorkerJSON struct {
	ID     string          `json:"id"`
	Jobs   []lockedJobJSON `json:"jobs"`
	Queues []string        `json:"queues"`
}

type lockedJobJSON struct {
	ID               int64   `json:"id"`
	Task             string  `json:"task_identifier"`
	Attempts         int     `json:"attempts"`
	MaxAttempts      int     `json:"max_attempts"`
	LockedForSeconds float64 `json:"locked_for_seconds"`
}

func unlockedJSON(dryRun bool, locks []gworker.WorkerLocks) forceUnlockJSON {
	printed := forceUnlockJSON{DryRun: dryRun, Workers: []unlockedWorkerJSON{}}
	for _, w := range locks {
		one := unlockedWorkerJSON{ID: w.WorkerID, Jobs: []lockedJobJSON{}, Queues: append([]string{}, w.Queues...)}
		for _, j := range w.Jobs {
			one.Jobs = append(one.Jobs, lockedJobJSON{
				ID: j.ID, Task: j.Task, Attempts: j.Attempts, MaxAttempts: j.MaxAttempts, LockedForSeconds: j.LockedFor.Seconds(),
			})
		}
		printed.Workers = append(printed.Workers, one)
	}
	return printed
}
