package gworker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/cron"
	"github.com/gworker/gworker/internal/store"
)

// CronEntry is a cron item of a worker, and when it is due next.
type CronEntry struct {
	// CronItem is the item.
	CronItem
	// Next is the next time by the worker's clock, in the item's time zone; the
	// zero time if there is none within nine years.
	Next time.Time
}

// CronItems lists the worker's cron items: those of the configuration, then
// those that were added, in that order. It is safe for concurrent use.
func (w *Worker) CronItems() []CronEntry {
	items := w.cronItems.Items()
	entries := make([]CronEntry, len(items))
	for i := range items {
		entries[i].CronItem = publicCronItem(&items[i])
		if next := items[i].Next(w.cronClock().Now()); !next.IsZero() {
			entries[i].Next = next.In(items[i].Zone.Location())
		}
	}
	return entries
}

// AddCronItem adds an item, before Run or while it runs; it is due from then on.
// It is registered in the database at once. If its identifier was known there before, its
// missed minutes are backfilled as its Fill says, as at a start.
//
// The item belongs only to this worker and is forgotten when it ends. The error is a
// *FieldError for an item that cannot be used, or ErrDuplicateCronItem. It is safe for
// concurrent use.
func (w *Worker) AddCronItem(item CronItem) error {
	encoded, err := item.encode("CronItem")
	if err != nil {
		return fmt.Errorf("adding a cron item: %w", err)
	}
	if err := w.cronItems.Add(encoded, w.cronClock().Now()); err != nil {
		return fmt.Errorf("adding the cron item %q: %w", encoded.Identifier, err)
	}
	return nil
}

// RemoveCronItem removes the item with an identifier and reports whether there was one. It is
// no longer due in this worker; a minute that is being scheduled at that moment may still add
// its job. Jobs that it has added stay, and so does its row in the database, since other
// workers may still have the item. It is safe for concurrent use.
func (w *Worker) RemoveCronItem(identifier string) bool {
	return w.cronItems.Remove(identifier)
}

// runAndSchedule runs jobs and cron until ctx ends.
func (w *Worker) runAndSchedule(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var loops sync.WaitGroup
	defer loops.Wait()
	defer stop()
	loop := &cron.Loop{
		WorkerID: w.id, Queries: w.client.queries, Events: w.events, Clock: w.cronClock(), Items: w.cronItems,
	}
	if len(w.client.before) > 0 {
		loop.BeforeAdd = w.beforeCronAdd
	}
	loops.Go(func() { loop.Run(ctx) })
	if len(w.config.Tasks) == 0 {
		<-ctx.Done()
		return nil
	}
	return w.scheduler.Run(ctx)
}

// cronClock is Config.Now, or the machine's clock.
func (w *Worker) cronClock() cron.Clock {
	clock := cron.SystemClock
	if w.config.Now != nil {
		clock.Now = w.config.Now
	}
	return clock
}

// runOnce runs jobs until none is runnable. There is no cron then, as on Node.
func (w *Worker) runOnce(ctx context.Context) error {
	if len(w.config.Tasks) == 0 {
		return nil
	}
	return w.scheduler.RunOnce(ctx)
}

// beforeCronAdd calls the interceptors of Config.BeforeAdd for the job of a cron item. Their
// error is reported as CronItemFailed.
func (w *Worker) beforeCronAdd(ctx context.Context, s store.Spec) (changed store.Spec, add bool, err error) {
	trouble := contain.Call(func() {
		var spec JobSpec
		if spec, err = w.client.beforeAdd(ctx, JobSpec{
			Task: s.Task, Payload: s.Payload, Queue: s.Queue, RunAt: s.RunAt, MaxAttempts: s.MaxAttempts,
			Key: s.Key, KeyMode: KeyMode(s.KeyMode), Priority: s.Priority, Flags: s.Flags,
		}); err == nil {
			changed, err = spec.encode("JobSpec")
		}
	})
	switch {
	case trouble != nil:
		return store.Spec{}, false, fmt.Errorf("BeforeAdd: %w", trouble)
	case contain.Is(err, ErrAddSkipped):
		return store.Spec{}, false, nil
	case err != nil:
		return store.Spec{}, false, err
	}
	return changed, true, nil
}
