//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"
)

// Steps of the servers' clock, for which libfaketime stands between PostgreSQL and the
// system. Steps are of whole hours and a run is shorter than one, so that what was
// recorded by the server's clock can be told by the machine's.

// clock is what the servers are told of the time.
type clock struct {
	library string
	file    string
}

// clockStep is a step's size: less than the 4 hours after which every Graphile Worker
// resets locks, there and back.
const clockStep = time.Hour

// findClock finds the library, or says why the servers' clock cannot be set.
func findClock(base string) (*clock, error) {
	for _, pattern := range []string{
		"/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1",
		"/usr/lib64/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1",
	} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			c := &clock{library: found[0], file: filepath.Join(base, "clock")}
			return c, c.set(0)
		}
	}
	return nil, errors.New("libfaketime is not installed (Debian's package is faketime)")
}

func (c *clock) set(offset time.Duration) error {
	fresh := c.file + ".new"
	if err := os.WriteFile(fresh, fmt.Appendf(nil, "%+d\n", int(offset.Seconds())), 0o644); err != nil {
		return err
	}
	return os.Rename(fresh, c.file)
}

// environment is what a server is started with. Only the time of day is changed; waits
// go by the monotonic clock.
func (c *clock) environment() []string {
	if c == nil {
		return nil
	}
	return []string{
		"LD_PRELOAD=" + c.library, "FAKETIME_TIMESTAMP_FILE=" + c.file, "FAKETIME_NO_CACHE=1",
		"FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1",
	}
}

// step sets the clock an hour ahead or back, and right again, and then does what an
// operator has to do after that.
func (c *chaos) step(ctx context.Context, d choice) error {
	offset, length := clockStep, d.between(time.Second, 2*staleAfter)
	if d.roll < 0.5 {
		offset = -offset
	}
	f := c.log.begin(d.number, d.kind, everybody, "the servers' clock steps by %s, and back after %s", offset, length)
	defer c.log.end(f)
	if err := c.cluster.clock.set(offset); err != nil {
		return err
	}
	shown, err := value[time.Time](ctx, c.cluster.now(), "select clock_timestamp()")
	if err != nil {
		return err
	}
	if off := shown.Sub(time.Now().Add(offset)).Abs(); off > time.Minute {
		return fmt.Errorf("the server's clock shows %s, which is %s from what it was set to", shown, off)
	}
	last(ctx, length)
	if err := c.cluster.clock.set(0); err != nil {
		return err
	}
	return c.cluster.now().exec(ctx, afterStep...)
}

// afterStep is what an operator does after the clock was ahead. A job that was claimed then
// keeps its time until it fails, so this is repeated while the queue drains.
var afterStep = []string{
	`update graphile_worker._private_jobs set run_at = now() where id in (
		select id from graphile_worker._private_jobs
		where run_at > now() + interval '10 minutes' and locked_at is null for update skip locked)`,
	"update graphile_worker._private_workers set last_heartbeat_at = now() where last_heartbeat_at > now() + interval '10 minutes'",
}

// real is a time of the servers' clock by the machine's, in a run that began then.
func (j *journal) real(t time.Time) time.Time {
	middle := j.began.Add(time.Since(j.began) / 2)
	steps := math.Round(float64(t.Sub(middle)) / float64(clockStep))
	return t.Add(-time.Duration(steps) * clockStep)
}
