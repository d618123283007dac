package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/terminal"
)

// listFlags are the fields of a filter as flags, and how to print.
type listFlags struct {
	states, tasks, queues, keys, workers, flags []string
	noQueue                                     bool
	errorContains                               string
	minPriority, maxPriority                    int
	runAtFrom, runAtBefore                      string
	createdSince, createdBefore                 string
	updatedSince, updatedBefore                 string
	order, cursor                               string
	limit                                       int
	all, ids, payload, json                     bool
}

func newListCommand(shared *sharedFlags) *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List jobs",
		Long: `list prints jobs, 100 at most unless --limit or --all says otherwise. For an
option that is repeated, a job matches if one of the values does; of several --flag
it must have all. Commas separate values too; put a value that contains a comma in
double quotes (--key '"user 7, mail"').

The states are:
  scheduled  its time has not come, and it has not been tried
  ready      a worker that has the task can start it now
  blocked    its time has come, and its queue is locked by another job
  running    a worker has locked it
  retrying   it has been tried, and waits for its next time
  failed     it has used up its attempts, and no worker will run it

A job that a gworker holds by a transaction instead of locking it, for at most its
hold time (see "worker run --help"), is ready here: only the worker's own process
knows that it is running.`,
		Example: `  worker list --state failed --order newest
  worker list --state failed --updated-since 24h --error timeout
  worker list --state ready --order next --task send_email
  worker list --state failed,retrying --task send_email,send_sms
  worker list --state failed --all --ids | worker retry -`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := f.filter(cmd.Flags().Changed, time.Now())
			if err != nil {
				return usageError{command: cmd.CommandPath(), err: err}
			}
			return shared.withRows(cmd.Context(), func(client *gworker.Client) error {
				if f.ids {
					return f.printIDs(cmd.Context(), client, filter, shared.std)
				}
				page, err := f.read(cmd.Context(), client, filter)
				if err != nil {
					return err
				}
				if f.json {
					return printJSON(shared.std.out, listJSON{Jobs: jsonJobs(page.Jobs), NextCursor: page.NextCursor})
				}
				return printJobs(shared.std.out, page)
			})
		},
	}
	flags := cmd.Flags()
	listVar(flags, &f.states, "state", "scheduled, ready, blocked, running, retrying or failed")
	listVar(cmd.Flags(), &f.tasks, "task", "task identifier")
	listVar(cmd.Flags(), &f.queues, "queue", "named queue")
	flags.BoolVar(&f.noQueue, "no-queue", false, "jobs without a queue")
	listVar(cmd.Flags(), &f.keys, "key", "job key")
	listVar(cmd.Flags(), &f.workers, "worker", "id of a worker that has locked the job")
	listVar(cmd.Flags(), &f.flags, "flag", "flag of the job; it must have all that are given")
	flags.StringVar(&f.errorContains, "error", "", "part of the last error, in upper or lower case")
	flags.IntVar(&f.minPriority, "min-priority", 0, "lowest priority number")
	flags.IntVar(&f.maxPriority, "max-priority", 0, "highest priority number")
	flags.StringVar(&f.runAtFrom, "run-at-from", "", "runs then or later: a time or a duration from now (10m, -1h)")
	flags.StringVar(&f.runAtBefore, "run-at-before", "", "runs before: a time or a duration from now")
	flags.StringVar(&f.createdSince, "created-since", "", "added then or later: a time, or how long ago (24h)")
	flags.StringVar(&f.createdBefore, "created-before", "", "added before: a time, or how long ago")
	flags.StringVar(&f.updatedSince, "updated-since", "", "last changed, as by a failure, then or later: a time, or how long ago")
	flags.StringVar(&f.updatedBefore, "updated-before", "", "last changed before: a time, or how long ago")
	flags.StringVar(&f.order, "order", "id", "id (oldest first), newest, or next (as workers look at waiting jobs)")
	flags.IntVar(&f.limit, "limit", 0, fmt.Sprintf("most jobs to print (default %d)", gworker.DefaultPageSize))
	flags.BoolVar(&f.all, "all", false, "print all jobs, however many")
	flags.StringVar(&f.cursor, "cursor", "", "continue where a listing in the same order ended")
	flags.BoolVar(&f.ids, "ids", false, "print only the ids, one per line")
	flags.BoolVar(&f.payload, "payload", false, "print the payloads too")
	flags.BoolVar(&f.json, "json", false, "print the jobs as JSON")
	complete(cmd, "state", words(stateWords()...))
	complete(cmd, "task", completeTasks(shared))
	complete(cmd, "queue", completeQueues(shared))
	complete(cmd, "worker", completeWorkers(shared))
	complete(cmd, "order", words(string(gworker.OrderByID), string(gworker.OrderNewestFirst), string(gworker.OrderNext)))
	return cmd
}

