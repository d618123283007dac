package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/history"
)

// statsFlags are the options of stats. All but two are about what has run.
type statsFlags struct {
	maxQueues        int
	since, until, by string
	tasks            []string
	json             bool
}

// ran are the options of what has run; nil if that was not asked for.
func (f statsFlags) ran(cmd *cobra.Command, now time.Time) (*history.StatsOptions, error) {
	flags := cmd.Flags()
	if !flags.Changed("since") {
		for _, flag := range []string{"until", "task", "by"} {
			if flags.Changed(flag) {
				return nil, fmt.Errorf("--%s goes with --since", flag)
			}
		}
		return nil, nil
	}
	if flags.Changed("max-queues") {
		return nil, errors.New("give --since or --max-queues: history knows no queues")
	}
	o := &history.StatsOptions{Tasks: f.tasks, By: history.Interval(f.by)}
	if intervals := []string{"", "minute", "hour", "day"}; !slices.Contains(intervals, f.by) {
		return nil, fmt.Errorf("--by is %q: it can be minute, hour or day", f.by)
	}
	var err error
	if o.Since, err = parsePast("--since", f.since, now); err != nil {
		return nil, err
	}
	if o.Until, err = parsePast("--until", f.until, now); err != nil {
		return nil, err
	}
	if !o.Until.IsZero() && !o.Since.Before(o.Until) {
		return nil, errors.New("--since is not before --until")
	}
	return o, nil
}

func printRan(ctx context.Context, out io.Writer, client *gworker.Client, o history.StatsOptions, asJSON bool) error {
	stats, err := client.TaskStats(ctx, o)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out, struct {
			Tasks []ranJSON `json:"tasks"`
		}{jsonRan(stats)})
	}
	if len(stats) == 0 {
		_, err := fmt.Fprintln(out, "nothing has run, as far as is recorded")
		return err
	}
	t := table{head: []string{
		"since (UTC)", "task", "completed", "failed", "failed for good", "returned", "snoozed",
		"waited p50", "p90", "p99", "ran p50", "p90", "p99",
	}}
	for _, s := range stats {
		since := ""
		switch o.By {
		case history.Whole:
		case history.Day:
			since = s.Since.UTC().Format(time.DateOnly)
		default:
			since = s.Since.UTC().Format("2006-01-02 15:04")
		}
		t.add(since, cell(s.Task, 40), strconv.FormatInt(s.Completed, 10), number(s.Failed), number(s.PermanentlyFailed), number(s.Returned), number(s.Snoozed),
			ranFor(s.Waited.P50), ranFor(s.Waited.P90), ranFor(s.Waited.P99), ranFor(s.Ran.P50), ranFor(s.Ran.P90), ranFor(s.Ran.P99))
	}
	if err := t.print(out); err != nil {
		return fmt.Errorf("printing statistics: %w", err)
	}
	return nil
}
