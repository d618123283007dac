package scheduler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// outcomes puts groups of outcomes into statements, one for each kind, and
// reports each job's end once the database has it.
type outcomes struct {
	queries  *dbgen.Queries
	workerID string
	events   *eventstream.Stream
	now      func() time.Time
	policies map[string]Policy
	snoozes  *snoozes
	// onRefusal, if not nil, is told of refused outcomes.
	onRefusal func()
}

// write writes a group. left is what is not known to be written; freed says that
// jobs may have become runnable by it.
func (o *outcomes) write(ctx context.Context, group []runResult) (left []runResult, freed bool, err error) {
	group, completed, left, err := o.settle(ctx, group)
	r := rest{left: left, err: err}
	byKind := ofEachKind(group)
	r.add(o.settled(ctx, append(completed, byKind[job.Settled]...)))
	r.add(o.lost(ctx, byKind[job.Lost]))
	steps := []struct {
		kind  job.Kind
		write func(context.Context, []runResult) (map[int64]written, error)
	}{
		{job.Completed, o.complete},
		{job.Failed, o.fail},
		{job.Returned, o.giveBack},
		{job.Snoozed, o.giveBack},
	}
	for _, step := range steps {
		for rest := byKind[step.kind]; len(rest) > 0; {
			var part []runResult
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
	left  []runResult
	freed bool
	err   error
}

func (r *rest) add(left []runResult, freed bool, err error) {
	r.left, r.freed, r.err = append(r.left, left...), r.freed || freed, worse(r.err, err)
}

// step writes outcomes of one kind, and something plainer where they are refused.
func (o *outcomes) step(
	ctx context.Context, part []runResult, write func(context.Context, []runResult) (map[int64]written, error),
) (left []runResult, freed bool, err error) {
	done, err := o.together(ctx, part, write)
	r := rest{err: err}
	refusals := map[int64]error{}
	var unchanged, kept []runResult
	for _, e := range part {
		w, ok := done[e.job.ID]
		switch {
		case ok && w.locked:
			r.freed = r.freed || e.job.Queue != "" || e.outcome.Kind == job.Returned || e.outcome.Kind == job.Snoozed
			o.report(e, w)
			if w.queueKept {
				kept = append(kept, e)
			}
		case ok && w.refusal != nil:
			refusals[e.job.ID] = w.refusal
		case ok:
			unchanged = append(unchanged, e)
		default:
			e.unsure = e.unsure || !retry.Refused(err)
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
		if refusal := refusals[e.job.ID]; refusal != nil {
			o.refused(ctx, e, refusal, &r)
		}
	}
	return r.left, r.freed, r.err
}

// unchanged tells runs whose locks are lost, and adds a refusal for those whose are not.
func (o *outcomes) unchanged(ctx context.Context, runs []runResult, refusals map[int64]error, r *rest) {
	locked, lost, err := o.stillLocked(ctx, runs)
	if err != nil {
		r.add(runs, false, err)
	}
	for _, e := range locked {
		refusals[e.job.ID] = errUnchanged
	}
	for _, e := range lost {
		r.freed = r.freed || e.unsure
	}
	r.add(o.lost(ctx, lost))
}

// refused writes something plainer in place of an outcome.
func (o *outcomes) refused(ctx context.Context, e runResult, refusal error, r *rest) {
	ok, freed, err := o.instead(ctx, &e, refusal)
	r.freed = r.freed || freed
	if !ok {
		e.unsure = e.unsure || !isRefusal(err) && !retry.Refused(err)
		r.add([]runResult{e}, false, err)
	}
}

// ofEachKind parts a group. Most are of one kind.
func ofEachKind(group []runResult) map[job.Kind][]runResult {
	byKind := make(map[job.Kind][]runResult, 1)
	if len(group) > 0 && !slices.ContainsFunc(group, func(e runResult) bool { return e.outcome.Kind != group[0].outcome.Kind }) {
		byKind[group[0].outcome.Kind] = group
		return byKind
	}
	for _, e := range group {
		byKind[e.outcome.Kind] = append(byKind[e.outcome.Kind], e)
	}
	return byKind
}

// nextPart takes what is written in one statement: an outcome that was refused before
// is written alone.
func nextPart(group []runResult) (part, rest []runResult) {
	if i := slices.IndexFunc(group, func(e runResult) bool { return e.refused }); i >= 0 {
		rest = slices.Concat(group[:i], group[i+1:])
		return group[i : i+1], rest
	}
	return oneOfEach(group)
}

// oneOfEach takes one run of each job: a statement answers by the job's id, and
// a job that was lost and claimed again may end twice in one group.
func oneOfEach(group []runResult) (part, rest []runResult) {
	seen := make(map[int64]bool, len(group))
	for _, e := range group {
		seen[e.job.ID] = true
	}
	if len(seen) == len(group) {
		return group, nil
	}
	clear(seen)
	for _, e := range group {
		if seen[e.job.ID] {
			rest = append(rest, e)
			continue
		}
		seen[e.job.ID] = true
		part = append(part, e)
	}
	return part, rest
}

// written is what a statement did with one job.
type written struct {
	// locked says that the lock was still the claim's, so that the outcome is
	// stored.
	locked bool
	// refusal is why it was not stored, if the database was against that one.
	refusal error
	// queueKept says that the job's queue may be locked still.
	queueKept bool
	permanent bool
	retired   bool
	runAt     time.Time
	// cancelled is why the job stays failed, if somebody has cancelled it,
	// whether the run heard of that or not.
	cancelled error
}

// together writes the outcomes in one statement. If the database refuses that,
// it writes them one by one, so that one bad outcome does not hold up the rest.
func (o *outcomes) together(
	ctx context.Context, part []runResult, write func(context.Context, []runResult) (map[int64]written, error),
) (map[int64]written, error) {
	done, err := write(ctx, part)
	switch {
	case err == nil:
		return done, nil
	case len(part) == 1 && isRefusal(err):
		return map[int64]written{part[0].job.ID: {refusal: err}}, nil
	case len(part) == 1 || !retry.Refused(err) || retry.Passes(err):
		return done, err
	}
	err = nil
	done = make(map[int64]written, len(part))
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
func verdict(part []runResult) map[int64]written {
	done := make(map[int64]written, len(part))
	for _, e := range part {
		done[e.job.ID] = written{}
	}
	return done
}

func (o *outcomes) complete(ctx context.Context, part []runResult) (map[int64]written, error) {
	c := newColumns(part)
	held, err := o.queries.CompleteJobs(ctx, dbgen.CompleteJobsParams{
		Ids: c.ids, Attempts: c.attempts, LockedAts: lockedAts(part), WorkerID: o.workerID, KeepQueues: part[0].keepQueue,
	})
	if err != nil {
		return nil, fmt.Errorf("writing that %d jobs are complete: %w", len(part), err)
	}
	done := verdict(part)
	for _, row := range held {
		done[row.ID] = written{locked: true, queueKept: row.QueueKept}
	}
	return done, nil
}

func (o *outcomes) fail(ctx context.Context, part []runResult) (map[int64]written, error) {
	c := failColumns(part)
	rows, err := o.queries.FailJobs(ctx, dbgen.FailJobsParams{
		Ids: c.ids, Attempts: c.attempts, LockedAts: lockedAts(part), WorkerID: o.workerID, At: timeOf(o.now),
		Errors: c.errors, Delays: c.delays, Finals: c.finals, Capped: c.capped, Payloads: c.payloads,
		KeepQueues: part[0].keepQueue,
	})
	if err != nil {
		return nil, fmt.Errorf("writing that %d jobs failed: %w", len(part), err)
	}
	done := verdict(part)
	for _, row := range rows {
		done[row.ID] = written{
			locked: true, queueKept: row.QueueKept, permanent: row.Permanent, runAt: row.RunAt.Time, cancelled: cancelled(row.KeptError != "", row.KeptError),
		}
	}
	return done, nil
}

func (o *outcomes) giveBack(ctx context.Context, part []runResult) (map[int64]written, error) {
	c, keys := returnColumns(part), make([]string, len(part))
	for i, e := range part {
		keys[i] = e.job.Key
	}
	rows, err := o.queries.ReturnJobs(ctx, dbgen.ReturnJobsParams{
		Ids: c.ids, Attempts: c.attempts, LockedAts: lockedAts(part), WorkerID: o.workerID, At: timeOf(o.now),
		Keys: keys, Delays: c.delays, Payloads: c.payloads, KeepQueues: part[0].keepQueue,
	})
	if err != nil {
		return nil, fmt.Errorf("returning %d jobs to the queue: %w", len(part), err)
	}
	done := verdict(part)
	for _, row := range rows {
		done[row.ID] = written{locked: true, queueKept: row.QueueKept, retired: row.Retired, cancelled: cancelled(row.Cancelled, row.Reason)}
	}
	return done, nil
}

func cancelled(is bool, reason string) error {
	if !is {
		return nil
	}
	return job.Cancelled(reason)
}

func (o *outcomes) report(e runResult, w written) {
	switch {
	case e.unstarted && w.cancelled == nil && !w.permanent:
		// What did not begin does not end; the local queue has reported its own.
	case e.outcome.Kind == job.Completed:
		if o.events.WantsRoutine() {
			o.events.Emit(event.JobCompleted{WorkerID: o.workerID, Job: eventJob(e.job), Duration: e.duration})
		}
	case w.cancelled != nil:
		o.events.Emit(event.JobPermanentlyFailed{WorkerID: o.workerID, Job: eventJob(e.job), Err: w.cancelled, Duration: e.duration})
	case e.outcome.Kind == job.Returned:
		o.events.Emit(event.JobReturned{
			WorkerID: o.workerID, Job: eventJob(e.job), Err: e.outcome.Err, Duration: e.duration, Retired: w.retired,
		})
	case e.outcome.Kind == job.Snoozed:
		snoozed := event.JobSnoozed{
			WorkerID: o.workerID, Job: eventJob(e.job), Err: e.outcome.Err, Duration: e.duration, Retired: w.retired,
		}
		if e.outcome.Err != nil && !e.outcome.Bare {
			snoozed.Reason = e.outcome.Err.Error()
		}
		if e.outcome.Delay != nil {
			snoozed.For = *e.outcome.Delay
			o.snoozes.await(snoozed.For)
		}
		o.events.Emit(snoozed)
	case w.permanent:
		o.events.Emit(event.JobPermanentlyFailed{
			WorkerID: o.workerID, Job: eventJob(e.job), Err: e.outcome.Err, Duration: e.duration,
		})
	default:
		o.events.Emit(event.JobFailed{
			WorkerID: o.workerID, Job: eventJob(e.job), Err: e.outcome.Err, NextRunAt: w.runAt, Duration: e.duration,
		})
	}
}
