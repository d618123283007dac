//go:build unix

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// The rules that need the fault log.

const (
	// reconnecting is how long after a fault a worker may need until its
	// heartbeat is there again: one more interval, and what a busy machine adds.
	reconnecting = heartbeat + time.Second
	// noticing is how long a worker may then take to find out that its locks are
	// gone and to end their runs: it looks twice before it does.
	noticing = 2*heartbeat + 700*time.Millisecond
)

// silences says that a fault is a reason to declare a worker dead that lives. A lock on
// the jobs table delays no heartbeat. While the database itself is away, the heartbeats of
// all workers get old, so an old one is no sign of a dead worker. A connection limit hits
// some workers and not others.
func silences(f fault) bool {
	switch f.Kind {
	case "freeze", "blink", "cut", "blackhole", "delay", "hush", "limits", "disk":
		return true
	}
	return false
}

// A window is a time in which a worker was not heard of, or need not have been.
type window struct{ from, to time.Time }

// windows joins faults of a slot that follow each other too soon for a
// heartbeat in between.
func (j *journal) windows(slot string, counts func(fault) bool) (all []window) {
	for _, f := range j.of(slot) {
		if !counts(f) {
			continue
		}
		to := f.To.Add(reconnecting)
		if n := len(all); n > 0 && !f.From.After(all[n-1].to) {
			if to.After(all[n-1].to) {
				all[n-1].to = to
			}
			continue
		}
		all = append(all, window{f.From, to})
	}
	return all
}

// silent says that the faults of a slot explain that at some moment its last
// heartbeat was too old.
func (j *journal) silent(slot string, at time.Time) bool {
	for _, w := range j.windows(slot, silences) {
		if !at.Before(w.from) && !at.After(w.to) {
			return at.Sub(w.from) >= staleAfter-2*heartbeat
		}
	}
	return false
}

// wrongRecoveries finds locks that were taken from workers which lived and had no reason
// of their own to be silent.
func (c *chaos) wrongRecoveries(ctx context.Context) (evidence []string, err error) {
	type takenLock struct {
		Process, By, Holder string
		At                  time.Time
		Job                 int64
	}
	taken, err := records[takenLock](ctx, c.oracle, "select process, by_app, locked_by, at, job_id from taken order by at")
	for _, t := range taken {
		s, p := c.fleet.find(t.Process)
		if p == nil || !p.ended.After(t.At) || c.log.silent(s.name, t.At) {
			continue
		}
		evidence = append(evidence, fmt.Sprintf("%s: %s took job %d from %s (%s), which lived and could write heartbeats",
			c.log.at(t.At), t.By, t.Job, t.Process, t.Holder))
	}
	return evidence, err
}

// lateCancels finds runs that went on after their worker could have known that their lock was taken.
func (c *chaos) lateCancels(ctx context.Context) (evidence []string, err error) {
	type staleRun struct {
		Process    string
		Job        int64
		Taken, End time.Time
	}
	staleRuns, err := records[staleRun](ctx, c.oracle, `
		select worker, job_id, taken_at, ended_at from ran
		where stale and runtime = 'gworker' and not (killed and outcome is null) order by ended_at`)
	for _, r := range staleRuns {
		s, p := c.fleet.find(r.Process)
		if p == nil {
			continue
		}
		knows := r.Taken
		for _, w := range c.log.windows(s.name, func(fault) bool { return true }) {
			if !knows.Before(w.from) && knows.Before(w.to) {
				knows = w.to
			}
		}
		if r.End.After(knows.Add(noticing)) {
			evidence = append(evidence, fmt.Sprintf("the lock of job %d was taken from %s at %s, and its run went on until %s",
				r.Job, r.Process, c.log.at(r.Taken), c.log.at(r.End)))
		}
	}
	return evidence, err
}

// at is a moment as the log prints it.
func (j *journal) at(t time.Time) string { return seconds(t.Sub(j.began)) }

// records returns the rows that a query on the oracle finds.
func records[T any](ctx context.Context, o *oracle, sql string) ([]T, error) {
	rows, err := o.pool.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[T])
}