func (f listFlags) filter(given func(string) bool, now time.Time) (gworker.JobFilter, error) {
	filter := gworker.JobFilter{
		Tasks: f.tasks, Queues: f.queues, Keys: f.keys, Workers: f.workers, Flags: f.flags, ErrorContains: f.errorContains,
		Order: gworker.JobOrder(f.order), Limit: f.limit, Cursor: f.cursor, WithPayload: f.payload,
	}
	for _, s := range f.states {
		filter.States = append(filter.States, gworker.JobState(s))
	}
	if f.noQueue {
		filter.Queues = append(filter.Queues, "")
	}
	if given("min-priority") {
		filter.MinPriority = &f.minPriority
	}
	if given("max-priority") {
		filter.MaxPriority = &f.maxPriority
	}
	switch {
	case f.all && given("limit"):
		return filter, errors.New("give --all or --limit")
	case f.ids && f.json:
		return filter, errors.New("give --ids or --json")
	case given("limit") && f.limit == 0:
		return filter, fmt.Errorf("--limit is 0: it can be 1 to %d", gworker.MaxPageSize)
	}
	for _, t := range []struct {
		flag, text string
		parse      func(flag, text string, now time.Time) (time.Time, error)
		into       *time.Time
	}{
		{"--run-at-from", f.runAtFrom, parseTime, &filter.RunAt.From},
		{"--run-at-before", f.runAtBefore, parseTime, &filter.RunAt.Before},
		{"--created-since", f.createdSince, parsePast, &filter.CreatedAt.From},
		{"--created-before", f.createdBefore, parsePast, &filter.CreatedAt.Before},
		{"--updated-since", f.updatedSince, parsePast, &filter.UpdatedAt.From},
		{"--updated-before", f.updatedBefore, parsePast, &filter.UpdatedAt.Before},
	} {
		var err error
		if *t.into, err = t.parse(t.flag, t.text, now); err != nil {
			return filter, err
		}
	}
	return filter, nil
}

// read reads one page, or all of them as one.
func (f listFlags) read(ctx context.Context, client *gworker.Client, filter gworker.JobFilter) (gworker.JobPage, error) {
	if !f.all {
		return client.ListJobs(ctx, filter)
	}
	var whole gworker.JobPage
	err := f.each(ctx, client, filter, func(page gworker.JobPage) error {
		whole.Jobs = append(whole.Jobs, page.Jobs...)
		return nil
	})
	return whole, err
}

// each reads page by page to the end.
func (f listFlags) each(ctx context.Context, client *gworker.Client, filter gworker.JobFilter, do func(gworker.JobPage) error) error {
	filter.Limit = 5000
	for {
		page, err := client.ListJobs(ctx, filter)
		if err != nil {
			return err
		}
		if err := do(page); err != nil {
			return err
		}
		if filter.Cursor = page.NextCursor; filter.Cursor == "" {
			return nil
		}
	}
}

// printIDs prints what other commands read. That there are more goes to stderr.
func (f listFlags) printIDs(ctx context.Context, client *gworker.Client, filter gworker.JobFilter, std stdio) error {
	write := func(page gworker.JobPage) error {
		for _, job := range page.Jobs {
			if _, err := fmt.Fprintln(std.out, job.ID); err != nil {
				return fmt.Errorf("printing ids: %w", err)
			}
		}
		return nil
	}
	if f.all {
		return f.each(ctx, client, filter, write)
	}
	page, err := client.ListJobs(ctx, filter)
	if err != nil {
		return err
	}
	if page.NextCursor != "" {
		terminal.Fprintf(std.err, "worker: there are more than these %s: --all prints the others, too\n", counted(len(page.Jobs), "job"))
	}
	return write(page)
}

type listJSON struct {
	Jobs       []jobJSON `json:"jobs"`
	NextCursor string    `json:"next_cursor,omitempty"`
}

func printJobs(out io.Writer, page gworker.JobPage) error {
	if len(page.Jobs) == 0 {
		_, err := fmt.Fprintln(out, "no jobs")
		return err
	}
	t := table{head: []string{"id", "state", "task", "queue", "key", "priority", "run at", "attempts", "note", "payload"}}
	withPriority := slices.ContainsFunc(page.Jobs, func(job *gworker.JobInfo) bool { return job.Priority != 0 })
	for _, job := range page.Jobs {
		priority := ""
		if withPriority {
			priority = strconv.Itoa(job.Priority)
		}
		t.add(strconv.FormatInt(job.ID, 10), string(job.State), cell(job.Task, 40), cell(job.Queue, 30), cell(job.Key, 30), priority,
			nextRun(job), fmt.Sprintf("%d/%d", job.Attempts, job.MaxAttempts), cell(note(job), 70), cell(compact(job.Payload), 70))
	}
	if err := t.print(out); err != nil {
		return fmt.Errorf("printing jobs: %w", err)
	}
	if page.NextCursor != "" {
		terminal.Fprintf(out, "\n%s; there are more: add --all, or --cursor %s\n", counted(len(page.Jobs), "job"), page.NextCursor)
	}
	return nil
}

// nextRun is when a job runs, relative to when it was read; a failed one does not run.
func nextRun(job *gworker.JobInfo) string {
	if job.State == gworker.StateFailed {
		return ""
	}
	return relative(job.RunAt, job.ReadAt)
}

// note is the most important detail of a job in its state.
func note(job *gworker.JobInfo) string {
	switch job.State {
	case gworker.StateRunning:
		return fmt.Sprintf("by %s for %s", job.LockedBy, span(job.ReadAt.Sub(job.LockedAt)))
	case gworker.StateBlocked:
		if job.QueueLockedBy == "" {
			return "the row of its queue is missing"
		}
		return "queue locked by " + job.QueueLockedBy
	default:
		return oneLine(job.LastError)
	}
}

// compact is JSON on one line, or the text if it is not valid JSON.
func compact(payload json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, payload) != nil {
		return string(payload)
	}
	return b.String()
}
