package completer

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/history"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
)

// Outcomes puts groups of outcomes into statements, one for each kind, and
// reports each job's end once the database has it.
type Outcomes struct {
	database statement.DB
	queries  *dbgen.Queries
	history  *history.Recorder // nil: nothing is recorded
	workerID string
	events   *eventstream.Stream
	now      func() time.Time
	policies map[string]Policy
	snoozes  *snoozes
	// onRefusal, if not nil, is told of refused outcomes.
	OnRefusal func()
}

// write writes a group. left is what is not known to be written; freed says that
// jobs may have become runnable by it.
func (o *Outcomes) write(ctx context.Context, group []Result) (left []Result, freed bool, err error) {
	group, completed, left, err := o.settle(ctx, group)
	r := rest{left: left, err: err}
	byKind := OfEachKind(group)
	r.add(o.settled(ctx, append(completed, byKind[job.Settled]...)))
	r.add(o.lost(ctx, byKind[job.Lost]))
	steps := []struct {
		kind  job.Kind
		write func(context.Context, []Result) (map[int64]Written, error)
	}{
		{job.Completed, o.complete},
		{job.Failed, o.fail},
		{job.Returned, o.giveBack},
		{job.Snoozed, o.giveBack},
	}
	for _, step := range steps {
		for rest := byKind[step.kind]; len(rest) > 0; {
			var part []Result
			part, rest = nextPart(rest)
			r.add(o.step(ctx, part, step.write))
		}
	}
	return r.left, r.freed, r.err
}

// worse is the error that says more about what to wait for: an outage keeps back
// everything, and a refusal only what was refused.
func worse(a, b error) error {
	if a == nil || b != nil && !retry.Passes(a) && retry.Passes(b) {
		return b
	}
	return a
}

// A rest is what is not known to be written of some outcomes. freed says that jobs may have
// become runnable by those that are.
type rest struct {
	left  []Result
	freed bool
	err   error
}

func (r *rest) add(left []Result, freed bool, err error) {
	r.left, r.freed, r.err = append(r.left, left...), r.freed || freed, worse(r.err, err)
}

// step writes outcomes of one kind, and something plainer where they are refused.
func (o *Outcomes) step(
	ctx context.Context, part []Result, write func(context.Context, []Result) (map[int64]Written, error),
) (left []Result, freed bool, err error) {
	done, err := o.together(ctx, part, write)
	r := rest{err: err}
	refusals := map[int64]error{}
	var unchanged, kept []Result
	for _, e := range part {
		w, ok := done[e.Job.ID]
		switch {
		case ok && w.Locked:
			r.freed = r.freed || e.Job.Queue != "" || e.Outcome.Kind == job.Returned || e.Outcome.Kind == job.Snoozed
			o.Report(e, w)
			if w.queueKept {
				kept = append(kept, e)
			}
		case ok && w.refusal != nil:
			refusals[e.Job.ID] = w.refusal
		case ok:
			unchanged = append(unchanged, e)
		default:
			e.Unsure = e.Unsure || !retry.Refused(err)
			r.left = append(r.left, e)
		}
	}
	if len(kept) > 0 {
		locking, _, keptErr := o.freeKept(ctx, kept...)
		r.add(locking, false, keptErr)
	}
	if len(unchanged) > 0 {
		o.unchanged(ctx, unchanged, refusals, &r)
	}
	for _, e := range part {
		if refusal := refusals[e.Job.ID]; refusal != nil {
			o.refused(ctx, e, refusal, &r)
		}
	}
	return r.left, r.freed, r.err
}

// unchanged tells runs whose locks are lost, and adds a refusal for those whose are not.
func (o *Outcomes) unchanged(ctx context.Context, runs []Result, refusals map[int64]error, r *rest) {
	locked, lost, err := o.stillLocked(ctx, runs)
	if err != nil {
		r.add(runs, false, err)
	}
	for _, e := range locked {
		refusals[e.Job.ID] = ErrUnchanged
	}
	for _, e := range lost {
		r.freed = r.freed || e.Unsure
	}
	r.add(o.lost(ctx, lost))
}

