package cron

import (
	"context"
	"fmt"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
)

// start registers items and adds the jobs of the minutes that they have missed. From start
// on, every minute is theirs; an item that was added later begins then.
func (l *Loop) start(ctx context.Context, items []*member, start time.Time) error {
	names := make([]string, len(items))
	starts := make([]time.Time, len(items))
	for i, m := range items {
		names[i], starts[i] = m.Identifier, start
		// An item that was added within the current minute begins at that time, not at
		// the time of this call. One that was added earlier, before Run or long before
		// this session, begins with the session.
		if added := m.added.Round(0).UTC(); !m.added.IsZero() && !added.Before(l.next.Add(-time.Minute)) {
			starts[i] = added
		}
	}
	l.Events.Emit(event.CronStarting{WorkerID: l.WorkerID, Start: start, Items: names})
	if err := l.register(ctx, names, starts); err != nil {
		return fmt.Errorf("registering cron items: %w", err)
	}
	if err := l.backfill(ctx, items, names, starts); err != nil {
		return err
	}
	for i, m := range items {
		l.started[m] = minuteAfter(starts[i])
	}
	l.Events.Emit(event.CronStarted{WorkerID: l.WorkerID, Start: start, Items: names})
	return nil
}

// register inserts the missing rows, one by one.
func (l *Loop) register(ctx context.Context, names []string, starts []time.Time) error {
	rows, err := l.Queries.KnownCrontabs(ctx, names)
	if err != nil {
		return err
	}
	known := make(map[string]bool, len(rows))
	for _, row := range rows {
		known[row.Identifier] = true
	}
	for i, name := range names {
		if known[name] {
			continue
		}
		if err := l.Queries.RegisterCrontab(ctx, dbgen.RegisterCrontabParams{Identifier: name, KnownSince: starts[i]}); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return nil
}

// missed is an item and its next minute that may have been missed.
type missed struct {
	*member
	minute time.Time
	start  time.Time
}

func (l *Loop) backfill(ctx context.Context, items []*member, names []string, starts []time.Time) error {
	rows, err := l.Queries.KnownCrontabs(ctx, names)
	if err != nil {
		return fmt.Errorf("reading which cron items are known: %w", err)
	}
	notBefore := make(map[string]time.Time, len(rows))
	for _, row := range rows {
		notBefore[row.Identifier] = row.KnownSince.Time
		if row.LastExecution.Valid {
			notBefore[row.Identifier] = row.LastExecution.Time
		}
	}
	var open []*missed
	for i, m := range items {
		from, ok := notBefore[m.Identifier]
		if m.Fill <= 0 || !ok {
			continue
		}
		if earliest := starts[i].Add(-m.Fill); from.Before(earliest) {
			from = earliest
		}
		// Next is exclusive, and from itself counts if it is a minute.
		open = append(open, &missed{member: m, minute: m.Next(minuteAfter(from).Add(-time.Minute)), start: starts[i]})
	}
	for {
		minute, due := oldest(open)
		if len(due) == 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		jobs, err := l.add(ctx, due, minute, true)
		if err != nil {
			return err
		}
		if len(jobs) > 0 {
			l.Events.Emit(event.CronBackfilled{WorkerID: l.WorkerID, Minute: minute, Jobs: jobs})
		}
		for _, m := range open {
			if m.minute.Equal(minute) {
				m.minute = m.Next(minute)
			}
		}
	}
}

// oldest returns the oldest missed minute and the items that missed it.
func oldest(open []*missed) (minute time.Time, due []*member) {
	for _, m := range open {
		switch {
		case m.minute.IsZero() || !m.minute.Before(m.start):
		case len(due) == 0 || m.minute.Before(minute):
			minute, due = m.minute, []*member{m.member}
		case m.minute.Equal(minute):
			due = append(due, m.member)
		}
	}
	return minute, due
}
