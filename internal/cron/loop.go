package cron

import (
	"context"
	"slices"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/store"
)

const (
	// resumeWithin is how long an error may last so that cron goes on from the
	// minute that it could not write: longer than servers take to fail over.
	resumeWithin = 10 * time.Minute

	// clockSet is more than any timer is early or late: then the clock was set.
	clockSet = 24 * time.Hour

	// lookEvery is the time between two readings of the clock, and so the longest time
	// until a change of the clock is noticed. It is also the longest single wait, in case
	// the clock stands still or is slower than timers are.
	lookEvery = 2 * time.Second

	// lastWords is how long a statement may go on after the worker was told to stop:
	// there may be no other worker to schedule the minute.
	lastWords = 5 * time.Second
)

// Clock is how time passes.
type Clock struct {
	Now func() time.Time
	// Timer returns a channel that gets a value after d, and a function that stops it.
	Timer func(d time.Duration) (fired <-chan time.Time, stop func())
}

// SystemClock is the machine's.
var SystemClock = Clock{
	Now: time.Now,
	Timer: func(d time.Duration) (<-chan time.Time, func()) {
		timer := time.NewTimer(d)
		return timer.C, func() { timer.Stop() }
	},
}

// Loop schedules the items of a set as their minutes come.
type Loop struct {
	WorkerID string
	Queries  *dbgen.Queries
	Events   *eventstream.Stream
	Clock    Clock
	Items    *Set

	// BeforeAdd, if not nil, is called with the job of each due item before it is added.
	// It may change the job, or decide that none is added. The minute counts as
	// scheduled in any case, even after an error.
	BeforeAdd func(context.Context, store.Spec) (changed store.Spec, add bool, err error)

	// started are the items that are registered and backfilled, with their first
	// minutes.
	started map[*member]time.Time
	// next is the first minute that is not scheduled yet; zero before any is
	// known.
	next time.Time
}

// Run schedules until ctx ends. Without items it only waits for some.
func (l *Loop) Run(ctx context.Context) {
	waits := retry.CronBackoff()
	for ctx.Err() == nil {
		if len(l.Items.members()) == 0 {
			l.next = time.Time{}
			l.idle(ctx)
			continue
		}
		err := l.session(ctx, waits.Reset)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			continue
		}
		retryIn := waits.NextBackOff()
		l.Events.Emit(event.CronFailed{WorkerID: l.WorkerID, Err: err, RetryIn: retryIn})
		l.pause(ctx, retryIn)
	}
}

func (l *Loop) pause(ctx context.Context, d time.Duration) {
	fired, stop := l.Clock.Timer(d)
	defer stop()
	select {
	case <-ctx.Done():
	case <-fired:
	}
}

func (l *Loop) now() time.Time { return l.Clock.Now().Round(0).UTC() }

// session is cron from a start until an error, or until the clock was set.
// healthy is called after each statement that has succeeded.
func (l *Loop) session(ctx context.Context, healthy func()) error {
	start := l.now()
	if late := start.Sub(l.next); late >= 0 && late <= resumeWithin {
		start = l.next
	}
	l.next = minuteAfter(start)
	l.started = map[*member]time.Time{}
	for {
		if err := l.startNew(ctx, start); err != nil {
			return err
		}
		early, err := l.catchUp(ctx)
		if err != nil || early > clockSet {
			return err
		}
		healthy()
		l.untilNext(ctx)
		if ctx.Err() != nil || len(l.Items.members()) == 0 {
			return nil
		}
		if l.now().Sub(l.next) > clockSet {
			l.next = time.Time{}
			return nil
		}
		start = l.now()
	}
}

// idle waits for the set to change, or for ctx to end.
func (l *Loop) idle(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-l.Items.changed:
	}
}

// untilNext waits for the next minute, a change of the set or of the clock, or the end of
// ctx. If a timer fires before its minute, longer and longer ones follow.
func (l *Loop) untilNext(ctx context.Context) {
	told, shortest := false, time.Millisecond
	for {
		left := l.next.Sub(l.now())
		if left <= 0 || left > clockSet {
			return
		}
		fired, ok := l.wait(ctx, max(left+time.Millisecond, shortest))
		if !ok {
			return
		}
		if now := l.now(); fired && now.Before(l.next) {
			shortest = min(2*shortest, lookEvery)
			if !told {
				told = true
				l.Events.Emit(event.CronTimerEarly{WorkerID: l.WorkerID, Minute: l.next, Now: now})
			}
		}
	}
}

// wait waits for d, or until the clock has to be read again, and reports whether d is over.
// It is not ok if ctx has ended or the set has changed.
func (l *Loop) wait(ctx context.Context, d time.Duration) (fired, ok bool) {
	due, stop := l.Clock.Timer(d)
	defer stop()
	look, stopLooking := l.Clock.Timer(lookEvery)
	defer stopLooking()
	select {
	case <-ctx.Done():
		return false, false
	case <-l.Items.changed:
		return false, false
	case <-due:
		return true, true
	case <-look:
	}
	select {
	case <-due:
		return true, true
	default:
		return false, true
	}
}

// catchUp schedules the minutes that are due, oldest first, and returns the time until the
// next one.
func (l *Loop) catchUp(ctx context.Context) (time.Duration, error) {
	told := false
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		now := l.now()
		if now.Before(l.next) {
			return l.next.Sub(now), nil
		}
		if !told && !now.Before(l.next.Add(time.Minute)) {
			told = true
			l.Events.Emit(event.CronTimerLate{WorkerID: l.WorkerID, Minute: l.next, Now: now})
		}
		if err := l.tick(ctx, l.next); err != nil {
			return 0, err
		}
		l.next = l.next.Add(time.Minute)
	}
}

// tick schedules one minute.
func (l *Loop) tick(ctx context.Context, minute time.Time) error {
	var due []*member
	var names []string
	for _, m := range l.Items.members() {
		from, ok := l.started[m]
		if ok && !minute.Before(from) && m.Matches(minute) {
			due, names = append(due, m), append(names, m.Identifier)
		}
	}
	if len(due) == 0 {
		return nil
	}
	l.Events.Emit(event.CronTick{WorkerID: l.WorkerID, Minute: minute, Due: names})
	jobs, err := l.add(ctx, due, minute, false)
	if err != nil {
		return err
	}
	l.Events.Emit(event.CronScheduled{WorkerID: l.WorkerID, Minute: minute, Due: names, Jobs: jobs})
	return nil
}

// startNew starts the items that are not started yet.
func (l *Loop) startNew(ctx context.Context, start time.Time) error {
	var fresh []*member
	members := l.Items.members()
	for _, m := range members {
		if _, ok := l.started[m]; !ok {
			fresh = append(fresh, m)
		}
	}
	for m := range l.started {
		if !slices.Contains(members, m) {
			delete(l.started, m)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return l.start(ctx, fresh, start)
}

// minuteAfter is the first minute that is not before t.
func minuteAfter(t time.Time) time.Time {
	minute := t.Truncate(time.Minute)
	if minute.Before(t) {
		minute = minute.Add(time.Minute)
	}
	return minute
}
