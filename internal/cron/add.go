package cron

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/store"
)

// itemTries is how often an item whose job the database refuses is tried alone.
const itemTries = 3

// add adds the jobs of items that are due at a minute, as far as no other worker
// has done so. If the database refuses the jobs together, each is tried alone, so
// that one that cannot be added is in nobody's way.
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
			l.pause(ctx, firstRetry)
		}
	}
	return jobs, nil
}

// concernsJob reports whether err is about a job rather than the database: what
// a constraint, a trigger or add_job itself has against it. Class 42, unless it was
// raised on purpose, says that the schema or the rights are not as they should be.
func concernsJob(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && retry.Refused(err) && !retry.Passes(err) &&
		(!strings.HasPrefix(answer.Code, "42") || retry.Raised(err))
}

func (l *Loop) addTogether(ctx context.Context, due []*member, minute time.Time, backfilled bool) ([]event.CronJob, error) {
	args := dbgen.ScheduleCrontabsParams{Minute: timestamp(minute)}
	tasks := make(map[string]string, len(due))
	for _, m := range due {
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
		if err := appendSpec(&args, m.Identifier, spec, wanted); err != nil {
			return nil, err
		}
		tasks[m.Identifier] = spec.Task
	}
	ctx, cancel := lingering(ctx, lastWords)
	defer cancel()
	rows, err := l.Queries.ScheduleCrontabs(ctx, args)
	if err != nil {
		return nil, fmt.Errorf("adding the jobs of %s: %w", minute.Format(tickTime), err)
	}
	jobs := make([]event.CronJob, len(rows))
	for i, row := range rows {
		jobs[i] = event.CronJob{Identifier: row.Identifier, Task: tasks[row.Identifier], JobID: row.JobID}
	}
	return jobs, nil
}

// spec is the job of an item for a minute.
func (i *Item) spec(minute time.Time, backfilled bool) (store.Spec, error) {
	payload, err := i.payload(minute, backfilled)
	return store.Spec{
		Task: i.Task, Payload: payload, Queue: i.Queue, RunAt: minute, MaxAttempts: i.MaxAttempts,
		Key: i.Key, KeyMode: i.KeyMode, Priority: i.Priority,
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
	args.RunAts = append(args.RunAts, timestamp(s.RunAt))
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

func timestamp(t time.Time) pgtype.Timestamptz {
	return pgtype.Timestamptz{Time: t, Valid: !t.IsZero()}
}
