package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/program"
	"github.com/gworker/gworker/internal/terminal"
)

// change is a command that changes jobs that are named by their ids.
type change struct {
	shared *sharedFlags
	verb   string // "complete"
	done   string // "completed"
	dryRun bool
	json   bool
	each   bool
	// call changes the jobs.
	call func(context.Context, *gworker.Client, []int64) (gworker.ChangedJobs, error)
	// tell adds details about a job that was changed, or would be.
	tell func(job *gworker.JobInfo, dryRun bool) string
}

func (c *change) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "change nothing, and print what would be touched")
	cmd.Flags().BoolVar(&c.json, "json", false, "print the result as JSON")
	cmd.Flags().BoolVarP(&c.each, "verbose", "v", false, fmt.Sprintf("print a line for each job, even if there are more than %d", mostLines))
}

func (c *change) run(cmd *cobra.Command, args []string) error {
	ids, err := idsOf(args, c.shared.std.in)
	if err != nil {
		return usageError{command: cmd.CommandPath(), err: err}
	}
	return c.runIDs(cmd.Context(), ids)
}

func (c *change) runIDs(ctx context.Context, ids []int64) error {
	return c.shared.withRows(ctx, func(client *gworker.Client) error {
		var result gworker.ChangedJobs
		var err error
		if c.dryRun {
			result, err = client.PreviewJobs(ctx, ids)
		} else {
			result, err = c.call(ctx, client, ids)
		}
		if err != nil {
			return err
		}
		if c.json {
			err = printJSON(c.shared.std.out, changesJSON(c.dryRun, result))
		} else {
			c.print(c.shared.std.out, result)
		}
		if err != nil {
			return err
		}
		return untouched(len(result.Untouched), len(ids), c.dryRun)
	})
}

func (c *change) print(out io.Writer, result gworker.ChangedJobs) {
	did := c.done
	if c.dryRun {
		did = "would " + c.verb
	}
	changed, untouched := len(result.Jobs), len(result.Untouched)
	for _, job := range result.Jobs[:c.lines(changed)] {
		terminal.Fprintf(out, "%s job %d (%s): %s\n", did, job.ID, cell(job.Task, 60), c.tell(job, c.dryRun))
	}
	if more := changed - c.lines(changed); more > 0 {
		fmt.Fprintf(out, "... and %d more (--verbose prints each)\n", more)
	}
	for _, u := range result.Untouched[:c.lines(untouched)] {
		terminal.Fprintf(out, "%s\n", whyUntouched(u))
	}
	if more := untouched - c.lines(untouched); more > 0 {
		fmt.Fprintf(out, "... and left out %d more (--verbose prints each)\n", more)
	}
	switch {
	case changed+untouched == 0:
		fmt.Fprintln(out, "no jobs were named: nothing to do")
	case changed+untouched > 1:
		fmt.Fprintf(out, "%s %s", did, counted(changed, "job"))
		if untouched > 0 {
			fmt.Fprintf(out, ", left out %d", untouched)
		}
		fmt.Fprintln(out)
	}
}

// mostLines is how many jobs of each kind are printed one by one.
const mostLines = 20

func (c *change) lines(jobs int) int {
	if c.each {
		return jobs
	}
	return min(jobs, mostLines)
}

func whyUntouched(u gworker.UntouchedJob) string {
	switch {
	case u.Job == nil:
		return fmt.Sprintf("left out job %d: there is no such job (completed jobs are deleted)", u.ID)
	case u.Job.LockedBy == "":
		return fmt.Sprintf("left out job %d: a worker ran it in just this moment; look again", u.ID)
	}
	return fmt.Sprintf("left out job %d (%s): it is locked by %s, for %s; \"%s cancel %d\" ends a running job",
		u.ID, cell(u.Job.Task, 60), cell(u.Job.LockedBy, 60), span(u.Job.ReadAt.Sub(u.Job.LockedAt)), program.Name, u.ID)
}

// untouched is the error of a command that did not change all jobs that were named.
func untouched(left, named int, dryRun bool) error {
	switch {
	case left == 0:
		return nil
	case dryRun:
		return fmt.Errorf("%d of %s would not be touched", left, counted(named, "job"))
	}
	return fmt.Errorf("%d of %s not touched", left, counted(named, "job"))
}

// tellState describes the state of a job.
func tellState(job *gworker.JobInfo) string {
	attempts := fmt.Sprintf("%d of %d attempts", job.Attempts, job.MaxAttempts)
	switch job.State {
	case gworker.StateScheduled, gworker.StateRetrying:
		return fmt.Sprintf("%s, runs %s, %s", job.State, relative(job.RunAt, job.ReadAt), attempts)
	case gworker.StateRunning:
		return fmt.Sprintf("locked by %s for %s, %s", cell(job.LockedBy, 60), span(job.ReadAt.Sub(job.LockedAt)), attempts)
	case gworker.StateBlocked:
		return fmt.Sprintf("blocked, queue %s is locked by %s, %s", cell(job.Queue, 40), cell(job.QueueLockedBy, 60), attempts)
	default:
		return fmt.Sprintf("%s, %s", job.State, attempts)
	}
}

type changeResultJSON struct {
	DryRun     bool            `json:"dry_run"`
	Jobs       []jobJSON       `json:"jobs"`
	NotTouched []untouchedJSON `json:"not_touched"`
}

type untouchedJSON struct {
	ID       int64     `json:"id"`
	Reason   string    `json:"reason"`
	LockedBy string    `json:"locked_by,omitempty"`
	LockedAt time.Time `json:"locked_at,omitzero"`
}

func changesJSON(dryRun bool, result gworker.ChangedJobs) changeResultJSON {
	printed := changeResultJSON{DryRun: dryRun, Jobs: jsonJobs(result.Jobs), NotTouched: []untouchedJSON{}}
	for _, u := range result.Untouched {
		one := untouchedJSON{ID: u.ID, Reason: string(u.Reason)}
		if u.Job != nil {
			one.LockedBy, one.LockedAt = u.Job.LockedBy, u.Job.LockedAt
		}
		printed.NotTouched = append(printed.NotTouched, one)
	}
	return printed
}

func jsonJobs(jobs []*gworker.JobInfo) []jobJSON {
	printed := make([]jobJSON, len(jobs))
	for i, job := range jobs {
		printed[i] = jsonJobInfo(job)
	}
	return printed
}

func jsonJobInfo(job *gworker.JobInfo) jobJSON {
	printed := jsonJob(&job.JobRow)
	printed.State, printed.QueueLockedBy = string(job.State), job.QueueLockedBy
	return printed
}
