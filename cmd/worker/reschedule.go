package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/program"
)

type rescheduleFlags struct {
	runAt       string
	priority    int
	attempts    int
	maxAttempts int
}

func newRescheduleCommand(shared *sharedFlags) *cobra.Command {
	var f rescheduleFlags
	cmd := &cobra.Command{
		Use:   "reschedule ID...",
		Short: "Change when jobs run, their priority or their attempts",
		Long: `reschedule changes when jobs run, their priority or their attempts. A failed job
has used up its attempts: "worker retry" runs it again.

With - as an argument it reads ids from standard input.

A job that a worker runs is left alone, unless it has been locked for more than
4 hours. The exit status is 1 if a job was left out.`,
		Example: `  worker reschedule 17 --run-at 2h --priority -10
  worker list --state retrying --task send_email --all --ids | worker reschedule - --max-attempts 50`,
		Args:              someArgs("the ids of the jobs"),
		ValidArgsFunction: completeJobIDs(shared),
	}
	c := &change{shared: shared, verb: "reschedule", done: "rescheduled"}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		options, err := f.options(cmd.Flags().Changed)
		if err != nil {
			return usageError{command: cmd.CommandPath(), err: err}
		}
		c.call = func(ctx context.Context, client *gworker.Client, ids []int64) (gworker.ChangedJobs, error) {
			return client.RescheduleJobs(ctx, ids, options)
		}
		c.tell = func(job *gworker.JobInfo, dryRun bool) string { return tellRescheduled(job, options, dryRun) }
		return c.run(cmd, args)
	}
	flags := cmd.Flags()
	flags.StringVar(&f.runAt, "run-at", "", "when to run: now, a time (2027-01-01T06:00:00Z), a date, or a duration from now (10m, 1d)")
	flags.IntVar(&f.priority, "priority", 0, "lower numbers run first")
	flags.IntVar(&f.attempts, "attempts", 0, "how many attempts the jobs count as having had")
	flags.IntVar(&f.maxAttempts, "max-attempts", 0, "how often to try before the jobs stay failed")
	c.flags(cmd)
	return cmd
}

func (f rescheduleFlags) options(given func(string) bool) (gworker.RescheduleOptions, error) {
	var o gworker.RescheduleOptions
	for name, set := range map[string]func(){
		"priority":     func() { o.Priority = &f.priority },
		"attempts":     func() { o.Attempts = &f.attempts },
		"max-attempts": func() { o.MaxAttempts = &f.maxAttempts },
	} {
		if given(name) {
			set()
		}
	}
	if given("run-at") {
		at := time.Time{} // the database's now
		if f.runAt != "now" {
			var err error
			if at, err = parseTime("--run-at", f.runAt, time.Now()); err != nil {
				return o, err
			}
			if at.IsZero() {
				return o, errors.New("--run-at is empty: give now, a time or a duration")
			}
		}
		o.RunAt = &at
	}
	if o == (gworker.RescheduleOptions{}) {
		return o, errors.New("say what to change: --run-at, --priority, --attempts or --max-attempts")
	}
	return o, nil
}

// tellRescheduled describes when a job runs, or would run.
func tellRescheduled(job *gworker.JobInfo, o gworker.RescheduleOptions, dryRun bool) string {
	stays := "it stays failed, since it has used up its attempts: \"" + program.Name + " retry\" runs it again, or give --attempts 0, too"
	if !dryRun {
		if job.State == gworker.StateFailed {
			return stays
		}
		return tellState(job)
	}
	var changes []string
	if o.RunAt != nil {
		to := "now"
		if !o.RunAt.IsZero() {
			to = absolute(*o.RunAt, job.ReadAt)
		}
		changes = append(changes, fmt.Sprintf("run at %s -> %s", absolute(job.RunAt, job.ReadAt), to))
	}
	attempts, most := job.Attempts, job.MaxAttempts
	for _, n := range []struct {
		name string
		was  int
		to   *int
		now  *int
	}{{"priority", job.Priority, o.Priority, new(int)}, {"attempts", job.Attempts, o.Attempts, &attempts}, {"max attempts", job.MaxAttempts, o.MaxAttempts, &most}} {
		if n.to != nil {
			*n.now = *n.to
			changes = append(changes, fmt.Sprintf("%s %d -> %d", n.name, n.was, *n.to))
		}
	}
	if attempts >= most {
		changes = append(changes, stays)
	}
	return strings.Join(changes, ", ")
}