// refused writes something plainer in place of an outcome.
func (o *Outcomes) refused(ctx context.Context, e Result, refusal error, r *rest) {
	ok, freed, err := o.instead(ctx, &e, refusal)
	r.freed = r.freed || freed
	if !ok {
		e.Unsure = e.Unsure || !IsRefusal(err) && !retry.Refused(err)
		r.add([]Result{e}, false, err)
	}
}

// OfEachKind parts a group. Most are of one kind.
func OfEachKind(group []Result) map[job.Kind][]Result {
	byKind := make(map[job.Kind][]Result, 1)
	if len(group) > 0 && !slices.ContainsFunc(group, func(e Result) bool { return e.Outcome.Kind != group[0].Outcome.Kind }) {
		byKind[group[0].Outcome.Kind] = group
		return byKind
	}
	for _, e := range group {
		byKind[e.Outcome.Kind] = append(byKind[e.Outcome.Kind], e)
	}
	return byKind
}

// nextPart takes what is written in one statement: an outcome that was refused before
// is written alone.
func nextPart(group []Result) (part, rest []Result) {
	if i := slices.IndexFunc(group, func(e Result) bool { return e.refused }); i >= 0 {
		rest = slices.Concat(group[:i], group[i+1:])
		return group[i : i+1], rest
	}
	return oneOfEach(group)
}

// oneOfEach takes one run of each job: a statement answers by the job's id, and
// a job that was lost and claimed again may end twice in one group.
func oneOfEach(group []Result) (part, rest []Result) {
	seen := make(map[int64]bool, len(group))
	for _, e := range group {
		seen[e.Job.ID] = true
	}
	if len(seen) == len(group) {
		return group, nil
	}
	clear(seen)
	for _, e := range group {
		if seen[e.Job.ID] {
			rest = append(rest, e)
			continue
		}
		seen[e.Job.ID] = true
		part = append(part, e)
	}
	return part, rest
}

// Written is what a statement did with one job.
type Written struct {
	// locked says that the lock was still the claim's, so that the outcome is
	// stored.
	Locked bool
	// refusal is why it was not stored, if the database was against that one.
	refusal error
	// queueKept says that the job's queue may be locked still.
	queueKept bool
	Permanent bool
	retired   bool
	RunAt     time.Time
	// cancelled is why the job stays failed, if it was cancelled,
	// whether the run heard of that or not.
	cancelled error
}

// together writes the outcomes in one statement. If the database refuses that,
// it writes them one by one, so that one bad outcome does not hold up the rest.
func (o *Outcomes) together(
	ctx context.Context, part []Result, write func(context.Context, []Result) (map[int64]Written, error),
) (map[int64]Written, error) {
	done, err := write(ctx, part)
	switch {
	case err == nil:
		return done, nil
	case len(part) == 1 && IsRefusal(err):
		return map[int64]Written{part[0].Job.ID: {refusal: err}}, nil
	case len(part) == 1 || !retry.Refused(err) || retry.Passes(err):
		return done, err
	}
	err = nil
	done = make(map[int64]Written, len(part))
	for i := range part {
		one, oneErr := o.together(ctx, part[i:i+1], write)
		err = worse(err, oneErr)
		for id, w := range one {
			done[id] = w
		}
	}
	return done, err
}

// verdict starts with every job of the part as no longer held.
func verdict(part []Result) map[int64]Written {
	done := make(map[int64]Written, len(part))
	for _, e := range part {
		done[e.Job.ID] = Written{}
	}
	return done
}

func (o *Outcomes) complete(ctx context.Context, part []Result) (map[int64]Written, error) {
	c := newColumns(part)
	held, err := o.queries.CompleteJobs(ctx, dbgen.CompleteJobsParams{
		Ids: c.IDs, Attempts: c.Attempts, LockedAts: lockedAts(part), WorkerID: o.workerID, KeepQueues: part[0].keepQueue,
	})
	if err != nil {
		return nil, fmt.Errorf("writing that %d jobs are complete: %w", len(part), err)
	}
	done := verdict(part)
	for _, row := range held {
		done[row.ID] = Written{Locked: true, queueKept: row.QueueKept}
	}
	return done, nil
}

