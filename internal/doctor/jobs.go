package doctor

import (
	"context"
	"fmt"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/elapsed"
)

func checkFailedJobs(ctx context.Context, c *checker) (Finding, error) {
	row, err := c.jobs(ctx)
	if err != nil {
		return Finding{}, err
	}
	if row.Failed == 0 {
		return ok("No job has failed permanently."), nil
	}
	tasks, err := get(ctx, c, func(q *dbgen.Queries, ctx context.Context) ([]dbgen.DoctorFailedTasksRow, error) {
		return q.DoctorFailedTasks(ctx, namedThings+1)
	})
	if err != nil {
		return Finding{}, err
	}
	var said []string
	for _, t := range tasks {
		said = append(said, fmt.Sprintf("%s (%s)", t.Task, grouped(t.Jobs)))
	}
	if len(said) > namedThings {
		said = append(said[:namedThings], "others") // their number would cost another walk
	}
	severity := Note
	if row.Failed >= manyFailed {
		severity = Warning
	}
	const failed = "attempts >= max_attempts and locked_at is null"
	ids := fmt.Sprintf("array(select id from %s where %s)", c.qualified("jobs"), failed)
	return Finding{
		Severity: severity,
		What: fmt.Sprintf("%s failed permanently, the first %s ago and the last %s ago: %s.",
			plural64(row.Failed, "job has", "jobs have"), age(elapsed.Seconds(row.OldestFailure)), age(elapsed.Seconds(row.NewestFailure)), join(said)),
		Why: "They have used up their attempts and stay until you retry or delete them. Among them may be jobs that were replaced or removed by key while they ran.",
		Help: []string{
			fmt.Sprintf("select task_identifier, count(*), min(last_error) from %s where %s group by 1;", c.qualified("jobs"), failed),
			"-- To run them again:",
			fmt.Sprintf("select %s(%s, run_at => now(), attempts => 0);", c.qualified("reschedule_jobs"), ids),
			"-- To delete them:",
			fmt.Sprintf("select %s(%s);", c.qualified("complete_jobs"), ids),
		},
	}, nil
}

func checkLatency(ctx context.Context, c *checker) (Finding, error) {
	row, err := c.jobs(ctx)
	if err != nil {
		return Finding{}, err
	}
	waiting, err := c.waiting(ctx)
	if err != nil {
		return Finding{}, err
	}
	others := fmt.Sprintf("%s running, %s for later.", plural64(row.Running, "is", "are"), plural64(row.Later, "is", "are"))
	if len(waiting) == 0 {
		return ok("No job waits to be run; " + others), nil
	}
	var jobs int64
	for _, t := range waiting {
		jobs += t.Jobs
	}
	longest := waiting[0]
	what := fmt.Sprintf("%s to be run, the longest for %s (task %s); %s",
		plural64(jobs, "job waits", "jobs wait"), age(elapsed.Seconds(longest.Seconds)), longest.Task, others)
	severity := byAge(elapsed.Seconds(longest.Seconds), longWait, tooLongWait)
	if severity == OK {
		return ok(what), nil
	}
	f := Finding{
		Severity: severity,
		What:     what,
		Why:      "No worker runs, none has these tasks or may run jobs with their flags, or all are busy.",
		Help: []string{
			"Start workers, or give them more --jobs.",
			fmt.Sprintf("select task_identifier, count(*), min(run_at) from %s where locked_at is null and attempts < max_attempts and run_at <= now() group by 1 order by 3;",
				c.qualified("jobs")),
		},
	}
	if c.readable(tableWorkers) {
		alive, _, err := c.workers(ctx)
		if err != nil {
			return Finding{}, err
		}
		f.What += fmt.Sprintf(" %s registered.", plural(len(alive), "worker that lives is", "workers that live are"))
	}
	return f, nil
}
