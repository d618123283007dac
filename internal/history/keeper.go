package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
)

// Retention is how long what is kept.
type Retention struct{ Events, Minutes, Hours time.Duration }

// Keeper writes a worker's statistics, and keeps the tables in order.
type Keeper struct {
	Recorder  *Recorder
	Queries   *dbgen.Queries
	Retention Retention
	// Due says that the tables are to be seen to at once: processes that live shorter than
	// a minute may be the only ones.
	Due bool

	unwritten, unkept bool // and told
}

const (
	flushEvery  = time.Minute
	upkeepEvery = time.Hour
	// upkeepAgain is when it is tried again, as a table was in use.
	upkeepAgain = 5 * time.Minute
	// flushWithin bounds the last flush, at a shutdown.
	flushWithin = 2 * time.Second
	// upkeepWithin bounds what the tables are seen to at the start.
	upkeepWithin = 5 * time.Second
)

// Run writes statistics shortly after each minute, until ctx ends; then it writes those that
// are left, until lasting ends at the latest. Once an hour it sees to the tables. A worker
// without jobs writes nothing but that.
func (k *Keeper) Run(ctx, lasting context.Context) {
	upkeep := time.Now().Add(rand.N(time.Minute)) // not all workers of a deployment at once
	if k.Due {
		k.upkeepBy(lasting, upkeepWithin) // a worker that has nothing to do ends at once
		upkeep = upkeep.Add(upkeepEvery / 2)
	}
	for {
		now := time.Now()
		// Whoever waits for the end of the minute has it in one row.
		next := now.Truncate(flushEvery).Add(flushEvery).Add(rand.N(time.Second))
		if !k.await(ctx, next) {
			break
		}
		k.flush(ctx, next.Truncate(flushEvery).Add(-flushEvery/2))
		if time.Now().After(upkeep) {
			wait := upkeepEvery - rand.N(upkeepEvery/4)
			if !k.upkeep(ctx) {
				wait = upkeepAgain
			}
			upkeep = time.Now().Add(wait)
		}
	}
	lasting, cancel := context.WithTimeout(lasting, flushWithin)
	defer cancel()
	k.flush(lasting, time.Now())
	k.record(lasting)
	k.Recorder.tell(true)
}

// await waits, and records meanwhile what was left to the keeper. It reports whether ctx
// lasts.
func (k *Keeper) await(ctx context.Context, until time.Time) bool {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-k.Recorder.noted:
			k.record(ctx)
		}
	}
}

// record records the runs that were left to the keeper.
func (k *Keeper) record(ctx context.Context) {
	r := k.Recorder
	r.mu.Lock()
	runs := r.later
	r.later = nil
	r.mu.Unlock()
	events := r.Rows(runs, false)
	if events == nil {
		return
	}
	problem, err := k.Queries.RecordRuns(ctx, *events)
	if err != nil {
		r.Dropped(len(events.Ids), err)
		return
	}
	r.Answered(len(events.Ids), problem)
}

// flush writes the statistics since the last flush, as those of the minute around at. What
// cannot be written joins the next ones.
func (k *Keeper) flush(ctx context.Context, at time.Time) {
	r := k.Recorder
	r.tell(false)
	r.mu.Lock()
	minute := r.minute
	r.minute = nil
	r.mu.Unlock()
	if len(minute) == 0 {
		return
	}
	p := dbgen.RecordStatsParams{WorkerID: r.WorkerID, Age: time.Since(at).Seconds()}
	for task, c := range minute {
		p.Tasks = append(p.Tasks, task)
		p.Completed = append(p.Completed, c.ends[Completed])
		p.Failed = append(p.Failed, c.ends[Failed])
		p.PermanentlyFailed = append(p.PermanentlyFailed, c.ends[PermanentlyFailed])
		p.Returned = append(p.Returned, c.ends[Returned])
		p.Snoozed = append(p.Snoozed, c.ends[Snoozed])
		p.RunSeconds = append(p.RunSeconds, c.run)
		p.WaitSeconds = append(p.WaitSeconds, c.wait)
		p.Runs = append(p.Runs, array(trimmed(c.runs[:])))
		p.Waits = append(p.Waits, array(trimmed(c.waits[:])))
	}
	err := k.Queries.RecordStats(ctx, p)
	if err != nil {
		r.mu.Lock()
		for task, c := range minute {
			r.merge(task, c)
		}
		r.mu.Unlock()
		err = fmt.Errorf("writing the statistics of %d tasks: %w", len(minute), err)
	}
	k.told(&k.unwritten, err)
}

// told tells of the first failure in a row.
func (k *Keeper) told(before *bool, err error) {
	if err != nil && !*before {
		k.Recorder.Events.Emit(event.HistoryUnwritten{WorkerID: k.Recorder.WorkerID, Err: err})
	}
	*before = err != nil
}

// merge adds counts that could not be written. The caller holds the lock.
func (r *Recorder) merge(task string, old *counts) {
	c := r.minute[task]
	if c == nil {
		if r.minute == nil {
			r.minute = map[string]*counts{}
		}
		r.minute[task] = old
		return
	}
	for i := range c.ends {
		c.ends[i] += old.ends[i]
	}
	for i := range c.runs {
		c.runs[i] += old.runs[i]
		c.waits[i] += old.waits[i]
	}
	c.run, c.wait = c.run+old.run, c.wait+old.wait
}

func (k *Keeper) upkeepBy(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	k.upkeep(ctx)
}

// upkeep reports whether everything is in order.
func (k *Keeper) upkeep(ctx context.Context) bool {
	problem, err := k.Queries.KeepHistory(ctx, dbgen.KeepHistoryParams{
		EventsFor: k.Retention.Events.Seconds(), MinutesFor: k.Retention.Minutes.Seconds(), HoursFor: k.Retention.Hours.Seconds(),
	})
	if err == nil && problem != "" {
		err = errors.New(problem)
	}
	err = errors.Join(err, k.sweepUnique(ctx))
	if err != nil {
		err = fmt.Errorf("keeping the tables of history in order: %w", err)
	}
	if ctx.Err() == nil {
		k.told(&k.unkept, err)
	}
	return err == nil
}

// sweepBatch is how many keys of unique jobs one statement forgets: it takes milliseconds.
const sweepBatch = 2000

// sweepUnique forgets the keys of unique jobs whose time is over, each batch in a transaction
// of its own.
func (k *Keeper) sweepUnique(ctx context.Context) error {
	for {
		swept, err := k.Queries.SweepUnique(ctx, sweepBatch)
		if err != nil {
			return fmt.Errorf("forgetting unique jobs whose time is over: %w", err)
		}
		if swept < sweepBatch {
			return nil
		}
	}
}

// array is an array as PostgreSQL reads it.
func array(counts []int64) string {
	var text strings.Builder
	text.WriteByte('{')
	for i, n := range counts {
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteString(strconv.FormatInt(n, 10))
	}
	text.WriteByte('}')
	return text.String()
}