func (o *Outcomes) fail(ctx context.Context, part []Result) (map[int64]Written, error) {
	c := FailColumns(part)
	p := dbgen.FailJobsParams{
		Ids: c.IDs, Attempts: c.Attempts, LockedAts: lockedAts(part), WorkerID: o.workerID, At: TimeOf(o.now),
		Errors: c.Errors, Delays: c.Delays, Finals: c.Finals, Capped: c.Capped, Payloads: c.Payloads,
		KeepQueues: part[0].keepQueue,
	}
	rows, err := recorded(ctx, o, part, func(q *dbgen.Queries) ([]dbgen.FailJobsRow, error) { return q.FailJobs(ctx, p) })
	if err != nil {
		return nil, fmt.Errorf("writing that %d jobs failed: %w", len(part), err)
	}
	done := verdict(part)
	for _, row := range rows {
		done[row.ID] = Written{
			Locked: true, queueKept: row.QueueKept, Permanent: row.Permanent, RunAt: row.RunAt.Time, cancelled: cancelled(row.KeptError != "", row.KeptError),
		}
	}
	return done, nil
}

func (o *Outcomes) giveBack(ctx context.Context, part []Result) (map[int64]Written, error) {
	c, keys := ReturnColumns(part), make([]string, len(part))
	for i, e := range part {
		keys[i] = e.Job.Key
	}
	p := dbgen.ReturnJobsParams{
		Ids: c.IDs, Attempts: c.Attempts, LockedAts: lockedAts(part), WorkerID: o.workerID, At: TimeOf(o.now),
		Keys: keys, Delays: c.Delays, Payloads: c.Payloads, KeepQueues: part[0].keepQueue,
	}
	rows, err := recorded(ctx, o, part, func(q *dbgen.Queries) ([]dbgen.ReturnJobsRow, error) { return q.ReturnJobs(ctx, p) })
	if err != nil {
		return nil, fmt.Errorf("returning %d jobs to the queue: %w", len(part), err)
	}
	done := verdict(part)
	for _, row := range rows {
		done[row.ID] = Written{Locked: true, queueKept: row.QueueKept, retired: row.Retired, cancelled: cancelled(row.Cancelled, row.Reason)}
	}
	return done, nil
}

func cancelled(is bool, reason string) error {
	if !is {
		return nil
	}
	return job.Cancelled(reason)
}

// Report tells observers of an outcome that the database has.
func (o *Outcomes) Report(e Result, w Written) {
	o.count(e, w)
	switch {
	case e.Unstarted && w.cancelled == nil && !w.Permanent:
		// What did not begin does not end; the local queue has reported its own.
	case e.Outcome.Kind == job.Completed:
		if o.events.WantsRoutine() {
			o.events.Emit(event.JobCompleted{WorkerID: o.workerID, Job: eventstream.Job(e.Job), Duration: e.Duration})
		}
	case w.cancelled != nil:
		o.events.Emit(event.JobPermanentlyFailed{WorkerID: o.workerID, Job: eventstream.Job(e.Job), Err: w.cancelled, Duration: e.Duration})
	case e.Outcome.Kind == job.Returned:
		o.events.Emit(event.JobReturned{
			WorkerID: o.workerID, Job: eventstream.Job(e.Job), Err: e.Outcome.Err, Duration: e.Duration, Retired: w.retired,
		})
	case e.Outcome.Kind == job.Snoozed:
		snoozed := event.JobSnoozed{
			WorkerID: o.workerID, Job: eventstream.Job(e.Job), Err: e.Outcome.Err, Duration: e.Duration, Retired: w.retired,
		}
		if e.Outcome.Err != nil && !e.Outcome.Bare {
			snoozed.Reason = e.Outcome.Err.Error()
		}
		if e.Outcome.Delay != nil {
			snoozed.For = *e.Outcome.Delay
			o.snoozes.await(snoozed.For)
		}
		o.events.Emit(snoozed)
	case w.Permanent:
		o.events.Emit(event.JobPermanentlyFailed{
			WorkerID: o.workerID, Job: eventstream.Job(e.Job), Err: e.Outcome.Err, Duration: e.Duration,
		})
	default:
		o.events.Emit(event.JobFailed{
			WorkerID: o.workerID, Job: eventstream.Job(e.Job), Err: e.Outcome.Err, NextRunAt: w.RunAt, Duration: e.Duration,
		})
	}
}
