package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/history"
	"github.com/gworker/gworker/internal/terminal"
)

func newStatsCommand(shared *sharedFlags) *cobra.Command {
	var f statsFlags
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Count jobs by state, task and queue, or what became of them",
		Long: `stats counts all jobs by state, by task, and for the named queues that have the
most jobs. "worker list --help" explains the states. The longest wait is that of
the oldest ready job, since its time came or since it was added.

With --since it counts what has run since then instead, from history: how many runs
of each task completed and failed, how long jobs waited from their time on, and how
long they ran. Half of them did not exceed p50, 99 % did not exceed p99. Workers
write that once a minute.`,
		Example: `  worker stats
  worker stats --json | jq .jobs.failed
  worker stats --since 24h
  worker stats --since 7d --by day --task send_email`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ran, err := f.ran(cmd, time.Now())
			if err != nil {
				return usageError{command: cmd.CommandPath(), err: err}
			}
			return shared.withRows(cmd.Context(), func(client *gworker.Client) error {
				if ran != nil {
					return printRan(cmd.Context(), shared.std.out, client, *ran, f.json)
				}
				stats, err := client.Stats(cmd.Context(), gworker.StatsOptions{MaxQueues: f.maxQueues})
				if err != nil {
					return err
				}
				if f.json {
					return printJSON(shared.std.out, jsonStats(stats))
				}
				return printStats(shared.std.out, stats)
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&f.maxQueues, "max-queues", 0, "how many queues to print, -1 for none (default 20)")
	flags.StringVar(&f.since, "since", "", "count what has run since: a time, or how long ago (24h)")
	flags.StringVar(&f.until, "until", "", "with --since, until then: a time, or how long ago")
	listVar(flags, &f.tasks, "task", "with --since, task identifier")
	flags.StringVar(&f.by, "by", "", "with --since, a row for each minute, hour or day, in UTC")
	flags.BoolVar(&f.json, "json", false, "print the numbers as JSON")
	complete(cmd, "task", completeTasks(shared))
	complete(cmd, "by", words(string(history.Minute), string(history.Hour), string(history.Day)))
	return cmd
}

var countsHead = []string{"scheduled", "ready", "blocked", "running", "retrying", "failed", "longest wait"}

func countsCells(c gworker.JobCounts, wait time.Duration) []string {
	waited := ""
	if c.Ready > 0 {
		waited = span(wait)
	}
	return []string{number(c.Scheduled), number(c.Ready), number(c.Blocked), number(c.Running), number(c.Retrying), number(c.Failed), waited}
}

func printStats(out io.Writer, stats gworker.Stats) error {
	terminal.Fprintf(out, "%s\n", summary(stats))
	tasks := table{head: append([]string{"task"}, countsHead...)}
	for _, t := range stats.Tasks {
		tasks.add(append([]string{cell(t.Task, 40)}, countsCells(t.JobCounts, t.LongestWait)...)...)
	}
	queues := table{head: append([]string{"queue"}, countsHead...)}
	for _, q := range stats.Queues {
		queues.add(append([]string{cell(q.Queue, 40)}, countsCells(q.JobCounts, q.LongestWait)...)...)
	}
	for _, t := range []table{tasks, queues} {
		if len(t.rows) == 0 {
			continue
		}
		fmt.Fprintln(out)
		if err := t.print(out); err != nil {
			return fmt.Errorf("printing the numbers: %w", err)
		}
	}
	return nil
}

// summary is one line about all jobs.
func summary(stats gworker.Stats) string {
	if stats.Total() == 0 {
		return "no jobs"
	}
	var parts []string
	for _, p := range []struct {
		n    int64
		name gworker.JobState
	}{
		{stats.Scheduled, gworker.StateScheduled}, {stats.Ready, gworker.StateReady}, {stats.Blocked, gworker.StateBlocked},
		{stats.Running, gworker.StateRunning}, {stats.Retrying, gworker.StateRetrying}, {stats.Failed, gworker.StateFailed},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.name))
		}
	}
	line := fmt.Sprintf("%s: %s", counted(int(stats.Total()), "job"), strings.Join(parts, ", "))
	if stats.Ready > 0 {
		line += "; the longest wait is " + span(stats.LongestWait)
	}
	return line
}

type countsJSON struct {
	Scheduled          int64   `json:"scheduled"`
	Ready              int64   `json:"ready"`
	Blocked            int64   `json:"blocked"`
	Running            int64   `json:"running"`
	Retrying           int64   `json:"retrying"`
	Failed             int64   `json:"failed"`
	Total              int64   `json:"total"`
	LongestWaitSeconds float64 `json:"longest_wait_seconds"`
}

func jsonCounts(c gworker.JobCounts, wait time.Duration) countsJSON {
	return countsJSON{
		Scheduled: c.Scheduled, Ready: c.Ready, Blocked: c.Blocked, Running: c.Running, Retrying: c.Retrying, Failed: c.Failed,
		Total: c.Total(), LongestWaitSeconds: wait.Seconds(),
	}
}

type statsJSON struct {
	Jobs   countsJSON       `json:"jobs"`
	Tasks  []taskStatsJSON  `json:"tasks"`
	Queues []queueStatsJSON `json:"queues"`
}

type taskStatsJSON struct {
	Task string `json:"task_identifier"`
	countsJSON
}

type queueStatsJSON struct {
	Queue string `json:"queue_name"`
	countsJSON
}

func jsonStats(stats gworker.Stats) statsJSON {
	printed := statsJSON{Jobs: jsonCounts(stats.JobCounts, stats.LongestWait), Tasks: []taskStatsJSON{}, Queues: []queueStatsJSON{}}
	for _, t := range stats.Tasks {
		printed.Tasks = append(printed.Tasks, taskStatsJSON{Task: t.Task, countsJSON: jsonCounts(t.JobCounts, t.LongestWait)})
	}
	for _, q := range stats.Queues {
		printed.Queues = append(printed.Queues, queueStatsJSON{Queue: q.Queue, countsJSON: jsonCounts(q.JobCounts, q.LongestWait)})
	}
	return printed
}
