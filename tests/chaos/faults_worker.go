//go:build unix

package main

import (
	"context"
	"syscall"
	"time"
)

// Faults that hit one worker.

// kill ends a process with SIGKILL.
func (c *chaos) kill(ctx context.Context, d choice) error {
	s := c.fleet.slots[d.slot]
	pause := d.between(0, 2*time.Second)
	s.mu.Lock()
	s.pause = pause
	s.mu.Unlock()
	select {
	case <-s.started:
	default:
	}
	p := s.now()
	if !p.running() {
		return nil
	}
	f := c.log.begin(d.number, d.kind, s.name, "SIGKILL to %s, the next one after %s", p.name, pause)
	defer c.log.end(f)
	p.kill()
	select {
	case <-s.started:
	case <-ctx.Done():
	}
	return nil
}

// freeze stops a process for so long that it is declared dead, and then lets it
// go on.
func (c *chaos) freeze(ctx context.Context, d choice) error {
	c.stopFor(ctx, d, d.between(staleAfter+sweepInterval, 3*staleAfter))
	return nil
}

// blink stops a process for less than that.
func (c *chaos) blink(ctx context.Context, d choice) error {
	c.stopFor(ctx, d, d.between(staleAfter/10, staleAfter/2))
	return nil
}

func (c *chaos) stopFor(ctx context.Context, d choice, length time.Duration) {
	s := c.fleet.slots[d.slot]
	p := s.now()
	f := c.log.begin(d.number, d.kind, s.name, "SIGSTOP to %s for %s", p.name, length)
	defer c.log.end(f)
	p.signal(syscall.SIGSTOP)
	last(ctx, length)
	p.signal(syscall.SIGCONT)
}

// delayed makes the network slow.
func (c *chaos) delayed(ctx context.Context, d choice) error {
	s := c.fleet.slots[d.slot]
	length, delay := d.between(time.Second, 6*time.Second), 10*time.Millisecond+time.Duration(d.roll*150)*time.Millisecond
	f := c.log.begin(d.number, d.kind, s.name, "%s on each piece of data for %s", delay, length)
	defer c.log.end(f)
	s.proxy.setDelay(delay)
	last(ctx, length)
	s.proxy.heal()
	return nil
}

// cut ends all of a worker's connections, and often turns new ones away.
func (c *chaos) cut(ctx context.Context, d choice) error {
	s := c.fleet.slots[d.slot]
	length := time.Duration(0)
	if d.roll < 0.7 {
		length = d.between(200*time.Millisecond, 2*staleAfter)
	}
	f := c.log.begin(d.number, d.kind, s.name, "%d connections, none for %s", s.proxy.connections(), length)
	defer c.log.end(f)
	s.proxy.setRefuse(length > 0)
	s.proxy.cut()
	last(ctx, length)
	s.proxy.heal()
	return nil
}

// blackhole swallows what is sent. Afterwards it is delivered late, as TCP does, or all
// connections end.
func (c *chaos) blackhole(ctx context.Context, d choice) error {
	s := c.fleet.slots[d.slot]
	length, cutting := d.between(time.Second, 3*staleAfter), d.roll < 0.5
	f := c.log.begin(d.number, d.kind, s.name, "for %s, connections cut afterwards: %t", length, cutting)
	defer c.log.end(f)
	s.proxy.blackhole()
	last(ctx, length)
	if cutting {
		s.proxy.cut()
	}
	s.proxy.heal()
	return nil
}

// hush stops a worker whose database has stopped answering: it must have ended within
// the time that is promised for a whole shutdown.
func (c *chaos) hush(ctx context.Context, d choice) error {
	s := c.fleet.slots[d.slot]
	p := s.now()
	if s.runtime.foreign() || !p.running() {
		c.log.say("#%d %s %s: left out, %s is no running gworker", d.number, d.kind, s.name, p.name)
		return nil
	}
	before := time.Duration(0)
	if d.roll < 0.5 {
		before = d.between(0, 2*statementTimeout)
	}
	f := c.log.begin(d.number, d.kind, s.name, "silence, and SIGTERM to %s after %s", p.name, before)
	defer c.log.end(f)
	defer s.proxy.heal()
	select {
	case <-s.started:
	default:
	}
	s.proxy.blackhole()
	last(ctx, before)
	began := time.Now()
	p.stop()
	timer := time.NewTimer(shutdownBound + shutdownSlack)
	defer timer.Stop()
	select {
	case <-p.exited:
		c.log.say("#%d %s was gone after %s", d.number, p.name, seconds(time.Since(began)))
	case <-timer.C:
		c.log.breaks("a shutdown is bounded when the database is silent", "#%d: %s was still there after %s",
			d.number, p.name, seconds(time.Since(began)))
		p.kill()
	case <-ctx.Done():
		return nil
	}
	s.proxy.cut() // nothing of it comes late
	s.proxy.heal()
	select {
	case <-s.started:
	case <-ctx.Done():
	}
	return nil
}

const (
	// shutdownBound is what a worker of this program may take for its shutdown.
	shutdownBound = abortTimeout + statementTimeout
	// shutdownSlack is what a busy machine adds, with jobs that look at their contexts.
	shutdownSlack = 8 * time.Second
)
