package recovery

import (
	"context"
	"time"
)

// ResetOldLocks is what a loop does every 8 to 10 minutes.
func ResetOldLocks(ctx context.Context, l *Sweeper) error { return l.resetOldLocks(ctx) }

// Holding says that the loop would not sweep now.
func Holding(l *Sweeper) bool { return l.paused() }

// Beat is one heartbeat.
func Beat(ctx context.Context, k *Heartbeat) error { return k.beat(ctx) }

// Due says that all is due before the next poll.
func Due(p *IdlePoll) bool {
	return p.Heartbeat.dueWithin(p.Interval) && p.Sweeper.sweepWithin(p.Interval) && p.Sweeper.resetWithin(p.Interval)
}

// ResetDue has the old locks reset soon, but not before the next poll.
func ResetDue(p *IdlePoll) { p.Sweeper.resets.set(p.Interval / 2) }

// UnusedFor has the heartbeat not have used its connection for so long.
func UnusedFor(k *Heartbeat, t time.Duration) { k.used = time.Now().Add(-t) }

// ResetWithin says that old locks are reset before so much time has passed.
func ResetWithin(p *IdlePoll, t time.Duration) bool { return p.Sweeper.resetWithin(t) }
