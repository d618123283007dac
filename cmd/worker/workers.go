package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
)

func newWorkersCommand(shared *sharedFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "workers",
		Short: "List workers of every runtime, and what they have locked",
		Long: `workers prints the workers that are registered and those that have locks, of every
runtime. Node's workers do not register, and Rust's only if recovery is on, so an
idle one of those is not listed. "worker list --worker ID" prints what a worker is
running. Neither shows jobs that a gworker holds without a lock, for at most its
hold time.`,
		Example: `  worker workers`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return shared.withRows(cmd.Context(), func(client *gworker.Client) error {
				workers, err := client.Workers(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(shared.std.out, jsonWorkers(workers))
				}
				return printWorkers(shared.std.out, workers)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the workers as JSON")
	return cmd
}

func printWorkers(out io.Writer, workers []gworker.WorkerInfo) error {
	if len(workers) == 0 {
		_, err := fmt.Fprintln(out, "no workers are registered, and none has a lock")
		return err
	}
	t := table{head: []string{"worker", "runtime", "heartbeat", "host", "pid", "jobs", "queues", "oldest lock", "tasks"}}
	for _, w := range workers {
		heartbeat, oldest := "not registered", ""
		if w.Registered {
			heartbeat = span(w.Silence) + " ago"
		}
		if w.Jobs+w.Queues > 0 {
			oldest = span(w.OldestLock)
		}
		t.add(cell(orDash(w.ID), 60), runtimeName(w), heartbeat, cell(w.Host, 30), number(int64(w.PID)), number(w.Jobs), number(w.Queues), oldest,
			cell(strings.Join(w.Tasks, ", "), 60))
	}
	if err := t.print(out); err != nil {
		return fmt.Errorf("printing workers: %w", err)
	}
	return nil
}

func runtimeName(w gworker.WorkerInfo) string {
	if w.Runtime == "" {
		return "unknown"
	}
	return w.Runtime
}

type workersJSON struct {
	Workers []workerJSON `json:"workers"`
}

type workerJSON struct {
	ID                string          `json:"id"`
	Runtime           string          `json:"runtime"`
	Registered        bool            `json:"registered"`
	StartedAt         time.Time       `json:"started_at,omitzero"`
	LastHeartbeatAt   time.Time       `json:"last_heartbeat_at,omitzero"`
	SilenceSeconds    float64         `json:"silence_seconds,omitempty"`
	Jobs              int64           `json:"jobs"`
	Queues            int64           `json:"queues"`
	OldestLockSeconds float64         `json:"oldest_lock_seconds,omitempty"`
	Metadata          json.RawMessage `json:"metadata,omitempty"`
}

func jsonWorkers(workers []gworker.WorkerInfo) workersJSON {
	printed := workersJSON{Workers: []workerJSON{}}
	for _, w := range workers {
		printed.Workers = append(printed.Workers, workerJSON{
			ID: w.ID, Runtime: runtimeName(w), Registered: w.Registered, StartedAt: w.StartedAt, LastHeartbeatAt: w.LastHeartbeatAt,
			SilenceSeconds: w.Silence.Seconds(), Jobs: w.Jobs, Queues: w.Queues, OldestLockSeconds: w.OldestLock.Seconds(), Metadata: w.Metadata,
		})
	}
	return printed
}
