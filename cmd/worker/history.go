package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/history"
	"github.com/gworker/gworker/internal/terminal"
)

// eventFlags are the fields of a filter of events as flags, and how to print.
type eventFlags struct {
	tasks, kinds       []string
	since, until       string
	errorPart          string
	queue, key, worker string
	limit              int
	cursor             string
	json               bool
}

func newHistoryCommand(shared *sharedFlags) *cobra.Command {
	var f eventFlags
	cmd := &cobra.Command{
		Use:   "history [ID]",
		Short: "Print what happened to a job, or to all",
		Long: `history ID prints what happened to a job, also when the job is gone. Without an ID
it lists events of all jobs, the latest first.

Workers record each run that did not complete, and keep that for 7 days (see
--history and --history-retention of "worker run"). That a job completed is not
recorded by itself: "worker stats --since 24h" counts those.

The kinds are:
  failed, timed_out   the run failed, and the job is tried again
  permanently_failed  the run failed, and the job is not tried again
  cancelled           the job was cancelled while it ran
  snoozed             the handler has put the job off
  lost                the worker had lost the job when its run ended
  recovered           the job's worker was dead, and the job was put back
and what administrators did to jobs: retry, cancel, reschedule, complete, fail,
force_unlock and cleanup. Who did that, and for whom (--as), is in the details.`,
		Example: `  worker history 17
  worker history --since 1h --task send_email --error timeout
  worker history --kind permanently_failed --json | jq .events[].job_id`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return f.ofJob(cmd, shared, args[0])
			}
			filter, err := f.filter(time.Now())
			if err != nil {
				return usageError{command: cmd.CommandPath(), err: err}
			}
			return shared.withRows(cmd.Context(), func(client *gworker.Client) error {
				page, err := client.Events(cmd.Context(), filter)
				if err != nil {
					return err
				}
				if f.json {
					return printJSON(shared.std.out, eventsJSON{Events: jsonEvents(page.Events), NextCursor: page.NextCursor})
				}
				return printEvents(shared.std.out, page)
			})
		},
		ValidArgsFunction: completeJobIDs(shared),
	}
	flags := cmd.Flags()
	listVar(flags, &f.tasks, "task", "task identifier")
	listVar(flags, &f.kinds, "kind", "kind of event")
	flags.StringVar(&f.since, "since", "", "recorded then or later: a time, or how long ago (24h)")
	flags.StringVar(&f.until, "until", "", "recorded before: a time, or how long ago")
	flags.StringVar(&f.errorPart, "error", "", "part of the error, in upper or lower case")
	flags.StringVar(&f.queue, "queue", "", "named queue")
	flags.StringVar(&f.key, "key", "", "job key")
	flags.StringVar(&f.worker, "worker", "", "id of the worker whose run it was")
	flags.IntVar(&f.limit, "limit", 0, "most events to print (default 100)")
	flags.StringVar(&f.cursor, "cursor", "", "continue where a listing with the same conditions ended")
	flags.BoolVar(&f.json, "json", false, "print the events as JSON")
	complete(cmd, "kind", words(kindWords()...))
	complete(cmd, "task", completeTasks(shared))
	cmd.AddCommand(newHistorySizeCommand(shared), newHistoryUninstallCommand(shared))
	return cmd
}

func (f eventFlags) filter(now time.Time) (history.Filter, error) {
	filter := history.Filter{
		Tasks: f.tasks, Queue: f.queue, Key: f.key, WorkerID: f.worker, Error: f.errorPart, Limit: f.limit, Cursor: f.cursor,
	}
	for _, kind := range f.kinds {
		if !slices.Contains(history.Kinds, history.Kind(kind)) {
			return filter, fmt.Errorf("--kind is %q: it can be %s", kind, strings.Join(kindWords(), ", "))
		}
		filter.Kinds = append(filter.Kinds, history.Kind(kind))
	}
	var err error
	if filter.Since, err = parsePast("--since", f.since, now); err != nil {
		return filter, err
	}
	filter.Until, err = parsePast("--until", f.until, now)
	return filter, err
}

// ofJob prints the history of one job.
func (f eventFlags) ofJob(cmd *cobra.Command, shared *sharedFlags, arg string) error {
	id, err := strconv.ParseInt(arg, 10, 64)
	if err != nil {
		return usageError{command: cmd.CommandPath(), err: fmt.Errorf("%q is not the id of a job: ids are numbers", arg)}
	}
	for _, flag := range []string{"task", "kind", "since", "until", "error", "queue", "key", "worker", "limit", "cursor"} {
		if cmd.Flags().Changed(flag) {
			return usageError{command: cmd.CommandPath(), err: fmt.Errorf("--%s is for events of all jobs: leave it out, or the id", flag)}
		}
	}
	return shared.withRows(cmd.Context(), func(client *gworker.Client) error {
		found, err := client.JobHistory(cmd.Context(), id)
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(shared.std.out, jsonJobHistory(found))
		}
		return printJobHistory(shared.std.out, id, found)
	})
}

