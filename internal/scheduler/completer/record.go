package completer

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/history"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
)

// count counts an end that the database has.
func (o *Outcomes) count(e Result, w Written) {
	if o.history == nil || e.Unstarted {
		return
	}
	end := history.Failed
	switch {
	case e.Outcome.Kind == job.Completed:
		end = history.Completed
	case w.cancelled != nil || w.Permanent:
		end = history.PermanentlyFailed
	case e.Outcome.Kind == job.Returned:
		end = history.Returned
	case e.Outcome.Kind == job.Snoozed:
		end = history.Snoozed
	}
	o.history.Ran(e.Job.Task, end, e.Waited, e.Duration)
}

// Records reports whether events are recorded at present.
func (o *Outcomes) Records() bool { return o.history.Records() }

// Events are the events of ends that are just being written, for the same transaction. nil
// is none.
func (o *Outcomes) Events(part []Result) *dbgen.RecordRunsParams {
	if o.history == nil {
		return nil
	}
	var runs []history.Run
	for _, e := range part {
		run := history.Run{JobID: e.Job.ID, Task: e.Job.Task, Attempt: e.Job.Attempts, Waited: e.Waited, Ran: e.Duration}
		switch {
		case e.Outcome.Kind == job.Failed:
			run.Kind, run.Error = "failed", e.text(errorText(e.Outcome.Err))
			switch {
			case contain.Is(e.Outcome.Err, job.ErrCancelled):
				run.Kind = "cancelled"
			case contain.Is(e.Outcome.Err, ErrTimeout):
				run.Kind, run.Details = "timed_out", `{"timed_out": true}`
			}
		case e.Outcome.Kind == job.Snoozed:
			run.Kind = "snoozed"
			if e.Outcome.Err != nil && !e.Outcome.Bare {
				run.Error = e.text(errorText(e.Outcome.Err))
			}
		default:
			continue
		}
		if e.Unstarted {
			run.Waited, run.Ran = -1, -1
		}
		runs = append(runs, run)
	}
	return o.history.Rows(runs, true)
}

// Recorded notes what RecordRuns has answered about so many events, or failed with.
func (o *Outcomes) Recorded(events *dbgen.RecordRunsParams, problem string, err error) {
	if err != nil {
		o.history.Dropped(len(events.Ids), err)
		return
	}
	o.history.Answered(len(events.Ids), problem)
}

// recorded runs a statement that writes ends, and records their events in its transaction. If
// that is refused, the ends are written without them.
func recorded[Row any](ctx context.Context, o *Outcomes, part []Result, write func(*dbgen.Queries) ([]Row, error)) ([]Row, error) {
	events := o.Events(part)
	if events == nil {
		return write(o.queries)
	}
	var rows []Row
	var problem string
	err := o.database.Together(ctx,
		statement.StepOf(func(q *dbgen.Queries) error { _, err := write(q); return err }, func(r pgx.Rows) (err error) {
			rows, err = pgx.CollectRows(r, pgx.RowToStructByPos[Row])
			return err
		}),
		statement.StepOf(func(q *dbgen.Queries) error { _, err := q.RecordRuns(ctx, *events); return err }, func(r pgx.Rows) (err error) {
			problem, err = pgx.CollectExactlyOneRow(r, pgx.RowTo[string])
			return err
		}),
	)
	switch {
	case err == nil:
		o.Recorded(events, problem, nil)
		return rows, nil
	case !retry.Refused(err) || retry.Passes(err):
		return nil, err
	}
	rows, plainErr := write(o.queries)
	if plainErr == nil {
		o.Recorded(events, "", err)
	}
	return rows, plainErr
}
