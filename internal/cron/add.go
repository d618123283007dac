package cron

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/store"
)

// itemTries is how often an item whose job the database refuses is tried alone.
const itemTries = 3

// itemWait is the wait between these tries.
const itemWait = 200 * time.Millisecond

// contentionTries is how often a statement is run that deadlocks or the like.
const contentionTries = 5

// add adds the jobs of items that are due at a minute, unless another worker has done so. If
// the database refuses the jobs together, each is tried alone, so that one that cannot be
// added does not keep the others from being added.
func (l *Loop) add(ctx context.Context, due []*member, minute time.Time, backfilled bool) ([]event.CronJob, error) {
	jobs, err := l.addTogether(ctx, due, minute, backfilled)
	if !concernsJob(err) {
		return jobs, err
	}
	for _, m := range due {
		for try := 1; ; try++ {
			added, err := l.addTogether(ctx, []*member{m}, minute, backfilled)
			if err == nil {
				jobs = append(jobs, added...)
				break
			}
			if !concernsJob(err) || ctx.Err() != nil {
				return jobs, err
			}
			if try == itemTries {
				l.Events.Emit(event.CronItemFailed{WorkerID: l.WorkerID, Identifier: m.Identifier, Minute: minute, Err: err})
				break
			}
			l.pause(ctx, itemWait)
		}
	}
	return jobs, nil
}

// concernsJob reports whether err is about a job rather than the database: a constraint, a
// trigger or add_job itself refuses it. Errors of class 42, unless they were raised on
// purpose, say that the schema or the rights are not as they should be.
func concernsJob(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && retry.Refused(err) && !retry.Passes(err) &&
		(!strings.HasPrefix(answer.Code, "42") || retry.Raised(err))
}

// planned is an item that is due, and its job.
type planned struct {
	identifier string
	spec       store.Spec
	wanted     bool
}

// addTogether adds the jobs in one statement, and those whose rows another session
// holds at this moment in further ones.
func (l *Loop) addTogether(ctx context.Context, due []*member, minute time.Time, backfilled bool) ([]event.CronJob, error) {
	open := make([]planned, len(due))
	tasks := make(map[string]string, len(due))
	for i, m := range due {
		spec, err := m.spec(minute, backfilled)
		if err != nil {
			return nil, err
		}
		wanted := true
		if l.BeforeAdd != nil {
			if spec, wanted, err = l.BeforeAdd(ctx, spec); err != nil {
				l.Events.Emit(event.CronItemFailed{WorkerID: l.WorkerID, Identifier: m.Identifier, Minute: minute, Err: err})
				wanted = false
			}
		}
		open[i] = planned{identifier: m.Identifier, spec: spec, wanted: wanted}
		tasks[m.Identifier] = spec.Task
	}
	ctx, cancel := lingering(ctx, lastWords)
	defer cancel()
	var jobs []event.CronJob
	schedule := func(items []planned, wait bool) (busy []planned, err error) {
		rows, err := l.schedule(ctx, items, minute, wait)
		if err != nil {
			return nil, fmt.Errorf("adding the jobs of %s: %w", minute.Format(tickTime), err)
		}
		for _, row := range rows {
			if row.Busy {
				busy = append(busy, items[slices.IndexFunc(items, func(p planned) bool { return p.identifier == row.Identifier })])
				continue
			}
			jobs = append(jobs, event.CronJob{Identifier: row.Identifier, Task: tasks[row.Identifier], JobID: row.JobID})
		}
		return busy, nil
	}
	for {
		var err error
		if open, err = schedule(open, false); err != nil || len(open) == 0 {
			return jobs, err
		}
		// The session that holds one of them mostly holds the others, too.
		if _, err = schedule(open[:1], true); err != nil {
			return jobs, err
		}
		if open = open[1:]; len(open) == 0 {
			return jobs, nil
		}
	}
}

// schedule runs the statement, which commits by itself. It is run again after a deadlock or
// the like, which has undone it.
func (l *Loop) schedule(ctx context.Context, items []planned, minute time.Time, wait bool) (rows []dbgen.ScheduleCrontabsRow, err error) {
	args := dbgen.ScheduleCrontabsParams{Minute: minute, Wait: wait}
	for _, p := range items {
		if err := appendSpec(&args, p.identifier, p.spec, p.wanted); err != nil {
			return nil, err
		}
	}
	for range contentionTries {
		if rows, err = l.Queries.ScheduleCrontabs(ctx, args); err == nil || retry.Of(err) != retry.Contention {
			break
		}
	}
	return rows, err
}

// spec is the job of an item for a minute.
func (i *Item) spec(minute time.Time, backfilled bool) (store.Spec, error) {
	payload, err := i.payload(minute, backfilled)
	return store.Spec{
		Task: i.Task, Payload: payload, Queue: i.Queue, RunAt: minute, MaxAttempts: i.MaxAttempts,
		Key: i.Key, KeyMode: i.KeyMode, Priority: i.Priority, Flags: i.Flags,
	}, err
}

func appendSpec(args *dbgen.ScheduleCrontabsParams, identifier string, s store.Spec, wanted bool) error {
	flags := ""
	if len(s.Flags) > 0 {
		encoded, err := json.Marshal(s.Flags)
		if err != nil {
			return fmt.Errorf("encoding the flags of cron item %q: %w", identifier, err)
		}
		flags = string(encoded)
	}
	args.Identifiers = append(args.Identifiers, identifier)
	args.Adds = append(args.Adds, wanted)
	args.Tasks = append(args.Tasks, s.Task)
	args.Payloads = append(args.Payloads, string(s.Payload))
	args.Queues = append(args.Queues, s.Queue)
	args.RunAts = append(args.RunAts, store.Timestamp(s.RunAt))
	args.MaxAttempts = append(args.MaxAttempts, int32(s.MaxAttempts))
	args.Keys = append(args.Keys, s.Key)
	args.KeyModes = append(args.KeyModes, s.KeyMode)
	args.Priorities = append(args.Priorities, int32(s.Priority))
	args.Flags = append(args.Flags, flags)
	return nil
}

// lingering is a context that ends some time after ctx.
func lingering(ctx context.Context, after time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	// The timer calls cancel, which may be called twice.
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(after, cancel) })
	return longer, func() {
		stop()
		cancel()
	}
}
