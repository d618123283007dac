package recovery

import (
	"context"
	"time"
)

// ResetOldLocks is what a loop does every 8 to 10 minutes.
func ResetOldLocks(ctx context.Context, l *Loop) error { return l.resetOldLocks(ctx) }

// Holding says that the loop would not sweep now.
func Holding(l *Loop) bool { return l.holding() }

// Beat is one heartbeat.
func Beat(ctx context.Context, k *Keeper) error { return k.beat(ctx) }

// Due says that all is due before the next poll.
func Due(p *Poller) bool {
	return p.Keeper.dueWithin(p.Interval) && p.Loop.sweepWithin(p.Interval) && p.Loop.resetWithin(p.Interval)
}

// ResetDue has the old locks reset soon, but not before the next poll.
func ResetDue(p *Poller) { p.Loop.resets.in(p.Interval / 2) }

// UnusedFor has the keeper not have used its connection for so long.
func UnusedFor(k *Keeper, t time.Duration) { k.used = time.Now().Add(-t) }

// ResetWithin says that old locks are reset before so much time has passed.
func ResetWithin(p *Poller, t time.Duration) bool { return p.Loop.resetWithin(t) }