func printJobHistory(out io.Writer, id int64, found gworker.JobHistory) error {
	if found.Job != nil {
		terminal.Fprintf(out, "job %d (%s) is %s, after %d of %d attempts; it was added %s\n",
			id, found.Job.Task, found.Job.State, found.Job.Attempts, found.Job.MaxAttempts, absolute(found.Job.CreatedAt, found.Job.ReadAt))
	} else {
		terminal.Fprintf(out, "job %d (%s) is gone: it has completed, or was removed\n", id, found.Events[len(found.Events)-1].Task)
	}
	if len(found.Events) == 0 {
		_, err := fmt.Fprintln(out, "nothing is recorded about it")
		return err
	}
	t := table{head: []string{"at", "what", "attempt", "waited", "ran", "worker", "next run", "note"}}
	for _, e := range found.Events {
		t.add(e.At.Local().Format("2006-01-02 15:04:05.000"), string(e.Kind), attempt(e), ranFor(e.Waited), ranFor(e.Ran), e.WorkerID, nextOf(e), cell(eventNote(e), 70))
	}
	if err := t.print(out); err != nil {
		return fmt.Errorf("printing the history of job %d: %w", id, err)
	}
	return nil
}

func printEvents(out io.Writer, page history.Page) error {
	if len(page.Events) == 0 {
		_, err := fmt.Fprintln(out, "no events")
		return err
	}
	t := table{head: []string{"at", "what", "job", "task", "queue", "key", "attempt", "waited", "ran", "next run", "note"}}
	for _, e := range page.Events {
		t.add(e.At.Local().Format("2006-01-02 15:04:05.000"), string(e.Kind), number(e.JobID), cell(e.Task, 40), cell(e.Queue, 30), cell(e.Key, 30),
			attempt(e), ranFor(e.Waited), ranFor(e.Ran), nextOf(e), cell(eventNote(e), 70))
	}
	if err := t.print(out); err != nil {
		return fmt.Errorf("printing events: %w", err)
	}
	if page.NextCursor != "" {
		terminal.Fprintf(out, "\n%s; there are more: --cursor %s\n", counted(len(page.Events), "event"), page.NextCursor)
	}
	return nil
}

func attempt(e history.Event) string {
	if e.Attempt == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", e.Attempt, e.MaxAttempts)
}

// eventNote is the error of a run, or who did what and why.
func eventNote(e history.Event) string {
	var d struct {
		By           string `json:"by"`
		OSUser       string `json:"os_user"`
		DatabaseUser string `json:"database_user"`
		Reason       string `json:"reason"`
		Count        int    `json:"count"`
	}
	if e.Error != "" || json.Unmarshal(e.Details, &d) != nil || d.DatabaseUser == "" {
		return oneLine(e.Error)
	}
	note := "by " + cmp.Or(d.By, d.OSUser) + " as " + d.DatabaseUser
	if d.Count > 1 {
		note = counted(d.Count, "job") + ", " + note
	}
	if d.Reason != "" {
		note += ": " + oneLine(d.Reason)
	}
	return note
}

// ranFor is a short duration with three digits.
func ranFor(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return span(d)
}

// nextOf is when a job was to run again, after the event.
func nextOf(e history.Event) string {
	if e.NextRunAt.IsZero() {
		return ""
	}
	return "after " + span(max(0, e.NextRunAt.Sub(e.At)))
}

func newHistorySizeCommand(shared *sharedFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "size",
		Short: "Print how large the tables of history are",
		Long: `size prints the tables of history with their rows, as the database estimates them,
and their sizes with indexes. Events have a table for each day, which is dropped as a
whole when it is too old.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return shared.withRows(cmd.Context(), func(client *gworker.Client) error {
				sizes, err := client.HistorySize(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(shared.std.out, struct {
						Tables []gworker.HistorySize `json:"tables"`
					}{sizes})
				}
				return printSizes(shared.std.out, sizes)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the tables as JSON")
	return cmd
}

func printSizes(out io.Writer, sizes []gworker.HistorySize) error {
	if len(sizes) == 0 {
		_, err := fmt.Fprintln(out, "there are no tables of history")
		return err
	}
	t := table{head: []string{"table", "rows", "size"}}
	rows, bytes := int64(0), int64(0)
	for _, s := range sizes {
		t.add(s.Table, strconv.FormatInt(s.Rows, 10), sizeText(s.Bytes))
		rows, bytes = rows+s.Rows, bytes+s.Bytes
	}
	t.add("all", strconv.FormatInt(rows, 10), sizeText(bytes))
	if err := t.print(out); err != nil {
		return fmt.Errorf("printing sizes: %w", err)
	}
	return nil
}

func sizeText(bytes int64) string {
	const unit = 1024
	switch {
	case bytes < unit*unit:
		return fmt.Sprintf("%d KiB", bytes/unit)
	case bytes < unit*unit*unit:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/unit/unit)
	}
	return fmt.Sprintf("%.1f GiB", float64(bytes)/unit/unit/unit)
}

func newHistoryUninstallCommand(shared *sharedFlags) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Drop the tables of history with all that is recorded",
		Long: `uninstall drops the tables and functions of history with all that is recorded. Jobs
are not touched, and workers that run go on. Start workers with --history off, or
the next one makes the tables again.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return usageError{command: cmd.CommandPath(), err: errors.New("this drops all that is recorded: say --yes")}
			}
			client, err := shared.client()
			if err != nil {
				return err
			}
			defer client.Close()
			if err := client.UninstallHistory(cmd.Context()); err != nil {
				return err
			}
			_, err = fmt.Fprintln(shared.std.out, "the tables of history are gone")
			return err
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

func kindWords() []string {
	kinds := make([]string, len(history.Kinds))
	for i, kind := range history.Kinds {
		kinds[i] = string(kind)
	}
	return kinds
}
